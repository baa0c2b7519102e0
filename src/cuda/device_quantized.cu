// SPDX-License-Identifier: MPL-2.0
// How the quantised matrices of the device lie in memory, and how they are made there.
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/gpu/QuantizedMemory.h>

#include <cstring>

#include "op_launch.cuh"
#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::blockCount;
using EigenQ::internal::kByteLevels;
using EigenQ::internal::kFourBitLevels;

/** Passed to the kernel by value: a copy from host memory could not be captured in a graph. */
struct CodeTables {
  float fourBit[kFourBitLevels];
  float nested[kByteLevels];
};

__global__ void writeTables(CodeTables tables, float* fourBit, float* nested) {
  joinStreamThenAllow();
  const int i = static_cast<int>(threadIdx.x);
  if (i < kFourBitLevels) fourBit[i] = tables.fourBit[i];
  if (nested) nested[i] = tables.nested[i];
}

}  // namespace

FourBitLayout::FourBitLayout(Index values, const FourBitShape& shape) {
  const auto place = [this](std::size_t size) {
    const std::size_t begin = bytes;
    bytes += (size + 255) / 256 * 256;
    return begin;
  };
  const Index blocks = blockCount(values, shape.blockSize);
  codeTable = place(kFourBitLevels * sizeof(float));
  packed = place(static_cast<std::size_t>(EigenQ::internal::packedSize(values)));
  absmax = place(static_cast<std::size_t>(blocks) * (shape.nested ? 1 : sizeof(float)));
  if (!shape.nested) return;
  absmax2 = place(static_cast<std::size_t>(blockCount(blocks, shape.nestedBlockSize)) * sizeof(float));
  nestedTable = place(kByteLevels * sizeof(float));
  offset = place(sizeof(float));
}

void quantizeFourBit(const ConstDenseView& x, FourBitType type, const FourBitShape& shape, const FourBitLayout& layout,
                     void* memory, Context& context) {
  const DeviceGuard guard(context.device());
  const auto part = [memory](std::size_t offset) { return static_cast<char*>(memory) + offset; };
  const auto floats = [&](std::size_t offset) { return reinterpret_cast<float*>(part(offset)); };
  const auto bytes = [&](std::size_t offset) { return reinterpret_cast<std::uint8_t*>(part(offset)); };

  CodeTables tables;
  std::memcpy(tables.fourBit, EigenQ::internal::fourBitTable(type), sizeof tables.fourBit);
  std::memcpy(tables.nested, EigenQ::internal::signedDynamicMap().data(), sizeof tables.nested);
  launchEarly("writeTables", writeTables, {1, kByteLevels}, context, tables, floats(layout.codeTable),
              shape.nested ? floats(layout.nestedTable) : nullptr);

  if (!shape.nested)
    return quantizeFourBit(x, type, shape.blockSize, bytes(layout.packed), floats(layout.absmax), context);
  const Index blocks = blockCount(x.rows * x.cols, shape.blockSize);
  Scratch scratch(context);
  float* const absmax = scratch.array<float>(blocks);
  quantizeFourBit(x, type, shape.blockSize, bytes(layout.packed), absmax, context);
  quantizeNested(absmax, blocks, shape.nestedBlockSize, bytes(layout.absmax), floats(layout.absmax2),
                 floats(layout.offset), context);
}

void quantizeInt8(const ConstDenseView& x, std::int8_t* codes, float* rowAbsmax, Context& context) {
  const DeviceGuard guard(context.device());
  quantizeInt8Rows(x, 0, /*markNaN=*/false, {codes, x.cols}, rowAbsmax, {}, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
