// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_sm90_fragments.cuh: codes in shared memory to fragments of Ŵᵀ, 16 columns by 16 rows of W, lane 4g +
// c:
//
//   ldmatrix.trans   of 8 rows, 16 bytes each   bytes 2g, 2g + 1 of rows 2c and 2c + 1
//   4 bits           columns 4g … 4g + 3; the table turns byte h of both rows into
//                    (row 2c; col, col + 1), (row 2c + 1; col, col + 1), col = 4g + 2h
//   int8             columns col = 2g and col + 1
//   fragment         column `g` of it is col, column `g + 8` is col + 1: any order will do that storing knows of
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_SM90_FRAGMENTS_CUH
#define EIGENQ_CUDA_WGMMA_BACKWARD_SM90_FRAGMENTS_CUH

#include <type_traits>

#include "fourbit_pair_table.cuh"
#include "int8_pairs.cuh"
#include "ptx_shared.cuh"
#include "wgmma_backward_sm90.cuh"

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

/** Two exact codes times two scales, sums of two values of T each: rounded once, but for a thousandth of a unit. */
template <typename T>
__device__ __forceinline__ std::uint32_t scaledPair(std::uint32_t codes, std::uint32_t high, std::uint32_t low) {
  using Pair = std::conditional_t<std::is_same<T, __half>::value, __half2, __nv_bfloat162>;
  const auto asPair = [](const std::uint32_t& bits) { return *reinterpret_cast<const Pair*>(&bits); };
  const Pair v = __hfma2(asPair(codes), asPair(high), __hmul2(asPair(codes), asPair(low)));
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

/** A lane's part in decoding. */
template <typename S>
struct Lane {
  static constexpr int kPieceCols = 128 / S::Weights::kBits;         // columns of a row's 16 bytes
  static constexpr int kPieces = S::kTiles * 16 / kPieceCols;        // of a warp; 0: half a piece
  static constexpr int kGroupCols = S::kTurns ? 0 : 64 * S::kTiles;  // from one warpgroup's first column to the next's
  static constexpr bool kBeside = kPieces > 1;  // a load takes two pieces side by side, of 16 rows, or one of 32 rows
  int group, warp, lane, g, c;
  std::uint32_t place, byte, matrixRow, firstPiece;

  __device__ __forceinline__ explicit Lane(bool floatTable) {
    const int thread = static_cast<int>(threadIdx.x);
    group = thread / kGroup;
    warp = thread % kGroup / 32;
    lane = thread % 32;
    g = lane / 4;
    c = lane % 4;
    place = Memory<S>::kTable | static_cast<std::uint32_t>(lane) * (floatTable ? 8 : 4);
    byte = static_cast<std::uint32_t>(warp % 2 << 4);
    matrixRow = static_cast<std::uint32_t>(kBeside ? lane % 16 : lane);
    firstPiece = static_cast<std::uint32_t>((group * kGroupCols + warp * 16 * S::kTiles) / kPieceCols +
                                            (kBeside ? lane / 16 : 0));
  }
  /** The 16-byte piece of codes that this lane addresses for load \a i of a unit that begins at \a row. */
  __device__ __forceinline__ std::uint32_t codes(std::uint32_t tile, int row, int i) const {
    constexpr int kSide = kBeside ? kPieces / 2 : 1, kRows = kBeside ? 16 : 32;
    constexpr std::uint32_t kOfStrip = S::kStrip / 16;
    const std::uint32_t r = matrixRow + static_cast<std::uint32_t>(row + i / kSide * kRows);
    const std::uint32_t piece = firstPiece + static_cast<std::uint32_t>(2 * (i % kSide));
    const std::uint32_t strip = S::kLine == S::kStrip ? 0 : piece / kOfStrip;
    const std::uint32_t swizzled = piece % kOfStrip ^ (S::kStrip == 128 ? r % 8 : r / 2 % 4);
    return tile + strip * (kStageRows * S::kStrip) + r * S::kStrip + swizzled * 16;
  }
  /** Which of a row's scales are those of the warp's columns. */
  __device__ __forceinline__ int scale() const {
    return S::kScales == 1 ? 0 : (group * kGroupCols + warp * 16 * S::kTiles) / kBlockSize;
  }
  /** First column of those that the thread holds in tile \a j, of the block's tile. */
  __device__ __forceinline__ int col(int j) const {
    const int tile = warp * S::kTiles + j;
    if (S::Weights::kBits == 8) return group * kGroupCols + tile * 16 + 2 * g;
    return group * kGroupCols + tile / 2 * 32 + 4 * g + tile % 2 * 2;
  }
};

/** What the fragments of four wgmmas are decoded from: 64·kTiles columns by kUnitRows rows of W. */
template <typename S>
struct Raw {
  static constexpr bool kInt8 = S::Weights::kBits == 8;
  static constexpr int kTiles = S::kTiles, kLoads = kInt8 || kTiles == 1 ? 2 : 1, kScales = S::kUnitRows / 4;
  std::uint32_t words[kLoads][4];
  float scale[kScales];  // int8: bits of pairs, as RowScales says

  __device__ __forceinline__ void load(const Lane<S>& lane, int slot, int unit) {
    const std::uint32_t codes = Memory<S>::x(slot) + S::kXBytes;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) ptx::loadMatricesTransposed(words[i], lane.codes(codes, unit * S::kUnitRows, i));
    const int first = lane.scale() * kStageRows + unit * S::kUnitRows + lane.c * kScales;
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
      const int octet = 2 * (f / kTiles) + h, word = kInt8 ? 2 * f + h : kTiles == 4 ? j / 2 * 2 + octet : octet;
      const std::uint32_t codes = words[word / 4][word % 4];
      const float s = scale[2 * octet], t = scale[2 * octet + 1];
      if (kInt8) {
        CodePairs<T>::crossedPairs(codes, a[2 * h], a[2 * h + 1]);
        a[2 * h] = scaledPair<T>(a[2 * h], __float_as_uint(s), __float_as_uint(t));
        a[2 * h + 1] = scaledPair<T>(a[2 * h + 1], __float_as_uint(s), __float_as_uint(t));
      } else {
        const float2 p = levels<kFloatLevels<T, S>>(codes, lane.place, 0x7604 | byte);
        const float2 q = levels<kFloatLevels<T, S>>(codes, lane.place, 0x7624 | byte);
        a[2 * h] = packPair<T>(p.x * s, q.x * t);
        a[2 * h + 1] = packPair<T>(p.y * s, q.y * t);
      }
    }
  }

  /** Fragment \a j of four tiles, for few tokens: without scales, in bfloat16. */
  __device__ __forceinline__ void decodeAlone(std::uint32_t (&a)[4], const Lane<S>& lane, int j) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (kInt8) {
        CodePairs<__nv_bfloat16>::crossedPairs(words[j / 2][j % 2 * 2 + h], a[2 * h], a[2 * h + 1]);
        continue;
      }
      const std::uint32_t word = words[0][j / 2 * 2 + h], place = lane.place;
      const std::uint32_t u =
          j % 2 ? fourbit::decodeAlignedPair<1>(word, place) : fourbit::decodeAlignedPair<0>(word, place);
      const std::uint32_t v =
          j % 2 ? fourbit::decodeAlignedPair<3>(word, place) : fourbit::decodeAlignedPair<2>(word, place);
      a[2 * h] = __byte_perm(u, v, 0x5410);
      a[2 * h + 1] = __byte_perm(u, v, 0x7632);
    }
  }
};

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_SM90_FRAGMENTS_CUH
