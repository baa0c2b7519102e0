// SPDX-License-Identifier: MPL-2.0
#include "../lowering_log.h"
#include "context_state.h"
#include "dense_product.h"
#include "dense_update.h"
#include "device_lowering.h"
#include "fourbit_decode.h"
#include "fourbit_gemm.h"
#include "fourbit_rows.h"
#include "wgmma_decode.h"
#include "int8_product.h"
#include "product_reference.h"
#include "via_dense.h"
#include "wgmma_backward.h"

#include <iterator>
#include <string>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::describe;
using EigenQ::internal::firstWilling;
using EigenQ::internal::logChoice;
using EigenQ::internal::logsLowerings;
using EigenQ::internal::LoweringEvent;
using EigenQ::internal::nameOf;
using EigenQ::internal::reportLowering;

template <typename Product>
const char* refuseNothing(const Product&, const Context&) {
  return nullptr;
}

constexpr DeviceLowering<QuantizedProduct> kDeviceLowerings[] = {
    {"rows.decode", refuseFourBitRows, runFourBitRows},
    {"stream.decode", refuseFourBitDecodeStream, runFourBitDecodeStream},
    {"mma.decode", refuseFourBitDecodeMma, runFourBitDecodeMma},
    {"simt.decode", refuseFourBitDecodeSimt, runFourBitDecodeSimt},
    {"wgmma.backward", refuseFourBitBackward, runFourBitBackward},
    {"wgmma.decode", refuseFourBitWgmma, runFourBitWgmma},
    {"wgmma.team", refuseFourBitGemm, runFourBitGemm},
    {"int8.stream", refuseInt8Stream, runInt8Stream},
    {"int8.decode.fused", refuseInt8DecodeFused, runInt8DecodeFused},
    {"int8.decode", refuseInt8Decode, runInt8Decode},
    {"int8.wgmma", refuseInt8Wgmma, runInt8Wgmma},
    {"int8.cublaslt", refuseInt8CublasLt, runInt8CublasLt},
    {"int8.reference", refuseInt8Reference, runInt8Reference},
    {"int8.wgmma.weightonly", refuseInt8WeightOnlyWgmma, runInt8WeightOnlyWgmma},
    {"int8.decode.weightonly", refuseInt8WeightOnlyDecode, runInt8WeightOnlyDecode},
    {"int8.wgmma.backward", refuseInt8Backward, runInt8Backward},
    {"dequantize+cublaslt", refuseViaDense, runViaDense},
    {"reference", refuseNothing, runReference},
};

constexpr DeviceLowering<DenseProduct> kDeviceDenseLowerings[] = {
    {"mma.update", refuseDenseUpdate, runDenseUpdate},
    {"cublaslt", refuseDenseCublasLt, runDenseCublasLt},
    {"reference", refuseNothing, runReference},
};

std::string describe(const DenseProduct& p) {
  const auto size = [](const auto& v) { return std::to_string(v.rows) + "x" + std::to_string(v.cols); };
  return "Y " + size(p.y) + " = A " + size(p.a) + " * B " + size(p.b) + " (" + nameOf(p.a.scalar) + ")";
}

void report(const QuantizedProduct& p, const char* kernel) { reportLowering({LoweringEvent::kProduct, kernel, &p}); }
void report(const DenseProduct&, const char* kernel) {
  reportLowering({LoweringEvent::kDenseProduct, kernel, nullptr});
}

Index depthOf(const QuantizedProduct& p) { return p.x.cols; }
Index depthOf(const DenseProduct& p) { return p.a.cols; }

/** The row to run. A sum of nothing may come with null pointers, so that only the reference is asked. */
template <typename Product>
const DeviceLowering<Product>& choose(const LoweringTable<DeviceLowering<Product>>& table, const Product& product,
                                      const Context& context) {
  return depthOf(product) == 0 ? *(table.end() - 1) : firstWilling(table, product, context);
}

template <typename Product>
void lowerBy(const LoweringTable<DeviceLowering<Product>>& table, const Product& product, Context& context) {
  const DeviceGuard guard(context.device());
  const auto& row = choose(table, product, context);
  if (logsLowerings() && depthOf(product) > 0) logChoice("cuda: " + describe(product), table, row, product, context);
  report(product, row.name);
  if (product.y.rows > 0 && product.y.cols > 0) row.run(product, context);
}

}  // namespace

LoweringTable<DeviceLowering<QuantizedProduct>> deviceLowerings() {
  return {std::begin(kDeviceLowerings), std::end(kDeviceLowerings)};
}
LoweringTable<DeviceLowering<DenseProduct>> deviceDenseLowerings() {
  return {std::begin(kDeviceDenseLowerings), std::end(kDeviceDenseLowerings)};
}

void lower(const QuantizedProduct& product, Context& context) { lowerBy(deviceLowerings(), product, context); }
void lower(const DenseProduct& product, Context& context) { lowerBy(deviceDenseLowerings(), product, context); }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
