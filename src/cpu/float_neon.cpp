// SPDX-License-Identifier: MPL-2.0
#include "float_table.h"
#include "simd_neon.h"

namespace EigenQ {
namespace internal {

const FloatKernels kFloatNeon = floatKernelsOf<Neon>();

}  // namespace internal
}  // namespace EigenQ
