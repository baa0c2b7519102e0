// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_MACROS_H
#define EIGENQ_MACROS_H

// The scalar codecs are the definition for every backend, so nvcc compiles the same text for the device.
#if defined(__CUDACC__)
#define EIGENQ_HOST_DEVICE __host__ __device__
#else
#define EIGENQ_HOST_DEVICE
#endif

#endif  // EIGENQ_MACROS_H
