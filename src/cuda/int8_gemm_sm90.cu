// SPDX-License-Identifier: MPL-2.0
// int8_gemm_sm90.cu: Y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ) with the integer sums in registers from the first code to the result.
//
//              q: 128 or 256 columns              A block is three warpgroups. One thread of the third has the copy
//            ┌──────────────┬──────────┐          engine fill a ring of stages, 128 columns of codes deep; the others
//   p: 64    │ warpgroup 0  │          │          multiply, 64 rows each, and hand a stage back when all of their warps
//            ├──────────────┤  128 of  │          are done with it. Blocks are persistent: while two warpgroups write
//   p: 64    │ warpgroup 1  │  k deep  │          one tile of Y, the ring fills for the next.
//            └──────────────┴──────────┘
//
// p runs over rows of Y and q over columns where rows are contiguous; Y column-major is its transpose, with X and W
// exchanged. So stores are always along q.
//
// Traffic  (128 + 256)·k B a tile from the second-level cache for 128·256·k products: 48 B a clock and multiprocessor
// at
//          the tensor cores' full rate. Tiles that run together form a square, so that memory sees each code a few
//          times.
// Work     2·m·n·k operations at nominally 1979 TOP/s; 1580 is what random data leave of it.
// Epilogue 128 values a thread. The scale is r32(sum)·r32(row stat·absmax/127²): three roundings of float beside the
//          host's one. Where a statistic of the tile is outside [2⁻⁴⁰, 2⁴⁰], products of two might leave the range of
//          float, and the tile is scaled in double as on the host, as all are that have an activation.
// Outliers Columns come to shared memory eight at a time and are added with fmaf, in ascending order.
// Needs    sm_90a, k ≤ 2¹⁷, rows of W at 16-byte boundaries (the copy engine). It fills what it copies from beyond the
//          matrix with zeros, so that no size need be a multiple of anything.
#include <cuda.h>

#include <algorithm>
#include <cassert>
#include <limits>
#include <type_traits>

#include "epilogue.cuh"
#include "int8_kernels.h"
#include "int8_scale.cuh"
#include "ptx_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kTileP = 128;
constexpr int kTileK = 128;  // bytes: the width of the swizzle
constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 128;
constexpr int kOutliersAtOnce = 8;
constexpr int kGroupP = 16;  // tiles in a column of the raster: 16·128 by 8·256 is nearly a square of 132 tiles
constexpr int kConsumerBarrier = 1;

template <int kTileQ>
struct Tiling {
  static constexpr int kBytesA = kTileP * kTileK;
  static constexpr int kBytesB = kTileQ * kTileK;
  static constexpr int kStageBytes = kBytesA + kBytesB;
  static constexpr int kStages = kTileQ == 256 ? 4 : 6;  // 192 KB
};

/** Shared memory; stages at multiples of 1024, as the swizzle pattern asks. */
template <int kTileQ>
struct SharedMemory {
  alignas(1024) std::int8_t stages[Tiling<kTileQ>::kStages][Tiling<kTileQ>::kStageBytes];
  alignas(16) float outliersP[kOutliersAtOnce][kTileP];
  alignas(16) float outliersQ[kOutliersAtOnce][kTileQ];
  alignas(16) float statsP[kTileP];
  alignas(16) float statsQ[kTileQ];
  alignas(8) std::uint64_t full[Tiling<kTileQ>::kStages];
  alignas(8) std::uint64_t empty[Tiling<kTileQ>::kStages];
};

/** One of the two factors: X with its row stats, or W with its absmax. */
struct Side {
  bool isX;
  const float* stats;
  const float* gathered;  // outlier columns, as in GatheredOutliers
  Index gatheredStride;
};

struct WgmmaArgs {
  DeviceDecomposedProduct p;  // y and epilogue in terms of p and q
  Side sideP;
  Side sideQ;
  Index sizeP;
  Index sizeQ;
  Index tilesP;
  Index tilesQ;
  int steps;  // of kTileK
};

/** Where tile \a t lies: in columns of kGroupP tiles, one column after the other. */
struct TileAt {
  Index p;
  Index q;
};
__device__ __forceinline__ TileAt tileAt(const WgmmaArgs& a, Index t) {
  const Index groupTiles = kGroupP * a.tilesQ, first = t / groupTiles * kGroupP, within = t % groupTiles;
  const Index height = a.tilesP - first < kGroupP ? a.tilesP - first : kGroupP;
  return {first + within % height, within / height};
}

