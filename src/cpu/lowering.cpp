// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/Lowering.h>

#include "../lowering_log.h"
#include "cpu_features.h"
#include "kernels.h"
#include "operands.h"

#include <iterator>

namespace EigenQ {
namespace internal {
namespace {

/** Without Wᵀ, the scales of W's rows stand inside the sum: such products use the dequantised values. */
bool quantizesActivations(const QuantizedProduct& p) {
  return p.w.format == WeightFormat::kInt8 && p.w.int8Activations && p.transposed;
}

const char* refuseDecomposition(const QuantizedProduct& p) {
  if (p.x.scalar == ScalarType::kDouble) return "double operands want double sums";
  if (!quantizesActivations(p)) return "X is not to be quantised";
  return nullptr;
}

const char* refuseGemmShape(const QuantizedProduct& p) {
  if (quantizesActivations(p)) return "X is to be quantised to int8";
  if (p.x.scalar == ScalarType::kDouble) return "double operands want double sums";
  return nullptr;
}

const char* refuseGemvShape(const QuantizedProduct& p) {
  if (!p.transposed) return "W is not used transposed: its rows are no dot products";
  if (p.y.rows > 8) return "more than 8 rows of X: a decoded panel pays off";
  if (p.x.cols < 32 * p.y.rows) return "rows of W too short: sums across lanes would take longer than the products";
  return refuseGemmShape(p);
}

#if defined(EIGENQ_HAVE_X86_KERNELS) || defined(EIGENQ_HAVE_NEON_KERNELS)

/** Whether 4-bit codes are decoded by whole bytes, and by 32 of one absmax. */
bool isAligned(const WeightView& w) {
  return w.format == WeightFormat::kFourBit && w.offset % 32 == 0 && w.stride % 32 == 0;
}

/** X in 8 bits where the user permits it. */
const char* refuseFourBitInt8(const QuantizedProduct& p) {
  if (p.w.format != WeightFormat::kFourBit || !p.w.int8Activations) return "X is not to be rounded to int8";
  if (!p.transposed) return "W is not used transposed: scales of its rows stand inside the sums";
  if (!isAligned(p.w)) return "rows of W do not begin at multiples of 32 codes";
  if (p.w.cols < 64) return "rows of W too short: rounding X would take longer than the products";
  return refuseGemmShape(p);
}

#endif

#if defined(EIGENQ_HAVE_X86_KERNELS)

constexpr Index kFixedPointWeights = Index(1) << 18;

/** For kernels that walk along rows of any alignment. */
template <int MaxAlignedRows>
const char* refuseRowGemv(const QuantizedProduct& p) {
  if (isAligned(p.w) && p.y.rows > MaxAlignedRows) return "too many rows of X: a decoded panel pays off";
  return refuseGemvShape(p);
}

template <int MaxRows>
const char* refuseFourBitGemv(const QuantizedProduct& p) {
  if (p.w.format != WeightFormat::kFourBit) return "W has no 4-bit codes";
  if (!p.transposed) return "W is not used transposed: its rows are no dot products";
  if (p.y.rows > MaxRows) return "too many rows of X: a decoded panel pays off";
  if (!isAligned(p.w)) return "rows of W do not begin at multiples of 32 codes";
  if (p.w.cols < 128) return "rows of W too short: sums across lanes would take longer than the products";
  return refuseGemmShape(p);
}

/** For kernels that add up rows of W. */
template <int MaxFourBitRows, int MaxInt8Rows>
const char* refuseGevm(const QuantizedProduct& p) {
  if (p.transposed) return "W is used transposed: its rows are not what is added up";
  const bool fourBit = p.w.format == WeightFormat::kFourBit;
  if (p.y.cols < 32) return "rows of W too short for whole steps";
  if (p.y.rows > (fourBit ? MaxFourBitRows : MaxInt8Rows)) return "too many rows of X: a decoded panel pays off";
  if (fourBit && !isAligned(p.w)) return "rows of W do not begin at multiples of 32 codes";
  return refuseGemmShape(p);
}

/** 16-bit fixed point: exact where it matters little, and far from float's range. */
const char* refuseFixedPoint(const QuantizedProduct& p) {
  if (const char* why = refuseFourBitGemv<4>(p)) return why;
  if (p.w.rows * p.w.cols < kFixedPointWeights) return "W fits the second-level cache: reading it is no bottleneck";
  return inFixedPointRange(p.x) ? nullptr : "X has a magnitude that is neither 0 nor in [2^-40, 2^40]";
}

#endif

template <const char* (*CpuLacks)(), const char* (*RefuseShape)(const QuantizedProduct&)>
const char* refuse(const QuantizedProduct& p) {
  const char* lack = CpuLacks();
  return lack ? lack : RefuseShape(p);
}

const char* refuseNothing(const QuantizedProduct&) { return nullptr; }

constexpr Lowering kHostLowerings[] = {
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512vnni.fourbit-int8", refuse<cpuLacksAvx512Vnni, refuseFourBitInt8>, runFourBitInt8Avx512Vnni},
    {"avx512.fourbit-int8", refuse<cpuLacksAvx512, refuseFourBitInt8>, runFourBitInt8Avx512},
    {"avx512.fourbit-gemv", refuse<cpuLacksAvx512, refuseFourBitGemv<3>>, runFourBitGemvAvx512},
    {"avx512.gemv", refuse<cpuLacksAvx512, refuseRowGemv<3>>, runGemvAvx512},
    {"avx512.gevm", refuse<cpuLacksAvx512, refuseGevm<8, 8>>, runGevmAvx512},
    {"avx512.gemm", refuse<cpuLacksAvx512, refuseGemmShape>, runGemmAvx512},
    {"avxvnni.fourbit-int8", refuse<cpuLacksAvxVnni, refuseFourBitInt8>, runFourBitInt8AvxVnni},
    {"avx2.fourbit-int8", refuse<cpuLacksAvx2, refuseFourBitInt8>, runFourBitInt8Avx2},
    {"avx2.fourbit-gemv", refuse<cpuLacksAvx2, refuseFixedPoint>, runFourBitGemvAvx2},  // relative error some 3e-5
    {"avx2.gemv", refuse<cpuLacksAvx2, refuseRowGemv<4>>, runGemvAvx2},
    {"avx2.gevm", refuse<cpuLacksAvx2, refuseGevm<6, 8>>, runGevmAvx2},
    {"avx2.gemm", refuse<cpuLacksAvx2, refuseGemmShape>, runGemmAvx2},
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS)
    {"neondot.fourbit-int8", refuse<cpuLacksNeonDot, refuseFourBitInt8>, runFourBitInt8NeonDot},
    {"neon.gemv", refuse<cpuLacksNeon, refuseGemvShape>, runGemvNeon},
    {"neon.gemm", refuse<cpuLacksNeon, refuseGemmShape>, runGemmNeon},
#endif
    {"portable.gemv", refuse<cpuLacksNothing, refuseGemvShape>, runGemvPortable},
    {"portable.gemm", refuse<cpuLacksNothing, refuseGemmShape>, runGemmPortable},
    {"int8.decomposed", refuseDecomposition, runDecomposed},  // its integer sums have a table of their own
    {"reference", refuseNothing, runReference},
};

template <const char* (*CpuLacks)()>
const char* refuseDequantize(const WeightView&, const DenseView&, const Epilogue&) {
  return CpuLacks();
}

constexpr DequantizeLowering kHostDequantizers[] = {
    {"rows.dequantize", refuseDequantizeRows, dequantizeRows},
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512.dequantize", refuseDequantize<cpuLacksAvx512>, dequantizeAvx512},
    {"avx2.dequantize", refuseDequantize<cpuLacksAvx2>, dequantizeAvx2},
#endif
#if defined(EIGENQ_HAVE_NEON_KERNELS)
    {"neon.dequantize", refuseDequantize<cpuLacksNeon>, dequantizeNeon},
#endif
    {"portable.dequantize", refuseDequantize<cpuLacksNothing>, dequantizePortable},
};

}  // namespace

LoweringTable<Lowering> hostLowerings() { return {std::begin(kHostLowerings), std::end(kHostLowerings)}; }
LoweringTable<DequantizeLowering> hostDequantizers() {
  return {std::begin(kHostDequantizers), std::end(kHostDequantizers)};
}

void lower(const QuantizedProduct& product) {
  const Lowering& row = firstWilling(hostLowerings(), product);
  if (logsLowerings()) logChoice(describe(product), hostLowerings(), row, product);
  reportLowering({LoweringEvent::kProduct, row.name, &product});
  if (product.y.rows > 0 && product.y.cols > 0) row.run(product);
}

void dequantize(const WeightView& w, bool transposed, const DenseView& y, const Epilogue& epilogue) {
  const DenseView out = transposed ? y.transpose() : y;  // of W's shape
  const Epilogue e = transposed ? epilogue.transpose() : epilogue;
  const DequantizeLowering& row = firstWilling(hostDequantizers(), w, out, e);
  if (logsLowerings()) logChoice(describeDequantize(y), hostDequantizers(), row, w, out, e);
  reportLowering({LoweringEvent::kDequantize, row.name, nullptr});
  if (y.rows > 0 && y.cols > 0) row.run(w, out, e);
}

}  // namespace internal
}  // namespace EigenQ
