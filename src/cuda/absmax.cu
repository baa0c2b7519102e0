// SPDX-License-Identifier: MPL-2.0
// absmax.cu: the mean of statistics, and nested statistics on top of it, without the host ever seeing a value.
//
//   absmax ─→ sums of parts (tree_sum.cuh) ─→ each thread block adds these up, and encodes absmax - mean
//
// Behind a quantiser this is what nesting costs, and all of it is latency: so the mean is no launch of its own, tables
// are filled before the last kernel has ended, and tiles are small enough to give every multiprocessor one.
#include <eigen_q/src/DynamicMap.h>

#include <cassert>

#include "byte_encoder.cuh"
#include "quantizers.h"
#include "tree_sum.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

struct Itself {
  __device__ __forceinline__ double operator()(double v) const { return v; }
};

__device__ __forceinline__ float meanOfSum(double sum, Index count) {
  return count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
}

struct StoreMean {
  Index count;
  float* mean;

  __device__ __forceinline__ void operator()(double sum) const { *mean = meanOfSum(sum, count); }
};

/** The signed dynamic map, and values less their mean. */
struct ShiftedAbsmax {
  static constexpr bool kParameters = true;

  ByteLevels map;
  const float* known;  // the mean; null: it is found from...
  SumParts parts;      // ...sums of the values...
  Index count;
  float* found;  // ...and stored here

  __device__ __forceinline__ const float* levels() const { return map.value; }

  __device__ __forceinline__ void join(float& shift) const {
    const double sum = sumOverParts(parts);
    if (threadIdx.x != 0) return;
    shift = known ? *known : meanOfSum(sum, count);
    if (!known && blockIdx.x == 0) *found = shift;
  }
  __device__ __forceinline__ void prepare(float shift, EightValues<float>& values, Index left) const {
#pragma unroll
    for (int k = 0; k < kEight; ++k)  // what lies past the end stays 0 and out of the statistics
      if (k < left) values.word[k] = __float_as_uint(__uint_as_float(values.word[k]) - shift);
  }
};

void encodeAbsmax(const float* absmax, const ShiftedAbsmax& source, Index nestedBlockSize, std::uint8_t* codes,
                  float* absmax2, Context& context) {
  assert(EigenQ::internal::isBlockSize(nestedBlockSize));
  using Encoder = ByteEncoder<ShiftedAbsmax>;
  const BlockRun<float> run{absmax,
                            source.count,
                            EigenQ::internal::blockShift(nestedBlockSize),
                            codes,
                            absmax2,
                            isAligned(absmax, 16),
                            isAligned(codes, Encoder::kBytes)};
  if (nestedBlockSize <= kTileValues<1>) return launchQuantizeBlocks<float, Encoder, 1>(run, Encoder{source}, context);
  launchQuantizeBlocks<float, Encoder>(run, Encoder{source}, context);
}

ByteLevels nestedLevels() { return byteLevels(EigenQ::internal::signedDynamicMap()); }

}  // namespace

void meanOf(const float* values, Index count, float* mean, Context& context) {
  treeSum("meanOf", values, count, Itself(), StoreMean{count, mean}, context);
}

void quantizeAbsmax(const float* absmax, Index blocks, const float* offset, Index nestedBlockSize, std::uint8_t* codes,
                    float* absmax2, Context& context) {
  if (blocks > 0)
    encodeAbsmax(absmax, {nestedLevels(), offset, {}, blocks, nullptr}, nestedBlockSize, codes, absmax2, context);
}

void quantizeNested(const float* absmax, Index blocks, Index nestedBlockSize, std::uint8_t* codes, float* absmax2,
                    float* offset, Context& context) {
  if (blocks == 0) return meanOf(absmax, 0, offset, context);
  Scratch scratch(context);
  const SumParts parts = sumInParts("meanOf", absmax, blocks, Itself(), scratch, context);
  encodeAbsmax(absmax, {nestedLevels(), nullptr, parts, blocks, offset}, nestedBlockSize, codes, absmax2, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
