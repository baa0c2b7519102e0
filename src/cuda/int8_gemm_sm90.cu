// SPDX-License-Identifier: MPL-2.0
// int8_gemm_sm90.cu: Y = epilogue(X̂·Ŵᵀ + Xₒ·Wₒᵀ) with the integer sums in registers from the first code to the result.
//
//              q: 128 or 256 columns              A block is three warpgroups. One thread of the third has the copy
//            ┌──────────────┬──────────┐          engine fill a ring of stages, 128 columns of codes deep; the others
//   p: 64    │ warpgroup 0  │          │          multiply, 64 rows each, and hand a stage back when all of their warps
//            ├──────────────┤  128 of  │          are done with it. Blocks are persistent: while a warpgroup writes its
//   p: 64    │ warpgroup 1  │  k deep  │          half of a tile of Y, the other multiplies and the ring fills.
//            └──────────────┴──────────┘
//
// p runs over rows of Y and q over columns where rows are contiguous; Y column-major is its transpose, with X and W
// exchanged. So stores are always along q.
//
// Traffic  (128 + 256)·k B a tile from the second-level cache for 128·256·k products: at the tensor cores' full rate
//          48 B a clock and multiprocessor. Tiles that run together form a square, so that memory sees each code a few
//          times only.
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

#include "alignment.h"
#include "int8_wgmma_finish.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace wgmma;

constexpr int kConsumers = kTileP / kGroupRows * kGroup;
constexpr int kThreads = kConsumers + kGroup;
constexpr int kRasterP = 16;  // tiles in a column of the raster: 16·128 by 8·256 is nearly a square of 132 tiles

/** A tile, counted in tiles. */
struct TileAt {
  Index p;
  Index q;
};

/** Where tile \a t lies: in columns of kRasterP tiles, one column after the other. */
__device__ __forceinline__ TileAt tileAt(const WgmmaArgs& a, Index t) {
  const Index groupTiles = kRasterP * a.tilesQ, first = t / groupTiles * kRasterP, within = t % groupTiles;
  const Index height = a.tilesP - first < kRasterP ? a.tilesP - first : kRasterP;
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
    const std::uint64_t operandA = wgmmaOperand(from + warpgroup * kGroupRows * kTileK);
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

/** A warpgroup that multiplies. */
template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void consume(const WgmmaArgs& a, SharedMemory<kTileQ>& shared) {
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / kGroup;
  const Place place = placeOf(thread % kGroup);
  Own<kTileQ>& own = shared.own[warpgroup];
  const int count = kFinish == Finish::kRound ? 0 : outlierCount(a.p.activations);
  Ring<Tiling<kTileQ>::kStages> ring;
  for (Index t = blockIdx.x; t < a.tilesP * a.tilesQ; t += gridDim.x) {
    const TileAt at = tileAt(a, t);
    const Part part = {at.p * kTileP + warpgroup * kGroupRows, at.q * kTileQ, 1 + warpgroup};
    const Stats<kTileQ> stats(a, part);
    int sums[kTileQ / 2];
    multiplyTile<kTileQ>(a, shared, warpgroup, ring, sums);
    if (kFinish == Finish::kAny || !stats.share(part, own)) {
      finishSlowly<T, kTileQ>(a, part, place, count, sums);
      continue;
    }
    float values[kTileQ / 2];
    scale<kTileQ>(own, place, sums, values);
    if (kFinish == Finish::kAffine && count > 0) addOutliers<kTileQ>(a, part, place, count, own, values);
    finishFast<T, kTileQ, kFinish>(a, part, place, values);
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

/** Codes in boxes of \a boxRows rows and kTileK columns. */
CUtensorMap boxesOf(const std::int8_t* codes, Index rows, Index cols, Index stride, int boxRows) {
  return tensorMap<2>(codes, {cols, rows}, {stride}, {kTileK, boxRows}, CU_TENSOR_MAP_SWIZZLE_128B);
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
  const CUtensorMap mapP = boxesOf(l.codesP, a.sizeP, l.depth, l.strideP, kTileP);
  const CUtensorMap mapQ = boxesOf(l.codesQ, a.sizeQ, l.depth, l.strideQ, kTileQ);
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

const char* refuseDecomposedWgmma(const DeviceDecomposedProduct& p, const Context& context) {
  if (context.properties().major != 9 || context.properties().minor != 0) return "needs a device of sm_90a";
  if (p.w.cols == 0) return "nothing to sum";
  if (p.w.cols > kInt8MaxDepth) return "32 bits may not hold the sums of so many columns";
  if (!isAligned(codesOf(p.w), kCodeAlignment) || p.w.stride % kCodeAlignment != 0)
    return "rows of the weight do not start at 16-byte boundaries";
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max() - 256;
  if (p.y.rows > kMost || p.y.cols > kMost) return "more rows than 32 bits count";
  return nullptr;
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