/** Stages in the order they are used, with the parity that a barrier's phase has in this round of the ring. */
template <int kStages>
struct Ring {
  int stage = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/** What wgmma reads at a shared address that is a multiple of 1024, or 32·j bytes (a slice of k) behind one: rows of
 * 128 bytes one after another, swizzled. Bits 0-13: address/16. 16-29: distance between slices of k within the pattern,
 * which has none: 1. 32-45: from one group of eight rows to the next, 1024/16. 62-63: pattern of 128 bytes, 1. */
__device__ __forceinline__ std::uint64_t wgmmaOperand(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

/** The copying thread. */
template <int kTileQ>
__device__ __forceinline__ void produce(const CUtensorMap& mapP, const CUtensorMap& mapQ, const WgmmaArgs& a,
                                        SharedMemory<kTileQ>& shared) {
  using Tiles = Tiling<kTileQ>;
  Ring<Tiles::kStages> ring;
  for (Index t = blockIdx.x; t < a.tilesP * a.tilesQ; t += gridDim.x) {
    const TileAt at = tileAt(a, t);
    const int rowP = static_cast<int>(at.p * kTileP), rowQ = static_cast<int>(at.q * kTileQ);
    for (int step = 0; step < a.steps; ++step, ring.advance()) {
      const std::uint32_t full = ptx::sharedAddress(&shared.full[ring.stage]);
      const std::uint32_t to = ptx::sharedAddress(shared.stages[ring.stage]);
      ptx::wait(ptx::sharedAddress(&shared.empty[ring.stage]), ring.parity ^ 1);
      ptx::arriveExpecting(full, Tiles::kStageBytes);  // what lies beyond the matrix counts too
      ptx::copyBox(to, &mapP, step * kTileK, rowP, full);
      ptx::copyBox(to + Tiles::kBytesA, &mapQ, step * kTileK, rowQ, full);
    }
  }
}

/** One tile's sums. A stage goes back one step late, when the products that read it are known to be over. */
template <int kTileQ>
__device__ __forceinline__ void multiplyTile(const WgmmaArgs& a, SharedMemory<kTileQ>& shared, int warpgroup,
                                             Ring<Tiling<kTileQ>::kStages>& ring, int (&sums)[kTileQ / 2]) {
  using Tiles = Tiling<kTileQ>;
  const bool speaksForWarp = threadIdx.x % 32 == 0;
  int previous = 0;
  for (int step = 0; step < a.steps; ++step, ring.advance()) {
    ptx::wait(ptx::sharedAddress(&shared.full[ring.stage]), ring.parity);
    const std::uint32_t from = ptx::sharedAddress(shared.stages[ring.stage]);
    const std::uint64_t operandA = wgmmaOperand(from + warpgroup * 64 * kTileK);
    const std::uint64_t operandB = wgmmaOperand(from + Tiles::kBytesA);
    ptx::wgmmaFence();
#pragma unroll
    for (int j = 0; j < kTileK / 32; ++j)  // 32 bytes are 2 units of the address field
      ptx::wgmmaS8(sums, operandA + 2 * j, operandB + 2 * j, step > 0 || j > 0);
    ptx::wgmmaCommit();
    ptx::wgmmaWait<1>();
    if (step > 0 && speaksForWarp) ptx::arrive(ptx::sharedAddress(&shared.empty[previous]));
    previous = ring.stage;
  }
  ptx::wgmmaWait<0>();
  if (speaksForWarp) ptx::arrive(ptx::sharedAddress(&shared.empty[previous]));
}

/** Whether a statistic may be scaled with in float, whatever the other is. */
__device__ __forceinline__ bool isOrdinary(float stat) {
  return stat == 0.0f || (stat >= 9.094947017729282e-13f && stat <= 1.099511627776e12f);  // 2⁻⁴⁰, 2⁴⁰
}

/** Brings the statistics of the tile. \returns whether all are ordinary. */
template <int kTileQ>
__device__ __forceinline__ bool loadStats(const WgmmaArgs& a, SharedMemory<kTileQ>& shared, const TileAt& at) {
  ptx::syncThreads(kConsumerBarrier, kConsumers);  // the last tile's have been used
  bool ordinary = true;
  for (int i = static_cast<int>(threadIdx.x); i < kTileP + kTileQ; i += kConsumers) {
    const bool ofP = i < kTileP;
    const Index row = ofP ? at.p * kTileP + i : at.q * kTileQ + i - kTileP;
    const float stat = row < (ofP ? a.sizeP : a.sizeQ) ? (ofP ? a.sideP : a.sideQ).stats[row] : 0.0f;
    (ofP ? shared.statsP[i] : shared.statsQ[i - kTileP]) = stat;
    ordinary = ordinary && isOrdinary(stat);
  }
  return !ptx::anyAtBarrier(kConsumerBarrier, kConsumers, !ordinary);
}

/** The rows of a tile that a thread holds, and its first column. */
struct Place {
  int row;  // and row + 8
  int col;  // 8i + col, 8i + col + 1
};

__device__ __forceinline__ Place placeOf(int thread) { return {thread / 32 * 16 + thread % 32 / 4, thread % 4 * 2}; }

/** Sums become values, in place: the registers are all taken. */
template <int kTileQ>
__device__ __forceinline__ void scale(const SharedMemory<kTileQ>& shared, const Place& place,
                                      const int (&sums)[kTileQ / 2], float (&values)[kTileQ / 2]) {
  const float a = static_cast<float>(rowScale(shared.statsP[place.row]));
  const float b = static_cast<float>(rowScale(shared.statsP[place.row + 8]));
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    const float2 q = *reinterpret_cast<const float2*>(&shared.statsQ[8 * i + place.col]);
    values[4 * i] = static_cast<float>(sums[4 * i]) * (a * q.x);
    values[4 * i + 1] = static_cast<float>(sums[4 * i + 1]) * (a * q.y);
    values[4 * i + 2] = static_cast<float>(sums[4 * i + 2]) * (b * q.x);
    values[4 * i + 3] = static_cast<float>(sums[4 * i + 3]) * (b * q.y);
  }
}

__device__ __forceinline__ float outlierOf(const WgmmaArgs& a, const Side& side, Index row, int o) {
  if (o < kGatheredOutliers) return side.gathered[o * side.gatheredStride + row];
  const Index k = a.p.activations.outliers[o];
  return side.isX ? readFloat(a.p.x, row, k) : outlierWeight(a.p, row, k);
}

/** values += the outlier columns. */
template <int kTileQ>
__device__ __forceinline__ void addOutliers(const WgmmaArgs& a, SharedMemory<kTileQ>& shared, const TileAt& at,
                                            const Place& place, int count, float (&values)[kTileQ / 2]) {
  for (int first = 0; first < count; first += kOutliersAtOnce) {
    ptx::syncThreads(kConsumerBarrier, kConsumers);  // what lies there has been used
    constexpr int kBoth = kTileP + kTileQ;
    for (int i = static_cast<int>(threadIdx.x); i < kOutliersAtOnce * kBoth; i += kConsumers) {
      const int o = i / kBoth, r = i % kBoth;
      const bool ofP = r < kTileP;
      const Index row = ofP ? at.p * kTileP + r : at.q * kTileQ + r - kTileP;
      const bool there = first + o < count && row < (ofP ? a.sizeP : a.sizeQ);
      const float v = there ? outlierOf(a, ofP ? a.sideP : a.sideQ, row, first + o) : 0.0f;
      (ofP ? shared.outliersP[o][r] : shared.outliersQ[o][r - kTileP]) = v;
    }
    ptx::syncThreads(kConsumerBarrier, kConsumers);
    const int here = count - first < kOutliersAtOnce ? count - first : kOutliersAtOnce;
    for (int o = 0; o < here; ++o) {
      const float u = shared.outliersP[o][place.row], v = shared.outliersP[o][place.row + 8];
#pragma unroll
      for (int i = 0; i < kTileQ / 8; ++i) {
        const float2 w = *reinterpret_cast<const float2*>(&shared.outliersQ[o][8 * i + place.col]);
        values[4 * i] = fmaf(u, w.x, values[4 * i]);
        values[4 * i + 1] = fmaf(u, w.y, values[4 * i + 1]);
        values[4 * i + 2] = fmaf(v, w.x, values[4 * i + 2]);
        values[4 * i + 3] = fmaf(v, w.y, values[4 * i + 3]);
      }
    }
  }
}

template <typename T>
__device__ __forceinline__ std::uint32_t packed(float first, float second) {
  const T pair[2] = {fromFloat<T>(first), fromFloat<T>(second)};
  return *reinterpret_cast<const std::uint32_t*>(pair);
}

/** Four lanes hold a 4×4 matrix of words, a row each of which v is their column; afterwards they hold its transpose:
 * lane c has what lanes 0 to 3 held in v[c]. */
__device__ __forceinline__ void transposeInQuad(std::uint32_t (&v)[4], int c) {
  const bool odd = c & 1, high = c & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? v[i] : v[i + 1], 1);
    (odd ? v[i] : v[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, high ? v[i] : v[i + 2], 2);
    (high ? v[i] : v[i + 2]) = other;
  }
}

