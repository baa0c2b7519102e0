// SPDX-License-Identifier: MPL-2.0
// quantize_blockwise.cu: codes of a 256-entry table, and nested statistics. The walk over blocks is in
// quantize_blocks.cuh; thresholds lie in shared memory and a binary search of eight steps finds the code.
#include <eigen_q/src/DynamicMap.h>

#include "byte_levels.cuh"
#include "quantize_blocks.cuh"
#include "quantizers.h"

#include <cassert>
#include <type_traits>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

static_assert(kQuantizeThreads == kLevelThreads, "a thread for each threshold");

/** \tparam Source  where the levels come from and what is done to values first */
template <typename Source>
struct ByteEncoder {
  using Shared = ByteTables;
  static constexpr int kBytes = 8;

  Source source;

  __device__ __forceinline__ void fill(ByteTables& shared) const { makeByteTables(source.levels(), shared); }

  template <typename T>
  __device__ __forceinline__ void prepare(EightValues<T>& values, Index count) const {
    source.prepare(values, count);
  }
  template <typename T>
  static __device__ __forceinline__ bool needsFlush(float) {
    return !std::is_same_v<T, __half>;  // every half is a normal float, or zero
  }
  __device__ __forceinline__ std::uint64_t encode(const ByteTables& shared, const float (&f)[kEight],
                                                  float reciprocal) const {
    std::uint64_t codes = 0;
#pragma unroll
    for (int k = 0; k < kEight; ++k)
      codes |= static_cast<std::uint64_t>(encodeByte(f[k] * reciprocal, shared.threshold)) << (8 * k);
    return codes;
  }
};

/** Levels in device memory; values as they are. */
struct DeviceLevels {
  const float* table;

  __device__ __forceinline__ const float* levels() const { return table; }
  template <typename T>
  __device__ __forceinline__ void prepare(EightValues<T>&, Index) const {}
};

/** The signed dynamic map, and values less an offset that the device computed. */
struct ShiftedAbsmax {
  ByteLevels map;
  const float* offset;

  __device__ __forceinline__ const float* levels() const { return map.value; }
  __device__ __forceinline__ void prepare(EightValues<float>& values, Index count) const {
    const float shift = *offset;
#pragma unroll
    for (int k = 0; k < kEight; ++k)  // what lies past the end stays 0 and out of the statistics
      if (k < count) values.word[k] = __float_as_uint(__uint_as_float(values.word[k]) - shift);
  }
};

}  // namespace

void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax, Context& context) {
  assert(EigenQ::internal::isBlockSize(blockSize));
  quantizeView(a, ByteEncoder<DeviceLevels>{{codeTable}}, blockSize, codes, absmax, context);
}

void quantizeAbsmax(const float* absmax, Index blocks, const float* offset, Index nestedBlockSize, std::uint8_t* codes,
                    float* absmax2, Context& context) {
  assert(EigenQ::internal::isBlockSize(nestedBlockSize));
  if (blocks == 0) return;
  const ByteEncoder<ShiftedAbsmax> encoder{{byteLevels(EigenQ::internal::signedDynamicMap()), offset}};
  launchQuantizeBlocks<float>({absmax, blocks, EigenQ::internal::blockShift(nestedBlockSize), codes, absmax2,
                               isAligned(absmax, 16), isAligned(codes, encoder.kBytes)},
                              encoder, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
