// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_ON_DEVICE_H
#define EIGENQ_FINETUNE_ON_DEVICE_H

#include "Options.h"

namespace finetune {

/** The job with its matrices on a CUDA device. \returns the exit status. Throws EigenQ::NoCudaDevice where there is no
 * device, before any work, and std::runtime_error in a build without EigenQ::Cuda. */
int runOnDevice(Options options);

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_ON_DEVICE_H