/** What happens to a tile's values on their way to memory, from the leanest code to the most general. */
enum class Finish {
  kRound,   // no outliers, no epilogue, vectors stored
  kAffine,  // outliers, bias, bounds and residual, these and the result in vectors
  kAny,     // activations, any strides: finishSlowly()
};

/** Two neighbours of y's type. */
template <typename T>
__device__ __forceinline__ float2 loadPair(const T* from) {
  if constexpr (sizeof(T) == 4) {
    return *reinterpret_cast<const float2*>(from);
  } else {
    const std::uint32_t bits = *reinterpret_cast<const std::uint32_t*>(from);
    const T* const pair = reinterpret_cast<const T*>(&bits);
    return make_float2(toFloat(pair[0]), toFloat(pair[1]));
  }
}

/** The epilogue's value but for its activation. */
__device__ __forceinline__ float affine(const Epilogue& e, float acc, float bias, float residual) {
  float v = e.alpha * acc + bias;
  if (v < e.lower) v = e.lower;
  if (v > e.upper) v = e.upper;
  return v * e.sign + residual;
}

/** Row \a half of the thread's two. \param left  columns of Y from the tile's first on */
template <typename T, int kTileQ>
__device__ __forceinline__ void finishAffine(const Epilogue& e, Index row, Index firstCol, int col, int left, int half,
                                             float (&values)[kTileQ / 2]) {
  const bool perCol = e.biasAxis == BiasAxis::kPerCol;
  const T* const bias = static_cast<const T*>(e.bias) + firstCol + col;
  const T* const residual = static_cast<const T*>(e.residual.data) + row * e.residual.rowStride + firstCol + col;
  const float rowBias = e.biasAxis == BiasAxis::kPerRow ? toFloat(static_cast<const T*>(e.bias)[row]) : 0.0f;
#pragma unroll
  for (int i = 0; i < kTileQ / 8; ++i) {
    if (8 * i + col >= left) continue;
    float2 b = make_float2(rowBias, rowBias), r = make_float2(0, 0);
    if (perCol) b = loadPair<T>(bias + 8 * i);
    if (e.residual.data) r = loadPair<T>(residual + 8 * i);
    float* const v = values + 4 * i + 2 * half;
    v[0] = affine(e, v[0], b.x, e.residualSign * r.x);
    v[1] = affine(e, v[1], b.y, e.residualSign * r.y);
  }
}

