// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmAvx2(const Int8Product& p) { Int8Kernels<Int8Avx2>::run(p); }

}  // namespace internal
}  // namespace EigenQ
