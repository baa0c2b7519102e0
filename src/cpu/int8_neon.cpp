// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmNeon(const Int8Product& p, const Int8Sink& sink) { Int8Kernels<Int8Neon>::run(p, sink); }
void scaleInt8SumsNeon(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers) {
  Int8Kernels<Int8Neon>::scale(tile, rowScale, colAbsmax, outliers);
}

}  // namespace internal
}  // namespace EigenQ