/** Whole 32-byte sectors at a time. float: eight bytes a lane, four lanes side by side. 16 bits: four lanes exchange
 * their parts of four groups of eight columns, and store a group each. All lanes of a warp come here together. */
template <typename T, int kTileQ>
__device__ __forceinline__ void storeSectors(T* tile, bool rowThere, int col, int left, int half,
                                             const float (&values)[kTileQ / 2]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < kTileQ / 8; ++i) {
      if (rowThere && 8 * i + col < left)
        *reinterpret_cast<float2*>(tile + col + 8 * i) =
            make_float2(values[4 * i + 2 * half], values[4 * i + 2 * half + 1]);
    }
  } else {
    const int c = col / 2;
#pragma unroll
    for (int i = 0; i < kTileQ / 8; i += 4) {
      std::uint32_t v[4];
#pragma unroll
      for (int g = 0; g < 4; ++g) v[g] = packed<T>(values[4 * (i + g) + 2 * half], values[4 * (i + g) + 2 * half + 1]);
      transposeInQuad(v, c);
      if (rowThere && 8 * (i + c) < left)
        *reinterpret_cast<uint4*>(tile + 8 * c + 8 * i) = make_uint4(v[0], v[1], v[2], v[3]);
    }
  }
}

/** A tile one value at a time, scaled as on the host. The loops are not unrolled, as 128 copies of an activation's code
 * are too many: registers cannot be indexed, so that the sums lie in local memory. */
