// SPDX-License-Identifier: MPL-2.0
#include "float_table.h"

namespace EigenQ {
namespace internal {

const FloatKernels kFloatPortable = floatKernelsOf<Portable>();

}  // namespace internal
}  // namespace EigenQ
