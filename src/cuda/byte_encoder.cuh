// SPDX-License-Identifier: MPL-2.0
// Codes of a 256-entry table, for quantize_blocks.cuh: eight steps down a tree of thresholds in shared memory.
#ifndef EIGENQ_CUDA_BYTE_ENCODER_CUH
#define EIGENQ_CUDA_BYTE_ENCODER_CUH

#include <type_traits>

#include "byte_levels.cuh"
#include "quantize_blocks.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {

static_assert(kQuantizeThreads == kLevelThreads, "a thread for each threshold");

/** \tparam Source  where the levels come from and what is done to values first:
 *   levels(), kParameters: whether they are a parameter of the kernel
 *   join(shift): by all threads, what thread 0 leaves in shared memory; prepare(shift, values, count) */
template <typename Source>
struct ByteEncoder {
  struct Shared {
    ByteTables tables;
    float shift;
  };
  static constexpr int kBytes = 8;

  Source source;

  __device__ __forceinline__ void fill(Shared& shared) const {
    if (Source::kParameters) makeByteTables(source.levels(), shared.tables);
  }
  __device__ __forceinline__ void join(Shared& shared) const {
    if (!Source::kParameters) makeByteTables(source.levels(), shared.tables);
    source.join(shared.shift);
    __syncthreads();
  }
  template <typename T>
  __device__ __forceinline__ void prepare(const Shared& shared, EightValues<T>& values, Index count) const {
    source.prepare(shared.shift, values, count);
  }
  /** Every half is a normal float, or zero. */
  template <typename T>
  static constexpr Flush kFlush = std::is_same_v<T, __half> ? Flush::kNever : Flush::kEverywhere;

  __device__ __forceinline__ std::uint64_t encode(const Shared& shared, const float (&f)[kEight],
                                                  float reciprocal) const {
    std::uint64_t codes = 0;
#pragma unroll
    for (int k = 0; k < kEight; ++k)
      codes |= static_cast<std::uint64_t>(encodeByte(f[k] * reciprocal, shared.tables)) << (8 * k);
    return codes;
  }
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_BYTE_ENCODER_CUH