template <typename T, int kTileQ>
__device__ __forceinline__ void finishSlowly(const WgmmaArgs& a, const TileAt& at, const Place& place, int count,
                                             const int (&sums)[kTileQ / 2]) {
  int indexed[kTileQ / 2];
#pragma unroll
  for (int i = 0; i < kTileQ / 2; ++i) indexed[i] = sums[i];
#pragma unroll 1
  for (int i = 0; i < kTileQ / 2; ++i) {
    const Index row = at.p * kTileP + place.row + i % 4 / 2 * 8;
    const Index col = at.q * kTileQ + place.col + i / 4 * 8 + i % 2;
    if (row >= a.sizeP || col >= a.sizeQ) continue;
    float outliers = 0;
    for (int o = 0; o < count; ++o)
      outliers = fmaf(outlierOf(a, a.sideP, row, o), outlierOf(a, a.sideQ, col, o), outliers);
    const float statP = a.sideP.stats[row], statQ = a.sideQ.stats[col];
    const float v = scaledSum(exactDouble(indexed[i]), rowScale(a.sideP.isX ? statP : statQ),
                              a.sideP.isX ? statQ : statP, outliers);
    storeResult<T>(a.p.y, a.p.epilogue, v, row, col);
  }
}

template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void finish(const WgmmaArgs& a, const TileAt& at, const Place& place,
                                       float (&values)[kTileQ / 2]) {
  const Index firstRow = at.p * kTileP + place.row, firstCol = at.q * kTileQ;
  const int left = static_cast<int>(a.sizeQ - firstCol < kTileQ ? a.sizeQ - firstCol : kTileQ);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Index row = firstRow + 8 * half;
    const bool there = row < a.sizeP;
    if (kFinish == Finish::kAffine && there)
      finishAffine<T, kTileQ>(a.p.epilogue, row, firstCol, place.col, left, half, values);
    T* const tile = static_cast<T*>(a.p.y.data) + row * a.p.y.rowStride + firstCol;
    storeSectors<T, kTileQ>(tile, there, place.col, left, half, values);
  }
}

/** A warpgroup that multiplies. */
template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void consume(const WgmmaArgs& a, SharedMemory<kTileQ>& shared) {
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / 128;
  const Place place = placeOf(thread);
  const int count = kFinish == Finish::kRound ? 0 : outlierCount(a.p.activations);
  Ring<Tiling<kTileQ>::kStages> ring;
  for (Index t = blockIdx.x; t < a.tilesP * a.tilesQ; t += gridDim.x) {
    const TileAt at = tileAt(a, t);
    int sums[kTileQ / 2];
    multiplyTile<kTileQ>(a, shared, warpgroup, ring, sums);
    if (kFinish == Finish::kAny || !loadStats<kTileQ>(a, shared, at)) {
      finishSlowly<T, kTileQ>(a, at, place, count, sums);
      continue;
    }
    float values[kTileQ / 2];
    scale<kTileQ>(shared, place, sums, values);
    if (kFinish == Finish::kAffine && count > 0) addOutliers<kTileQ>(a, shared, at, place, count, values);
    finish<T, kTileQ, kFinish>(a, at, place, values);
  }
}

