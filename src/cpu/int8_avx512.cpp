// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmAvx512(const Int8Product& p) { Int8Kernels<Int8Avx512>::run(p); }

}  // namespace internal
}  // namespace EigenQ
