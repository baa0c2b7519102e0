// SPDX-License-Identifier: MPL-2.0
// What stands for the files *_sm90.cu in builds without code for Hopper.
#include "fourbit_decode.h"
#include "fourbit_gemm.h"
#include "fourbit_rows.h"
#include "wgmma_decode.h"
#include "int8_kernels.h"
#include "op_attention.h"
#include "wgmma_backward.h"

#include <cassert>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr const char* kNoCode = "this build has no code for sm_90a";
void runNothing() { assert(false && "refused everything"); }

}  // namespace

const char* refuseFourBitRows(const QuantizedProduct&, const Context&) { return kNoCode; }
void runFourBitRows(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseFourBitDecodeStream(const QuantizedProduct&, const Context&) { return kNoCode; }
void runFourBitDecodeStream(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseFourBitWgmma(const QuantizedProduct&, const Context&) { return kNoCode; }
void runFourBitWgmma(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseInt8WeightOnlyWgmma(const QuantizedProduct&, const Context&) { return kNoCode; }
void runInt8WeightOnlyWgmma(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseFourBitBackward(const QuantizedProduct&, const Context&) { return kNoCode; }
void runFourBitBackward(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseInt8Backward(const QuantizedProduct&, const Context&) { return kNoCode; }
void runInt8Backward(const QuantizedProduct&, Context&) { runNothing(); }
const char* refuseFourBitGemmAtAll(const QuantizedProduct&, const Context&) { return kNoCode; }
const char* refuseFourBitGemm(const QuantizedProduct&, const Context&) { return kNoCode; }
void runFourBitGemm(const QuantizedProduct&, Context&) { runNothing(); }

const char* refuseDecomposedStream(const DeviceDecomposedProduct&, const Context&) { return kNoCode; }
void runDecomposedStream(const DeviceDecomposedProduct&, Context&) { runNothing(); }
void runDecomposedStream(const DeviceDecomposedProduct&, const std::uint32_t*, Context&) { runNothing(); }
const char* refuseDecomposedWgmma(const DeviceDecomposedProduct&, const Context&) { return kNoCode; }
void runDecomposedWgmma(const DeviceDecomposedProduct&, Context&) { runNothing(); }
void runDecomposedWgmma(const DeviceDecomposedProduct&, const OutlierMarks&, Context&) { runNothing(); }
bool takesPackedOutliers(const DeviceDecomposedProduct&) { return false; }

const char* refuseAttentionWgmmaAtAll(const CausalAttention&, const Context&) { return kNoCode; }
const char* refuseAttentionBackwardWgmmaAtAll(const CausalAttentionBackward&, const Context&) { return kNoCode; }
const char* refuseAttentionWgmma(const CausalAttention&, const Context&) { return kNoCode; }
void runAttentionWgmma(const CausalAttention&, Context&) { runNothing(); }
const char* refuseAttentionBackwardWgmma(const CausalAttentionBackward&, const Context&) { return kNoCode; }
void runAttentionBackwardWgmma(const CausalAttentionBackward&, Context&) { runNothing(); }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
