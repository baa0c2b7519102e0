// SPDX-License-Identifier: MPL-2.0
// Every host kernel that a row of a lowering table may name.
#ifndef EIGENQ_CPU_KERNELS_H
#define EIGENQ_CPU_KERNELS_H

#include <eigen_q/src/Lowering.h>

namespace EigenQ {
namespace internal {

void runReference(const QuantizedProduct& p);  // double sums, any scalar

void runGemmPortable(const QuantizedProduct& p);
void runGemvPortable(const QuantizedProduct& p);
void dequantizePortable(const WeightView& w, const DenseView& y, const Epilogue& epilogue);

#if defined(EIGENQ_HAVE_X86_KERNELS)
void runGemmAvx2(const QuantizedProduct& p);
void runGemvAvx2(const QuantizedProduct& p);
void dequantizeAvx2(const WeightView& w, const DenseView& y, const Epilogue& epilogue);

void runGemmAvx512(const QuantizedProduct& p);
void runGemvAvx512(const QuantizedProduct& p);
void dequantizeAvx512(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
#endif

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_KERNELS_H
