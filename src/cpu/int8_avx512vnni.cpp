// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmAvx512Vnni(const Int8Product& p, const Int8Sink& sink) { Int8Kernels<Int8Avx512Vnni>::run(p, sink); }
void scaleInt8SumsAvx512Vnni(const Int8Tile& tile, const double* rowScale, const float* colAbsmax,
                             const float* outliers) {
  Int8Kernels<Int8Avx512Vnni>::scale(tile, rowScale, colAbsmax, outliers);
}

}  // namespace internal
}  // namespace EigenQ
