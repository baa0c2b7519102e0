// SPDX-License-Identifier: MPL-2.0
// The steps behind DeviceOutliers.
#ifndef EIGENQ_CUDA_OUTLIERS_H
#define EIGENQ_CUDA_OUTLIERS_H

#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** No outliers: mask and count are 0. */
void clearOutliers(const DeviceOutliers& outliers, Index cols, Context& context);

/** columns and count from the mask. */
void listOutliers(Index cols, const DeviceOutliers& outliers, Context& context);

/** Code 0 in all rows of the listed columns. */
void clearColumns(const Int8Codes& codes, Index rows, const DeviceOutliers& outliers, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OUTLIERS_H
