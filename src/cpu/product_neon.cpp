// SPDX-License-Identifier: MPL-2.0
#include "gemv_kernels.h"
#include "kernels.h"
#include "panel_kernels.h"
#include "simd_neon.h"

namespace EigenQ {
namespace internal {

void runGemmNeon(const QuantizedProduct& p) { runGemm<Neon>(p); }
void runGemvNeon(const QuantizedProduct& p) { runGemv<Neon>(p); }
void dequantizeNeon(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  runDequantize<Neon>(w, y, epilogue);
}

}  // namespace internal
}  // namespace EigenQ
