// SPDX-License-Identifier: MPL-2.0
#include "convert_kernels.h"

namespace EigenQ {
namespace internal {

const ConvertKernels kConvertAvx2 = kKernels;

}  // namespace internal
}  // namespace EigenQ
