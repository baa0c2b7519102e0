// SPDX-License-Identifier: MPL-2.0
// wgmma_decode_sm90_finish.cuh: what happens to a tile's sums in registers.
//
//   fragment   thread 32w + 4g + c of a warpgroup holds rows 16w + 2p and 16w + 2p + 1 of its 64 rows of W, which are
//              columns of Y, p = g or another order of eight; of each group of 8 tokens 8i + 2c and 8i + 2c + 1: sums
//              4i, 4i + 1 of the first row, 4i + 2, 4i + 3 of the other
#ifndef EIGENQ_CUDA_WGMMA_DECODE_SM90_FINISH_CUH
#define EIGENQ_CUDA_WGMMA_DECODE_SM90_FINISH_CUH

#include "epilogue.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma_decode {

constexpr int kGroup = 128;     // threads of a warpgroup
constexpr int kGroupRows = 64;  // of W

/** What happens to sums on their way to memory. */
enum class Finish : std::uint8_t {
  kPlain,  // Y row-major in pairs, of the sums themselves: about 10 instructions a pair, where kPairs has 75
  kPairs,  // the same; alpha, bias of columns, bounds and residual
  kAny,    // activations, any strides
};

struct Output {
  DenseView y;
  Epilogue epilogue;
  float* parts = nullptr;  // sums of parts of tiles, as storePart() writes them
  Finish finish = Finish::kAny;
};

/** Where a thread's sums lie. */
struct Place {
  Index col;    // of the first row; the other's is the next
  Index token;  // 8i + token and the next
};
__device__ __forceinline__ int groupOfLane() { return static_cast<int>(threadIdx.x) % 32 / 4; }
__device__ __forceinline__ Place placeOf(Index row, Index token, int pair = groupOfLane()) {
  const int thread = static_cast<int>(threadIdx.x) % kGroup;
  return {row + thread / 32 * 16 + pair * 2, token + thread % 4 * 2};
}

// A part: sums of a warpgroup after another, of 16 tokens after another, four of a thread after another's.
constexpr int kPartTokens = 16, kPartSums = kPartTokens / 2;

template <typename Tiles>
__device__ __forceinline__ float4* placeOfPart(const Output& out, int part, int group, int sixteen) {
  const Index first = (Index{part} * Tiles::kGroups + group) * (Tiles::kTokens / kPartTokens) + sixteen;
  return reinterpret_cast<float4*>(out.parts) + first * (kPartSums / 4) * kGroup + threadIdx.x % kGroup;
}
template <typename Tiles>
__device__ __forceinline__ void storePart(const Output& out, int part, const float (&sums)[Tiles::kSums]) {
  float4* const to = placeOfPart<Tiles>(out, part, static_cast<int>(threadIdx.x) / kGroup, 0);
#pragma unroll
  for (int i = 0; i < Tiles::kSums / 4; ++i)
    to[i * kGroup] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
}
template <typename Tiles>
__device__ __forceinline__ void loadPart(const Output& out, int part, int group, int sixteen,
                                         float (&sums)[kPartSums]) {
  const float4* const from = placeOfPart<Tiles>(out, part, group, sixteen);
#pragma unroll
  for (int i = 0; i < kPartSums / 4; ++i) {
    const float4 v = from[i * kGroup];
    sums[4 * i] = v.x;
    sums[4 * i + 1] = v.y;
    sums[4 * i + 2] = v.z;
    sums[4 * i + 3] = v.w;
  }
}

/** Two neighbours of a row of Y at a time; eight lanes write a sector of 32 bytes. */
template <typename T, bool kPlain, int kCount>
__device__ __forceinline__ void storePairs(const Output& out, const Place& at, const float (&sums)[kCount]) {
  if (at.col >= out.y.cols) return;
  const int left = static_cast<int>(out.y.rows - at.token);
  float2 bias = {0, 0};
  if constexpr (!kPlain) bias = columnBiases<T>(out.epilogue, at.col);
  T* to = static_cast<T*>(out.y.data) + at.token * out.y.rowStride + at.col;
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i, to += 8 * out.y.rowStride) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (8 * i + j >= left) continue;
      const float2 pair = {sums[4 * i + j], sums[4 * i + 2 + j]};
      if constexpr (kPlain) {  // -0 becomes 0, as it does where something is added
        *reinterpret_cast<std::uint32_t*>(to + j * out.y.rowStride) = packPair<T>(pair.x + 0.0f, pair.y + 0.0f);
      } else {
        storePair<T>(out.y, out.epilogue, pair, bias, at.token + 8 * i + j, at.col);
      }
    }
  }
}

/** One value at a time. The loop is not unrolled, as 128 copies of an activation's code are too many: registers cannot
 * be indexed, so that the sums lie in local memory. */
template <typename T, int kCount>
__device__ __forceinline__ void storeSlowly(const Output& out, const Place& at, const float (&sums)[kCount]) {
  float indexed[kCount];
#pragma unroll
  for (int v = 0; v < kCount; ++v) indexed[v] = sums[v];
#pragma unroll 1
  for (int v = 0; v < kCount; ++v) {
    const Index token = at.token + v / 4 * 8 + v % 2, col = at.col + v / 2 % 2;
    if (token < out.y.rows && col < out.y.cols) storeResult<T>(out.y, out.epilogue, indexed[v], token, col);
  }
}

template <typename T, int kCount>
__device__ __forceinline__ void finish(const Output& out, const Place& at, const float (&sums)[kCount]) {
  if (out.finish == Finish::kPlain) return storePairs<T, true>(out, at, sums);
  if (out.finish == Finish::kPairs) return storePairs<T, false>(out, at, sums);
  storeSlowly<T>(out, at, sums);
}

}  // namespace wgmma_decode
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_DECODE_SM90_FINISH_CUH
