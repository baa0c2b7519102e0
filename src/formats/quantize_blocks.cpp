// SPDX-License-Identifier: MPL-2.0
// quantize_blocks.cpp: blockwise quantisation, 4-bit and 8-bit; the loops over a block are those of convert.h.
//
//   flattening │ block 0: v0 … v(B-1) │ block 1 │ … │ last, maybe partial │
//                 absmax → 1/absmax → v·(1/absmax) → code → (4-bit) two codes a byte
//
// Work    one pass over a block for absmax, one for the codes while it is in L1.
// Shape   threads take ranges of whole rows and blocks.
#include <algorithm>
#include <cassert>
#include <numeric>

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/Quantizers.h>

#include "../cpu/tasks.h"
#include "convert.h"
#include "row_major.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kTaskValues = Index{1} << 16;  // some ten microseconds of work
constexpr Index kWorthOfValue = 4;             // a value costs what this many multiplications do

/** Calls \a f(values, count, flat begin) for runs of whole blocks that cover the flattening, on several threads. */
template <typename F>
void forEachBlockRun(const ConstDenseView& a, Index blockSize, const F& f) {
  const Index size = a.rows * a.cols;
  if (size == 0) return;
  const Index unit = blockSize / std::gcd(blockSize, a.cols);  // rows that whole blocks fill
  const Index rows = std::max<Index>(1, kTaskValues / a.cols / unit) * unit;
  forEachTask(ceilDiv(a.rows, rows), size * kWorthOfValue, [&](Index task) {
    ConstDenseView part = a;
    const Index row = task * rows, taskBegin = row * a.cols;
    part.data = elementAt(a, row, 0);
    part.rows = std::min(rows, a.rows - row);
    forEachRun(part, blockSize, [&](const float* run, Index begin, Index count) { f(run, count, taskBegin + begin); });
  });
}

/** Calls \a f(block, begin, end) for the part of each block that lies in [begin, begin + count). */
template <typename F>
void forEachBlockPart(Index begin, Index count, Index blockSize, F&& f) {
  const Index end = begin + count;
  while (begin < end) {
    const Index block = begin / blockSize;
    const Index stop = std::min(end, (block + 1) * blockSize);
    f(block, begin, stop);
    begin = stop;
  }
}

}  // namespace

void quantizeFourBit(const ConstDenseView& a, FourBitType type, Index blockSize, std::uint8_t* packed, float* absmax) {
  assert(isBlockSize(blockSize));
  const ConvertKernels& kernels = convertKernels();
  forEachBlockRun(a, blockSize, [&](const float* values, Index count, Index begin) {
    kernels.quantizeFourBit(type, values, count, blockSize, packed + begin / 2, absmax + begin / blockSize);
  });
}

void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax) {
  assert(isBlockSize(blockSize));
  const ByteThresholds thresholds = byteThresholds(codeTable);
  const ConvertKernels& kernels = convertKernels();
  forEachBlockRun(a, blockSize, [&](const float* values, Index count, Index begin) {
    kernels.quantizeBytes(values, count, blockSize, thresholds.data(), codes + begin, absmax + begin / blockSize);
  });
}

void dequantizeBlockwise(const std::uint8_t* codes, const float* codeTable, const AbsmaxView& absmax, Index blockSize,
                         const DenseView& out) {
  assert(isBlockSize(blockSize));
  const ConvertKernels& kernels = convertKernels();
  storeRuns(out, [&](Index runBegin, Index count, float* run) {
    forEachTask(ceilDiv(count, kTaskValues), count * kWorthOfValue, [&](Index task) {
      const Index taskBegin = runBegin + task * kTaskValues;
      const Index taskCount = std::min(kTaskValues, runBegin + count - taskBegin);
      forEachBlockPart(taskBegin, taskCount, blockSize, [&](Index block, Index begin, Index end) {
        kernels.decodeBytes(codes + begin, end - begin, codeTable, absmax(block), run + (begin - runBegin));
      });
    });
  });
}

float meanOf(const float* values, Index count) {
  if (count == 0) return 0;
  double sum = 0;
  for (Index i = 0; i < count; ++i) sum += static_cast<double>(values[i]);
  return static_cast<float>(sum / static_cast<double>(count));
}

void quantizeAbsmax(const float* absmax, Index blocks, float offset, Index nestedBlockSize, std::uint8_t* codes,
                    float* absmax2) {
  std::vector<float> shifted(static_cast<std::size_t>(blocks));
  std::transform(absmax, absmax + blocks, shifted.begin(), [offset](float a) { return a - offset; });
  const ConstDenseView row{shifted.data(), ScalarType::kFloat, 1, blocks, blocks, 1};
  quantizeBlockwise(row, signedDynamicMap().data(), nestedBlockSize, codes, absmax2);
}

}  // namespace internal
}  // namespace EigenQ
