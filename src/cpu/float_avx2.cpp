// SPDX-License-Identifier: MPL-2.0
#include "float_table.h"

namespace EigenQ {
namespace internal {

const FloatKernels kFloatAvx2 = floatKernelsOf<Avx2>();

}  // namespace internal
}  // namespace EigenQ
