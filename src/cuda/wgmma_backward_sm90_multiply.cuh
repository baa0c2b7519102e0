// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_sm90_multiply.cuh: what multiplies in wgmma_backward_sm90.cuh, adds up and stores.
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_SM90_MULTIPLY_CUH
#define EIGENQ_CUDA_WGMMA_BACKWARD_SM90_MULTIPLY_CUH

#include "ptx.cuh"
#include "ptx_shared.cuh"
#include "ptx_wgmma_sm90.cuh"
#include "wgmma_backward_sm90_fragments.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace backward {

/** Sums of an item. A unit's fragments are decoded between the wgmmas of the unit before. */
template <typename T, typename S>
__device__ __forceinline__ void multiply(float (&sums)[S::kTiles][S::kSums], const Problem& p, const Lane<S>& lane,
                                         Slot<S> slot) {
  using M = Memory<S>;
  constexpr int kTurns = S::kTurns ? S::kGroups : 1;
  const int stages = p.steps / kTurns;
  std::uint32_t a[2][4][4];
  Raw<S> raw;
  if (S::kTurns) slot.skip(lane.group);
  Slot<S> ahead = slot;  // of what is in raw
  int previous = 0;      // of the unit before
  ptx::wait(M::full(slot.index), slot.parity);
  raw.load(lane, slot.index, 0);
#pragma unroll
  for (int f = 0; f < 4; ++f) raw.template decode<T>(a[0][f], lane, f);
  if (S::kUnits > 1) {
    raw.load(lane, slot.index, 1);
  } else {
    ahead.skip(kTurns);
    ptx::wait(M::full(ahead.index), ahead.parity);
    raw.load(lane, ahead.index, 0);
  }
  for (int stage = 0; stage < stages; stage += S::kRound / S::kUnits) {
#pragma unroll
    for (int i = 0; i < S::kRound; ++i) {
      const int unit = i % S::kUnits;
      const std::uint64_t x = ptx::swizzledOperand(M::x(slot.index) + 2 * S::kUnitRows * unit);
#pragma unroll
      for (int f = 0; f < 4; ++f) {
        ptx::wgmmaFence();
        ptx::wgmma(sums[f % S::kTiles], a[i % 2][f], x + 2 * (f / S::kTiles), stage > 0 || i > 0 || f >= S::kTiles,
                   TypeTag<T>());
        ptx::wgmmaCommit();
        if (f == 0) {  // the unit before is done
          ptx::wgmmaWait<1>();
          if (unit == 0 && (stage > 0 || i > 0) && lane.lane == 0) ptx::arrive(M::empty(previous));
        }
        // Behind the last unit this decodes once more what it has: nobody's.
        raw.template decode<T>(a[(i + 1) % 2][f], lane, f);
      }
      // raw: the unit after the next.
      if (unit == S::kUnits - 1) {
        previous = slot.index;
        slot.skip(kTurns);
      }
      const int next = stage + (i + 2) / S::kUnits;
      if ((i + 2) % S::kUnits == 0 && next < stages) {
        ahead.skip(kTurns);
        ptx::wait(M::full(ahead.index), ahead.parity);
      }
      if (next < stages) raw.load(lane, ahead.index, (i + 2) % S::kUnits);
    }
  }
  ptx::wgmmaWait<0>();
#pragma unroll
  for (int j = 0; j < S::kTiles; ++j) ptx::settle(sums[j]);
  if (lane.lane == 0) ptx::arrive(M::empty(previous));
}

/** Two neighbours of X times the scales of their rows, as sums of two bfloat16 each. */
__device__ __forceinline__ void scalePair(std::uint32_t pair, float s, float t, std::uint32_t& high,
                                          std::uint32_t& low) {
  const float p = __uint_as_float(pair << 16) * s, q = __uint_as_float(pair & 0xffff0000u) * t;
  high = packPair<__nv_bfloat16>(p, q);
  low = packPair<__nv_bfloat16>(p - __uint_as_float(high << 16), q - __uint_as_float(high & 0xffff0000u));
}

/** A unit of few tokens: scales multiply X. */
template <typename S>
__device__ __forceinline__ void multiplyFewUnit(float (&sums)[S::kTiles][S::kSums], const Lane<S>& lane, int slot,
                                                int unit) {
  constexpr int kOctets = S::kTokens / 8;
  Raw<S> raw;
  raw.load(lane, slot, unit);
  std::uint32_t high[kOctets][2], low[kOctets][2];
  const int row = lane.lane % 8, piece = 2 * unit + lane.lane / 8 % 2;  // of 16 bytes
#pragma unroll
  for (int o = 0; o < kOctets; ++o) {
    std::uint32_t x[2];  // token 8o + g at rows 2c, 2c + 1 and at 2c + 8, 2c + 9
    ptx::loadTwoMatrices(x, Memory<S>::x(slot) + (8 * o + row) * 128 + ((piece ^ row) << 4));
    scalePair(x[0], raw.scale[0], raw.scale[1], high[o][0], low[o][0]);
    scalePair(x[1], raw.scale[2], raw.scale[3], high[o][1], low[o][1]);
  }
#pragma unroll
  for (int j = 0; j < S::kTiles; ++j) {
    std::uint32_t a[4];
    raw.decodeAlone(a, lane, j);
#pragma unroll
    for (int o = 0; o < kOctets; ++o) {
      float(&d)[4] = *reinterpret_cast<float(*)[4]>(&sums[j][4 * o]);
      ptx::mmaBFloat16(d, a[0], a[1], a[2], a[3], high[o][0], high[o][1]);
      ptx::mmaBFloat16(d, a[0], a[1], a[2], a[3], low[o][0], low[o][1]);
    }
  }
}

