// SPDX-License-Identifier: MPL-2.0
// Moved: include the header below.
#include <eigen_q/src/gpu/OptimizerKernels.h>
