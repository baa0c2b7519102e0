// SPDX-License-Identifier: MPL-2.0
// quantize_blocks.cpp: blockwise quantisation, 4-bit and 8-bit.
//
//   flattening │ block 0: v0 … v(B-1) │ block 1 │ … │ last, maybe partial │
//                 absmax → 1/absmax → v·(1/absmax) → code → (4-bit) two codes a byte
//
// Work    one pass over a block for absmax, one for the codes while it is in L1.
// Shape   codes are made 32 at a time, the smallest block size: a constant count vectorises at any -O level.
#include <algorithm>
#include <cassert>

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/Quantizers.h>

#include "row_major.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kGroup = kMinBlockSize;

float absmaxOf(const float* values, Index count) {
  std::int32_t largest = 0;
  for (Index i = 0; i < count; ++i) largest = std::max(largest, magnitudeBits(values[i]));
  return floatOf(static_cast<std::uint32_t>(largest));
}

/** codes[i] = encode(values[i]·reciprocal). */
template <typename Encode>
void encodeBlock(const float* values, Index count, float reciprocal, Encode encode, std::uint8_t* codes) {
  Index i = 0;
  for (; i + kGroup <= count; i += kGroup)
    for (Index j = 0; j < kGroup; ++j) codes[i + j] = encode(normalized(values[i + j], reciprocal));
  for (; i < count; ++i) codes[i] = encode(normalized(values[i], reciprocal));
}

/** \a padding fills the last nibble of an odd count: the code of a zero in that block. */
void packCodes(const std::uint8_t* codes, Index count, std::uint8_t padding, std::uint8_t* packed) {
  for (Index j = 0; j < count / 2; ++j) packed[j] = packPair(codes[2 * j], codes[2 * j + 1]);
  if (count % 2 != 0) packed[count / 2] = packPair(codes[count - 1], padding);
}

/** Calls \a f(values, count, flat begin) for each block of the flattening. */
template <typename F>
void forEachBlock(const ConstDenseView& a, Index blockSize, F&& f) {
  forEachRun(a, blockSize, [&](const float* run, Index begin, Index count) {
    for (Index i = 0; i < count; i += blockSize) f(run + i, std::min(blockSize, count - i), begin + i);
  });
}

template <typename Encode>
void quantizeFourBitAs(const ConstDenseView& a, Index blockSize, Encode encode, std::uint8_t* packed, float* absmax) {
  std::uint8_t codes[kMaxBlockSize];
  forEachBlock(a, blockSize, [&](const float* values, Index count, Index begin) {
    const float largest = absmaxOf(values, count);
    absmax[begin / blockSize] = largest;
    const float reciprocal = blockReciprocal(largest);
    encodeBlock(values, count, reciprocal, encode, codes);
    packCodes(codes, count, encode(normalized(0.0f, reciprocal)), packed + begin / 2);
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
  if (type == FourBitType::kNF4) {
    quantizeFourBitAs(
        a, blockSize, [](float v) { return encodeNF4(v); }, packed, absmax);
  } else {
    quantizeFourBitAs(
        a, blockSize, [](float v) { return encodeFP4(v); }, packed, absmax);
  }
}

void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax) {
  assert(isBlockSize(blockSize));
  const ByteThresholds thresholds = byteThresholds(codeTable);
  const auto encode = [&thresholds](float v) { return encodeByte(v, thresholds.data()); };
  forEachBlock(a, blockSize, [&](const float* values, Index count, Index begin) {
    const float largest = absmaxOf(values, count);
    absmax[begin / blockSize] = largest;
    encodeBlock(values, count, blockReciprocal(largest), encode, codes + begin);
  });
}

void dequantizeBlockwise(const std::uint8_t* codes, const float* codeTable, const AbsmaxView& absmax, Index blockSize,
                         const DenseView& out) {
  assert(isBlockSize(blockSize));
  storeRuns(out, [&](Index runBegin, Index count, float* run) {
    forEachBlockPart(runBegin, count, blockSize, [&](Index block, Index begin, Index end) {
      const float scale = absmax(block);
      for (Index i = begin; i < end; ++i) run[i - runBegin] = codeTable[codes[i]] * scale;
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
