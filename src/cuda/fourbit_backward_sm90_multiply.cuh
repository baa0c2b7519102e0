// SPDX-License-Identifier: MPL-2.0
// fourbit_backward_sm90_multiply.cuh: what multiplies in fourbit_backward_sm90.cuh. Fragments of Ŵᵀ, 16 columns by 16
// rows of W, lane 4g + c:
//
//   ldmatrix.trans   of 8 rows, 16 bytes each   bytes 2g, 2g + 1 of rows 2c and 2c + 1: columns 4g … 4g + 3
//   pair table       byte h of both rows        (row 2c; col, col + 1), (row 2c + 1; col, col + 1), col = 4g + 2h
//   fragment         column `g` of it is col, column `g + 8` is col + 1: any order will do that storing knows of
#ifndef EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_MULTIPLY_CUH
#define EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_MULTIPLY_CUH

#include <type_traits>

#include "fourbit_backward_sm90.cuh"
#include "fourbit_pair_table.cuh"
#include "ptx.cuh"
#include "ptx_shared.cuh"
#include "ptx_wgmma_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace backward {

__device__ __forceinline__ uint4 loadQuad(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}

/** The two levels of a byte of codes. \a place  table + 8·lane (floats) or 4·lane; \a selector  0x7604 | byte << 4 */
template <bool kFloatTable>
__device__ __forceinline__ float2 levels(std::uint32_t codes, std::uint32_t place, std::uint32_t selector) {
  const std::uint32_t address = __byte_perm(codes, place, selector);
  if (kFloatTable) {
    float2 v;
    asm("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
    return v;
  }
  std::uint32_t bits;
  asm("ld.shared.b32 %0, [%1];" : "=r"(bits) : "r"(address));
  return __half22float2(*reinterpret_cast<const __half2*>(&bits));
}

template <typename T, typename S>
constexpr bool kFloatLevels = !S::kFew && std::is_same<T, __half>::value;

/** Pairs of levels, a copy for each lane. \returns what absmax has to be multiplied by. */
template <typename T, typename S>
__device__ __forceinline__ float fillTable(std::uint32_t table, const float* codeTable) {
  if (S::kFew) return fourbit::fillPairTable<__nv_bfloat16>(table, codeTable, S::kThreads);
  if (!kFloatLevels<T, S>) return fourbit::fillPairTable<__half>(table, codeTable, S::kThreads);
  const float level = codeTable[threadIdx.x % EigenQ::internal::kFourBitLevels];
  constexpr int kParts = fourbit::kEntryBytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < 256 * kParts; i += S::kThreads) {
    const int entry = i / kParts;
    const float a = __shfl_sync(0xffffffffu, level, entry / 16), b = __shfl_sync(0xffffffffu, level, entry % 16);
    asm volatile(
        "st.shared.v4.f32 [%0], {%1, %2, %1, %2};" ::"r"(table + entry * fourbit::kEntryBytes + i % kParts * 16),
        "f"(a), "f"(b)
        : "memory");
  }
  return 1;
}

/** A lane's part in decoding. */
template <typename S>
struct Lane {
  int group, warp, lane, g, c;
  std::uint32_t place, byte, matrixRow, firstChunk;

  __device__ __forceinline__ explicit Lane(bool floatTable) {
    const int thread = static_cast<int>(threadIdx.x);
    group = thread / kGroup;
    warp = thread % kGroup / 32;
    lane = thread % 32;
    g = lane / 4;
    c = lane % 4;
    place = Memory<S>::kTable | static_cast<std::uint32_t>(lane) * (floatTable ? 8 : 4);
    byte = static_cast<std::uint32_t>(warp % 2 << 4);
    matrixRow = static_cast<std::uint32_t>(S::kUnits == 4 ? lane % 16 : lane);
    firstChunk = static_cast<std::uint32_t>((S::kTurns ? 0 : group * 2 * S::kTiles) + warp * S::kTiles / 2 +
                                            (S::kUnits == 4 ? lane / 16 : 0));
  }
  /** The 16-byte piece of codes that this lane addresses for ldmatrix. */
  __device__ __forceinline__ std::uint32_t codes(std::uint32_t tile, int row) const {
    const std::uint32_t r = matrixRow + static_cast<std::uint32_t>(row);
    const std::uint32_t swizzled = firstChunk ^ (S::kLine == 128 ? r % 8 : r / 2 % 4);
    return tile + r * S::kLine + swizzled * 16;
  }
  /** Of the warp's columns among the tile's. */
  __device__ __forceinline__ int block() const { return (S::kTurns ? 0 : group * S::kTiles) + warp * S::kTiles / 4; }
  /** First column of those that the thread holds in tile \a j, of the block's tile. */
  __device__ __forceinline__ int col(int j) const {
    const int half = warp * S::kTiles + j;
    return (S::kTurns ? 0 : group * 64 * S::kTiles) + half / 2 * 32 + 4 * g + half % 2 * 2;
  }
};

