// SPDX-License-Identifier: MPL-2.0
// Every host kernel that a row of a lowering table may name.
#ifndef EIGENQ_CPU_KERNELS_H
#define EIGENQ_CPU_KERNELS_H

#include <eigen_q/src/FloatKernels.h>
#include <eigen_q/src/Int8Product.h>
#include <eigen_q/src/Lowering.h>
#include <eigen_q/src/OptimizerKernels.h>

namespace EigenQ {
namespace internal {

void runReference(const QuantizedProduct& p);   // double sums, any scalar
void runDecomposed(const QuantizedProduct& p);  // int8 activations and outlier columns; integer sums

void runGemmPortable(const QuantizedProduct& p);
void runGemvPortable(const QuantizedProduct& p);
const char* refuseDequantizeRows(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void dequantizeRows(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void dequantizePortable(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void runAdamPortable(const AdamStep& step);
void runLionPortable(const LionStep& step);

extern const FloatKernels kFloatPortable;
#if defined(EIGENQ_HAVE_X86_KERNELS)
extern const FloatKernels kFloatAvx2, kFloatAvx512;
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS)
extern const FloatKernels kFloatNeon;
#endif

void runInt8GemmReference(const Int8Product& p, const Int8Sink& sink);
void runInt8GemmPortable(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsPortable(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);

#if defined(EIGENQ_HAVE_NEON_KERNELS)
void runGemmNeon(const QuantizedProduct& p);
void runGemvNeon(const QuantizedProduct& p);
void dequantizeNeon(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void runInt8GemmNeon(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsNeon(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
void runFourBitInt8NeonDot(const QuantizedProduct& p);
void runInt8GemmNeonDot(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsNeonDot(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
#endif

#if defined(EIGENQ_HAVE_X86_KERNELS)
void runInt8GemmAvx2(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsAvx2(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
void runInt8GemmAvxVnni(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsAvxVnni(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
void runInt8GemmAvx512(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsAvx512(const Int8Tile& tile, const double* rowScale, const float* colAbsmax, const float* outliers);
void runInt8GemmAvx512Vnni(const Int8Product& p, const Int8Sink& sink);
void scaleInt8SumsAvx512Vnni(const Int8Tile& tile, const double* rowScale, const float* colAbsmax,
                             const float* outliers);

void runFourBitInt8Avx2(const QuantizedProduct& p);
void runFourBitInt8AvxVnni(const QuantizedProduct& p);
void runFourBitInt8Avx512(const QuantizedProduct& p);
void runFourBitInt8Avx512Vnni(const QuantizedProduct& p);

void runFourBitGemvAvx2(const QuantizedProduct& p);
void runGemmAvx2(const QuantizedProduct& p);
void runGemvAvx2(const QuantizedProduct& p);
void runGevmAvx2(const QuantizedProduct& p);
void dequantizeAvx2(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void runAdamAvx2(const AdamStep& step);
void runLionAvx2(const LionStep& step);

void runFourBitGemvAvx512(const QuantizedProduct& p);
void runGemmAvx512(const QuantizedProduct& p);
void runGemvAvx512(const QuantizedProduct& p);
void runGevmAvx512(const QuantizedProduct& p);
void dequantizeAvx512(const WeightView& w, const DenseView& y, const Epilogue& epilogue);
void runAdamAvx512(const AdamStep& step);
void runLionAvx512(const LionStep& step);
#endif

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_KERNELS_H