template <typename T, int kTileQ, Finish kFinish>
__global__ void __launch_bounds__(kThreads, 1)
    wgmmaKernel(const __grid_constant__ CUtensorMap mapP, const __grid_constant__ CUtensorMap mapQ,
                const __grid_constant__ WgmmaArgs a) {
  extern __shared__ std::int8_t memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kTileQ>*>(memory + (-ptx::sharedAddress(memory) & 1023));
  if (threadIdx.x == 0) {
    for (int s = 0; s < Tiling<kTileQ>::kStages; ++s) {
      ptx::initBarrier(ptx::sharedAddress(&shared.full[s]), 1);
      ptx::initBarrier(ptx::sharedAddress(&shared.empty[s]), kConsumers / 32);
    }
    ptx::fenceBarrierInit();
  }
  __syncthreads();
  // Registers: 168 a thread at the start; 128·40 + 256·232 fit in 65536.
  if (threadIdx.x >= kConsumers) {
    ptx::giveRegisters<40>();
    if (threadIdx.x == kConsumers) produce<kTileQ>(mapP, mapQ, a, shared);
  } else {
    ptx::takeRegisters<232>();
    consume<T, kTileQ, kFinish>(a, shared);
  }
}

/** The driver's function, without linking against the driver. */
decltype(&cuTensorMapEncodeTiled) encodeTiled() {
  static const auto function = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    EIGENQ_CUDA_CHECK(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found));
#else
    EIGENQ_CUDA_CHECK(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found));
#endif
    if (found != cudaDriverEntryPointSuccess) EIGENQ_CUDA_CHECK(cudaErrorSymbolNotFound);
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  return function;
}

/** Codes as the copy engine sees them, in boxes of \a boxRows rows and kTileK columns. */
CUtensorMap tensorMap(const std::int8_t* codes, Index rows, Index cols, Index stride, int boxRows) {
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride)};
  const cuuint32_t box[2] = {kTileK, static_cast<cuuint32_t>(boxRows)}, steps[2] = {1, 1};
  const CUresult status = encodeTiled()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<std::int8_t*>(codes), sizes,
                                        strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  // The runtime's and the driver's numbers agree where both have one.
  EIGENQ_CUDA_CHECK(static_cast<cudaError_t>(status));
  return map;
}

/** Whether pairs of elements along rows may be loaded at once, from even columns on. */
bool takesPairs(const ConstDenseView& v, Index bytes) {
  return v.colStride == 1 && v.rowStride % 2 == 0 && isAligned(v.data, 2 * bytes);
}

/** \param bytes  of an element of Y */
Finish finishOf(const DeviceDecomposedProduct& p, Index bytes) {
  const Epilogue& e = p.epilogue;
  const DenseView& y = p.y;
  const Index atOnce = bytes == 2 ? 8 : 2;
  const bool vectors =
      y.colStride == 1 && y.rowStride % atOnce == 0 && y.cols % atOnce == 0 && isAligned(y.data, atOnce * bytes);
  const bool bias = e.biasAxis == BiasAxis::kNone || (e.biasStride == 1 && isAligned(e.bias, 2 * bytes));
  const bool residual = !e.residual.data || takesPairs(e.residual, bytes);
  if (!vectors || !bias || !residual || e.activation != Activation::kNone) return Finish::kAny;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool nothing = !p.activations.outlierCount && e.alpha == 1 && e.biasAxis == BiasAxis::kNone &&
                       e.lower == -kInfinity && e.upper == kInfinity && e.sign == 1 && !e.residual.data;
  return nothing ? Finish::kRound : Finish::kAffine;
}

Index ceilDiv(Index a, Index b) { return (a + b - 1) / b; }

/** Tiles in the time of one, on so many multiprocessors. */
Index roundsOf(Index sizeP, Index sizeQ, Index tileQ, int multiprocessors) {
  return ceilDiv(ceilDiv(sizeP, kTileP) * ceilDiv(sizeQ, tileQ), multiprocessors);
}

struct Launch {
  WgmmaArgs args;
  const std::int8_t* codesP;
  const std::int8_t* codesQ;
  Index strideP;
  Index strideQ;
  Index depth;
};

