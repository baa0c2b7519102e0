// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_sm90_scales.cuh: what brings the scales of a stage for wgmma_backward_sm90.cuh, decoded and in the
// order in which they are used.
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_SM90_SCALES_CUH
#define EIGENQ_CUDA_WGMMA_BACKWARD_SM90_SCALES_CUH

#include "fourbit_pair_table.cuh"
#include "int8_pairs.cuh"
#include "wgmma_backward_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace backward {

template <typename T>
__device__ __forceinline__ void storeShort(std::uint32_t address, T value) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(address), "h"(*reinterpret_cast<const std::uint16_t*>(&value))
               : "memory");
}

/** Where a row's scale lies among those of a stage, in the order in which lanes of the multiplying warps read them: of
 * a unit, lane c's rows 8o + 2c + e together. */
template <typename S>
__device__ __forceinline__ int placeOfScale(int row) {
  const int unit = row / S::kUnitRows, within = row % S::kUnitRows;
  return unit * S::kUnitRows + within % 8 / 2 * (S::kUnitRows / 4) + within / 8 * 2 + within % 2;
}

/** Absmax of 4-bit blocks of a stage, or what it is decoded from, of two rows a lane. Their blocks are as many as one
 * load brings. */
template <typename S, bool kNested_>
struct BlockScales {
  static constexpr bool kNested = kNested_;
  static constexpr int kBlocks = S::kScales;
  float values[2][kNested ? 1 : kBlocks];  // nested: of the second level
  std::uint32_t codes[2];                  // nested: a byte a block

  __device__ __forceinline__ void load(const WeightView& w, const Item& item, int step, int lane) {
    Index row = Index{step} * kStageRows + lane, block = (w.offset + row * w.stride + item.col) / kBlockSize;
#pragma unroll
    for (int h = 0; h < 2; ++h, row += 32, block += w.stride * 32 / kBlockSize) {
      const bool inside = row < w.rows;
      if (kNested) {
        codes[h] = 0;
        values[h][0] = 0;
        if (!inside) continue;
        values[h][0] = w.absmax.absmax2[block >> w.absmax.nestedBlockShift];
        if (kBlocks == 2) codes[h] = *reinterpret_cast<const std::uint16_t*>(w.absmax.codes + block);
        if (kBlocks == 4) codes[h] = *reinterpret_cast<const std::uint32_t*>(w.absmax.codes + block);
      } else if (kBlocks == 4) {
        float4 v = make_float4(0, 0, 0, 0);
        if (inside) v = *reinterpret_cast<const float4*>(w.absmax.plain + block);
        values[h][0] = v.x;
        values[h][1] = v.y;
        values[h][kBlocks - 2] = v.z;
        values[h][kBlocks - 1] = v.w;
      } else {
        float2 v = make_float2(0, 0);
        if (inside) v = *reinterpret_cast<const float2*>(w.absmax.plain + block);
        values[h][0] = v.x;
        values[h][1] = v.y;
      }
    }
  }
  __device__ __forceinline__ void store(std::uint32_t to, int lane, float offset, float factor) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = placeOfScale<S>(lane + 32 * h);
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        float v = values[h][kNested ? 0 : b];
        if (kNested) {
          const float code = fourbit::loadSharedFloat(Memory<S>::kByteTable + 4 * (codes[h] >> 8 * b & 255));
          v = EigenQ::internal::roundedProduct(code, v) + offset;  // AbsmaxView's roundings
        }
        fourbit::storeShared(to + 4 * (b * kStageRows + at), v * factor);
      }
    }
  }
};

/** Absmax of the rows of a stage of int8 codes, two a lane. Where they multiply weights, scales are pairs of two
 * neighbouring rows, one rounded to T and one of what that left: in half to all its digits from absmax 1e-3 on. (In
 * bfloat16 absmax beyond 1e37, which CodePairs<T>::kUnit multiplies, leave the range of float.) */
template <typename T, typename S>
struct RowScales {
  static constexpr bool kNested = false;
  float values[2];

  __device__ __forceinline__ void load(const WeightView& w, const Item&, int step, int lane) {
    const Index row = Index{step} * kStageRows + lane;
#pragma unroll
    for (int h = 0; h < 2; ++h) values[h] = row + 32 * h < w.rows ? w.rowAbsmax[row + 32 * h] : 0.0f;
  }
  __device__ __forceinline__ void store(std::uint32_t to, int lane, float, float) const {
    constexpr double kUnit = CodePairs<T>::kUnit / 127.0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int at = placeOfScale<S>(lane + 32 * h);
      const float v = static_cast<float>(static_cast<double>(values[h]) * kUnit);
      if (S::kFew) {
        fourbit::storeShared(to + 4 * at, v);
        continue;
      }
      const T high = fromFloat<T>(v);
      const std::uint32_t pair = to + 8 * (at / 2) + 2 * (at % 2);
      storeShort(pair, high);
      storeShort(pair + 4, fromFloat<T>(v - toFloat(high)));
    }
  }
};

/** Warp \a warp of kScaleWarps takes the slots warp, warp + kScaleWarps, …; kAhead of its stages are being loaded. */
template <typename S, typename Scales>
__device__ __forceinline__ void loadScales(const Problem& p, int warp, float factor) {
  using M = Memory<S>;
  constexpr int kAhead = 3, kOwn = kScaleWarps;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const EigenQ::internal::AbsmaxView& absmax = p.w.absmax;
  const float offset = Scales::kNested ? (absmax.offsetAt ? *absmax.offsetAt : absmax.offset) : 0.0f;
  StageWalk<S> walk(p, warp);
  Slot<S> loading, storing;
  loading.index = storing.index = warp;
  // From one of the warp's slots to its next; behind the last one follows its first.
  const auto distance = [&](int slot) { return slot + kOwn < M::kSlots ? kOwn : M::kSlots - slot + warp; };
  Scales ahead[kAhead];
  bool there[kAhead];
  const auto load = [&](int d) {
    there[d] = walk.more();
    if (!there[d]) return;
    ahead[d].load(p.w, walk.item, walk.step(), lane);
    walk.advance(distance(loading.index));
    loading.skip(distance(loading.index));
  };
#pragma unroll
  for (int d = 0; d < kAhead; ++d) load(d);
  while (true) {
#pragma unroll
    for (int d = 0; d < kAhead; ++d) {
      if (!there[d]) return;
      ptx::wait(M::empty(storing.index), storing.parity ^ 1);
      ahead[d].store(M::scale(storing.index), lane, offset, factor);
      __syncwarp();
      if (lane == 0) ptx::arrive(M::full(storing.index));
      storing.skip(distance(storing.index));
      load(d);
    }
  }
}

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_SM90_SCALES_CUH
