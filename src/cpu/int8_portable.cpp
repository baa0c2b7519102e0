// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmPortable(const Int8Product& p) { Int8Kernels<Int8Portable>::run(p); }

}  // namespace internal
}  // namespace EigenQ
