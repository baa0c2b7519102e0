// SPDX-License-Identifier: MPL-2.0
// Products with int8 weights in device memory: LLM.int8(), Y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ), where the activations are
// quantised too, and decoding (M ≤ 16) with float activations. Other products with the dequantised values go through
// dense ones. The arithmetic of LLM.int8() is the host's (int8_decomposed.cpp): exact integer sums, scaled in double.
#ifndef EIGENQ_CUDA_INT8_PRODUCT_H
#define EIGENQ_CUDA_INT8_PRODUCT_H

#include <eigen_q/src/Int8Product.h>

#include "alignment.h"
#include "context_state.h"
#include "device_lowering.h"
#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {

using EigenQ::internal::Int8Product;
using EigenQ::internal::kInt8MaxDepth;

/** Codes of activations start at 16-byte boundaries and lie so many bytes apart, zeros behind the last column... */
constexpr Index kCodeAlignment = 16;
/** ...and have room for rows up to a multiple of this, whatever it holds: cuBLASLt takes rows by fours. */
constexpr Index kCodeRows = 4;

/** Activations as LLM.int8() multiplies them: Int8Activations in device memory. */
struct DeviceActivations {
  const std::int8_t* codes = nullptr;  // 0 throughout the outlier columns
  Index stride = 0;                    // a multiple of kCodeAlignment
  const float* rowStats = nullptr;     // NaN where the row holds a NaN
  const int* outliers = nullptr;       // ascending columns that are multiplied in full precision
  const int* outlierCount = nullptr;   // how many, known to the device only; null: none
};

/** DecomposedProduct in device memory. */
struct DeviceDecomposedProduct {
  DeviceActivations activations;
  ConstDenseView x;               // m×k; read in the outlier columns only
  WeightView w;                   // int8, n×k
  ConstDenseView outlierWeights;  // n×k, read in the outlier columns only; no data: decoded from w
  DenseView y;                    // m×n
  Epilogue epilogue;
};

/** One way to compute it. refuse() looks at shapes, strides and alignment only; its activations may be empty. */
struct DecomposedLowering {
  const char* name;
  const char* (*refuse)(const DeviceDecomposedProduct&, const Context&);
  void (*run)(const DeviceDecomposedProduct&, Context&);
};

/** Best first; the last row never refuses. */
LoweringTable<DecomposedLowering> deviceDecomposedLowerings();

/** Runs the first row that does not refuse. */
void multiplyDecomposed(const DeviceDecomposedProduct& p, Context& context);

/** Room for the codes of \a x, laid out as products take activations. */
Int8Codes newCodes(const ConstDenseView& x, Scratch& scratch);

/** Quantises the rows of \a x into \a scratch. Outliers are columns with a magnitude of \a threshold > 0 or more. */
DeviceActivations quantizeActivations(const ConstDenseView& x, float threshold, Scratch& scratch, Context& context);

// Rows of deviceLowerings(), in this order. The LLM.int8() ones take weights with int8Activations, transposed; the last
// takes all of these.
const char* refuseInt8Stream(const QuantizedProduct& p, const Context& context);
void runInt8Stream(const QuantizedProduct& p, Context& context);
const char* refuseInt8DecodeFused(const QuantizedProduct& p, const Context& context);
void runInt8DecodeFused(const QuantizedProduct& p, Context& context);
const char* refuseInt8Decode(const QuantizedProduct& p, const Context& context);
void runInt8Decode(const QuantizedProduct& p, Context& context);
const char* refuseInt8Wgmma(const QuantizedProduct& p, const Context& context);
void runInt8Wgmma(const QuantizedProduct& p, Context& context);
const char* refuseInt8CublasLt(const QuantizedProduct& p, const Context& context);
void runInt8CublasLt(const QuantizedProduct& p, Context& context);
const char* refuseInt8Reference(const QuantizedProduct& p, const Context& context);
void runInt8Reference(const QuantizedProduct& p, Context& context);

// A row of deviceLowerings() for int8 weights whose activations stay as they are.
const char* refuseInt8WeightOnlyDecode(const QuantizedProduct& p, const Context& context);
void runInt8WeightOnlyDecode(const QuantizedProduct& p, Context& context);

/** C = A·Bᵀ in int32, exact; pointers are device pointers. Asserts k ≤ kInt8MaxDepth. */
void int8Gemm(const Int8Product& p, Context& context);

/** rows×cols codes with any strides to \a out, whose rows lie \a outStride apart; zeros from column \a cols on and for
 * rows up to \a outRows. Transposes where inRowStride = 1. */
void copyCodes(const std::int8_t* in, Index inRowStride, Index inColStride, Index rows, Index cols, std::int8_t* out,
               Index outRows, Index outStride, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_PRODUCT_H
