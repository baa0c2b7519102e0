// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_MACROS_H
#define EIGENQ_MACROS_H

// The scalar codecs are the definition for every backend, so nvcc compiles the same text for the device.
#if defined(__CUDACC__)
#define EIGENQ_HOST_DEVICE __host__ __device__
#else
#define EIGENQ_HOST_DEVICE
#endif

// For functions that a kernel file compiled for AVX-512 shares with baseline code: emitted out of line, either copy could
// become everybody's at link time.
#if defined(__GNUC__)
#define EIGENQ_STRONG_INLINE inline __attribute__((always_inline))
#else
#define EIGENQ_STRONG_INLINE inline
#endif

#endif  // EIGENQ_MACROS_H
