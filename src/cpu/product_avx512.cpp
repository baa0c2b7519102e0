// SPDX-License-Identifier: MPL-2.0
#include "gemv_kernels.h"
#include "gevm_kernels.h"
#include "kernels.h"
#include "panel_kernels.h"

namespace EigenQ {
namespace internal {

void runGemmAvx512(const QuantizedProduct& p) { runGemm<Avx512>(p); }
void runGevmAvx512(const QuantizedProduct& p) { runGevm<Avx512>(p); }
void runGemvAvx512(const QuantizedProduct& p) { runGemv<Avx512>(p); }
void dequantizeAvx512(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  runDequantize<Avx512>(w, y, epilogue);
}

}  // namespace internal
}  // namespace EigenQ