template <typename T, int kTileQ, Finish kFinish>
void launch(Launch& l, Context& context) {
  WgmmaArgs& a = l.args;
  a.tilesP = ceilDiv(a.sizeP, kTileP);
  a.tilesQ = ceilDiv(a.sizeQ, kTileQ);
  const CUtensorMap mapP = tensorMap(l.codesP, a.sizeP, l.depth, l.strideP, kTileP);
  const CUtensorMap mapQ = tensorMap(l.codesQ, a.sizeQ, l.depth, l.strideQ, kTileQ);
  const auto kernel = wgmmaKernel<T, kTileQ, kFinish>;
  constexpr int kBytes = sizeof(SharedMemory<kTileQ>) + 1024;  // to start at a multiple of 1024
  static_assert(kBytes <= 227 * 1024, "a block of sm_90 has 227 KB");
  EIGENQ_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  const Index blocks = std::min<Index>(a.tilesP * a.tilesQ, context.multiprocessors());
  kernel<<<static_cast<unsigned>(blocks), kThreads, kBytes, context.stream()>>>(mapP, mapQ, a);
  EIGENQ_CUDA_CHECK_LAUNCH("int8.wgmma");
}

template <typename T, int kTileQ>
void launch(Launch& l, Context& context) {
  switch (finishOf(l.args.p, static_cast<Index>(sizeof(T)))) {
    case Finish::kRound:
      return launch<T, kTileQ, Finish::kRound>(l, context);
    case Finish::kAffine:
      return launch<T, kTileQ, Finish::kAffine>(l, context);
    case Finish::kAny:
      return launch<T, kTileQ, Finish::kAny>(l, context);
  }
}

template <typename T>
void launch(Launch& l, Context& context) {
  // A tile of 256 columns takes twice as long as one of 128, less some traffic.
  const int sms = context.multiprocessors();
  const Index wide = 2 * roundsOf(l.args.sizeP, l.args.sizeQ, 256, sms);
  const Index narrow = roundsOf(l.args.sizeP, l.args.sizeQ, 128, sms);
  wide <= narrow ? launch<T, 256>(l, context) : launch<T, 128>(l, context);
}

}  // namespace

const char* lacksForDecomposedWgmma(const DeviceDecomposedProduct& p, const Context& context) {
  if (context.properties().major != 9 || context.properties().minor != 0) return "needs a device of sm_90a";
  if (p.w.cols == 0) return "nothing to sum";
  if (p.w.cols > kInt8MaxDepth) return "32 bits may not hold the sums of so many columns";
  if (!isAligned(codesOf(p.w), kCodeAlignment) || p.w.stride % kCodeAlignment != 0)
    return "rows of the weight do not start at 16-byte boundaries";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() - 256;
  if (p.y.rows > kMost || p.y.cols > kMost) return "more rows than 32 bits count";
  return nullptr;
}

const char* refuseDecomposedWgmma(const DeviceDecomposedProduct& p, const Context& context) {
  if (const char* why = lacksForDecomposedWgmma(p, context)) return why;
  const Index tiles = ceilDiv(p.y.rows, kTileP) * ceilDiv(p.y.cols, 128);
  return 2 * tiles < context.multiprocessors() ? "too few tiles to fill the device" : nullptr;
}

void runDecomposedWgmma(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  assert(p.activations.stride % kCodeAlignment == 0 && isAligned(p.activations.codes, kCodeAlignment));
  const DeviceGuard guard(context.device());
  Scratch scratch(context);
  const GatheredOutliers outliers = gatherOutliers(p, scratch, context);
  const Side x = {true, p.activations.rowStats, outliers.x, outliers.xStride};
  const Side w = {false, p.w.rowAbsmax, outliers.w, outliers.wStride};
  const bool transpose = p.y.rowStride == 1 && p.y.colStride != 1;
  Launch l = {};
  l.args.p = p;
  l.args.sideP = transpose ? w : x;
  l.args.sideQ = transpose ? x : w;
  if (transpose) {
    l.args.p.y = p.y.transpose();
    l.args.p.epilogue = p.epilogue.transpose();
  }
  l.args.sizeP = l.args.p.y.rows;
  l.args.sizeQ = l.args.p.y.cols;
  l.args.steps = static_cast<int>(ceilDiv(p.w.cols, kTileK));
  l.codesP = transpose ? codesOf(p.w) : p.activations.codes;
  l.codesQ = transpose ? p.activations.codes : codesOf(p.w);
  l.strideP = transpose ? p.w.stride : p.activations.stride;
  l.strideQ = transpose ? p.activations.stride : p.w.stride;
  l.depth = p.w.cols;
  dispatchDeviceScalar(p.y.scalar, [&](auto tag) { launch<typename decltype(tag)::type>(l, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
