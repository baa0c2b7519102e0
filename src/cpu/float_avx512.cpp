// SPDX-License-Identifier: MPL-2.0
#include "float_table.h"

namespace EigenQ {
namespace internal {

const FloatKernels kFloatAvx512 = floatKernelsOf<Avx512>();

}  // namespace internal
}  // namespace EigenQ