/** What the fragments of four wgmmas are decoded from: 64·kTiles columns by kUnitRows rows of W. */
template <typename S>
struct Raw {
  static constexpr int kTiles = S::kTiles, kMatrices = kTiles == 1 ? 2 : 1, kScales = S::kUnitRows / 4;
  std::uint32_t words[kMatrices][4];
  float scale[kScales];

  __device__ __forceinline__ void load(const Lane<S>& lane, int slot, int unit) {
    const std::uint32_t codes = Memory<S>::x(slot) + S::kXBytes;
#pragma unroll
    for (int i = 0; i < kMatrices; ++i)
      ptx::loadMatricesTransposed(words[i], lane.codes(codes, unit * S::kUnitRows + 32 * i));
    const int first = lane.block() * kStageRows + unit * S::kUnitRows + lane.c * kScales;
#pragma unroll
    for (int i = 0; i < kScales; i += 4) {
      const uint4 v = loadQuad(Memory<S>::scale(slot) + 4 * (first + i));
      scale[i] = __uint_as_float(v.x);
      scale[i + 1] = __uint_as_float(v.y);
      scale[i + 2] = __uint_as_float(v.z);
      scale[i + 3] = __uint_as_float(v.w);
    }
  }

  /** Fragment \a f: tile f % kTiles of the columns, rows 16·(f / kTiles) on. */
  template <typename T>
  __device__ __forceinline__ void decode(std::uint32_t (&a)[4], const Lane<S>& lane, int f) const {
    const int j = f % kTiles;
    const std::uint32_t byte = kTiles == 1 ? lane.byte : static_cast<std::uint32_t>(j % 2 << 4);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int octet = 2 * (f / kTiles) + h, word = kTiles == 4 ? j / 2 * 2 + octet : octet;
      const float2 p = levels<kFloatLevels<T, S>>(words[word / 4][word % 4], lane.place, 0x7604 | byte);
      const float2 q = levels<kFloatLevels<T, S>>(words[word / 4][word % 4], lane.place, 0x7624 | byte);
      a[2 * h] = packPair<T>(p.x * scale[2 * octet], q.x * scale[2 * octet + 1]);
      a[2 * h + 1] = packPair<T>(p.y * scale[2 * octet], q.y * scale[2 * octet + 1]);
    }
  }
};

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

/** Two neighbours of X times absmax of their rows, as sums of two bfloat16 each. */
__device__ __forceinline__ void scalePair(std::uint32_t pair, float s, float t, std::uint32_t& high,
                                          std::uint32_t& low) {
  const float p = __uint_as_float(pair << 16) * s, q = __uint_as_float(pair & 0xffff0000u) * t;
  high = packPair<__nv_bfloat16>(p, q);
  low = packPair<__nv_bfloat16>(p - __uint_as_float(high << 16), q - __uint_as_float(high & 0xffff0000u));
}

/** A unit of few tokens: absmax multiplies X. */
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
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::uint32_t word = raw.words[0][j / 2 * 2 + h], place = lane.place;
      const std::uint32_t u =
          j % 2 ? fourbit::decodeAlignedPair<1>(word, place) : fourbit::decodeAlignedPair<0>(word, place);
      const std::uint32_t v =
          j % 2 ? fourbit::decodeAlignedPair<3>(word, place) : fourbit::decodeAlignedPair<2>(word, place);
      a[2 * h] = __byte_perm(u, v, 0x5410);
      a[2 * h + 1] = __byte_perm(u, v, 0x7632);
    }
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
  constexpr int kRun = S::kTiles == 1 ? 2 : 4;
#pragma unroll
  for (int i = 0; i < S::kTokens / 4; ++i) {
    const int at = i / 2 * 4 + i % 2;
    const Index token = item.token + i / 2 * 8 + lane.c * 2 + i % 2;
    if (token >= p.y.rows) continue;
#pragma unroll
    for (int j = 0; j < S::kTiles; j += kRun / 2) {
      float run[kRun];
#pragma unroll
      for (int r = 0; r < kRun; ++r) run[r] = sums[j + r / 2][at + r % 2 * 2];
      storeRun<T, kRun, kSums>(p, item.slice, token, item.col + lane.col(j), run);
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

#endif  // EIGENQ_CUDA_FOURBIT_BACKWARD_SM90_MULTIPLY_CUH