/** Sums of an item for few tokens; each warp multiplies 64 columns by itself. (Loading a unit ahead gains nothing.) */
template <typename S>
__device__ __forceinline__ void multiplyFew(float (&sums)[S::kTiles][S::kSums], const Problem& p, const Lane<S>& lane,
                                            Slot<S> slot) {
  using M = Memory<S>;
#pragma unroll
  for (int i = 0; i < S::kTiles * S::kSums; ++i) sums[i / S::kSums][i % S::kSums] = 0;
  slot.skip(lane.group);
  for (int stage = 0; stage < p.steps / S::kGroups; ++stage, slot.skip(S::kGroups)) {
    ptx::wait(M::full(slot.index), slot.parity);
#pragma unroll
    for (int unit = 0; unit < S::kUnits; ++unit) multiplyFewUnit<S>(sums, lane, slot.index, unit);
    __syncwarp();
    if (lane.lane == 0) ptx::arrive(M::empty(slot.index));
  }
}

/** Warpgroup 0 adds the others' sums to its own, in ascending order. */
template <typename S>
__device__ __forceinline__ void addTurns(float (&sums)[S::kTiles][S::kSums], int group) {
  constexpr int kBarrier = 1, kCount = S::kTiles * S::kSums;
  const std::uint32_t mine = Memory<S>::kExchange + 4 * (threadIdx.x % kGroup);
  if (group > 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      fourbit::storeShared(mine + 4 * kGroup * ((group - 1) * kCount + i), sums[i / S::kSums][i % S::kSums]);
  }
  ptx::syncThreads(kBarrier, S::kGroups * kGroup);
  if (group == 0) {
#pragma unroll
    for (int other = 0; other < S::kGroups - 1; ++other) {
#pragma unroll
      for (int i = 0; i < kCount; ++i)
        sums[i / S::kSums][i % S::kSums] += fourbit::loadSharedFloat(mine + 4 * kGroup * (other * kCount + i));
    }
  }
  ptx::syncThreads(kBarrier, S::kGroups * kGroup);
}

/** kCount neighbours of a row: sums of a slice, or results. */
template <typename T, int kCount, bool kSums>
__device__ __forceinline__ void storeRun(const Problem& p, int slice, Index token, Index col, float (&v)[kCount]) {
  if (kSums) {
    float* const to = p.sums + (slice * p.y.rows + token) * p.y.cols + col;
    if (kCount == 2) *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1]);
    if (kCount == 4) *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[kCount - 2], v[kCount - 1]);
    return;
  }
  if (p.residual.data) {
    const T* const from = static_cast<const T*>(p.residual.data) + token * p.residual.rowStride + col;
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] += p.residualSign * toFloat(from[i]);
  }
  T* const to = static_cast<T*>(p.y.data) + token * p.y.rowStride + col;
  if (kCount == 2) *reinterpret_cast<std::uint32_t*>(to) = packPair<T>(v[0], v[1]);
  if (kCount == 4)
    *reinterpret_cast<uint2*>(to) = make_uint2(packPair<T>(v[0], v[1]), packPair<T>(v[kCount - 2], v[kCount - 1]));
}

template <typename T, typename S, bool kSums>
__device__ __forceinline__ void storeTile(const Problem& p, const Item& item, const Lane<S>& lane,
                                          float (&sums)[S::kTiles][S::kSums]) {
  constexpr int kRun = S::kRun;
  constexpr bool kMayEnd = S::Weights::kBits == 8;  // Y in the midst of a tile, but not of a run
#pragma unroll
  for (int i = 0; i < S::kTokens / 4; ++i) {
    const int at = i / 2 * 4 + i % 2;
    const Index token = item.token + i / 2 * 8 + lane.c * 2 + i % 2;
    if (token >= p.y.rows) continue;
#pragma unroll
    for (int j = 0; j < S::kTiles; j += kRun / 2) {
      const int col = item.col + lane.col(j);
      if (kMayEnd && col >= p.y.cols) continue;
      float run[kRun];
#pragma unroll
      for (int r = 0; r < kRun; ++r) run[r] = sums[j + r / 2][at + r % 2 * 2];
      storeRun<T, kRun, kSums>(p, item.slice, token, col, run);
    }
  }
}

template <typename T, typename S>
__device__ __forceinline__ void consume(const Problem& p) {
  const Lane<S> lane(kFloatLevels<T, S>);
  Slot<S> slot;
  for (int number = static_cast<int>(blockIdx.x); number < itemCount(p); number += static_cast<int>(gridDim.x)) {
    float sums[S::kTiles][S::kSums];
    if constexpr (S::kFew) {
      multiplyFew<S>(sums, p, lane, slot);
    } else {
      multiply<T, S>(sums, p, lane, slot);
    }
    slot.skipFar(p.steps);
    if (S::kTurns) addTurns<S>(sums, lane.group);
    if (S::kTurns && lane.group > 0) continue;
    if (p.sums) {
      storeTile<T, S, true>(p, itemAt<S>(p, number), lane, sums);
    } else {
      storeTile<T, S, false>(p, itemAt<S>(p, number), lane, sums);
    }
  }
}

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_SM90_MULTIPLY_CUH
