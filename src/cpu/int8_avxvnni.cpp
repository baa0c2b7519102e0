// SPDX-License-Identifier: MPL-2.0
#include "int8_kernels.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runInt8GemmAvxVnni(const Int8Product& p, const Int8Sink& sink) { Int8Kernels<Int8AvxVnni>::run(p, sink); }
void scaleInt8SumsAvxVnni(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers) {
  Int8Kernels<Int8AvxVnni>::scale(tile, rowScale, colAbsmax, outliers);
}

}  // namespace internal
}  // namespace EigenQ
