// SPDX-License-Identifier: MPL-2.0
#include "gemv_kernels.h"
#include "gevm_kernels.h"
#include "kernels.h"
#include "panel_kernels.h"

namespace EigenQ {
namespace internal {

void runGemmAvx2(const QuantizedProduct& p) { runGemm<Avx2>(p); }
void runGevmAvx2(const QuantizedProduct& p) { runGevm<Avx2>(p); }
void runGemvAvx2(const QuantizedProduct& p) { runGemv<Avx2>(p); }
void dequantizeAvx2(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  runDequantize<Avx2>(w, y, epilogue);
}

}  // namespace internal
}  // namespace EigenQ
