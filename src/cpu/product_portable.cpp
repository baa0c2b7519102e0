// SPDX-License-Identifier: MPL-2.0
#include "gemv_kernels.h"
#include "kernels.h"
#include "panel_kernels.h"

namespace EigenQ {
namespace internal {

void runGemmPortable(const QuantizedProduct& p) { runGemm<Portable>(p); }
void runGemvPortable(const QuantizedProduct& p) { runGemv<Portable>(p); }
void dequantizePortable(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  runDequantize<Portable>(w, y, epilogue);
}

}  // namespace internal
}  // namespace EigenQ
