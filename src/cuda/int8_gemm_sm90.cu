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
// Traffic  (128 + 256)·k B a tile for 128·256·k products: at the tensor cores' full rate 48 B a clock and SM, 11 TB/s
//          in all, which is more than the second-level cache gives. So two blocks below one another make a cluster, and
//          each copies half of q's codes to both: (128 + 128)·k B. 8192 rows of X by 28672×8192 took 3.41 ms without
//          that, 2.69 with it, 14336×4096 831 us and 711. Tiles that run together form a square, so that memory sees
//          each code a few times only.
// Work     2·m·n·k operations at nominally 1979 TOP/s; 1580 is what random data leave of it.
// Epilogue 128 values a thread. The scale is r32(sum)·r32(row stat·absmax/127²): three roundings of float beside the
//          host's one. Where a statistic of the tile is outside [2⁻⁴⁰, 2⁴⁰], products of two might leave the range of
//          float, and the tile is scaled in double as on the host, as all are that have an activation.
// Outliers Of 16-bit X, by tensor cores: X's columns times W's codes, 16 at a time, gathered by the third warpgroup's idle
//          warps (int8_wgmma_pack.cuh), are added to the sums once these are floats times X's unit; W's unit follows, so
//          that there are four roundings. Others come to shared memory eight at a time and are added with fmaf, in
//          ascending order.
// Needs    sm_90a, k ≤ 2¹⁷, rows of W at 16-byte boundaries (the copy engine). It fills what it copies from beyond the
//          matrix with zeros, so that no size need be a multiple of anything.
#include <cuda.h>

#include <algorithm>
#include <cassert>
#include <limits>

#include "alignment.h"
#include "int8_wgmma_finish.cuh"
#include "int8_wgmma_pack.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace wgmma;

constexpr int kThreads = kConsumers + kGroup;

/** The copying thread. Of two blocks, each copies its rows of P and half of Q's, these to both. */
template <int kTileQ>
__device__ __forceinline__ void produce(const CUtensorMap& mapP, const CUtensorMap& mapQ, const WgmmaArgs& a,
                                        SharedMemory<kTileQ>& shared) {
  using Tiles = Tiling<kTileQ>;
  Ring<Tiles::kStages> ring;
  for (Walk walk(a); !walk.done(); walk.advance()) {
    const TileAt at = walk.tile();
    const int rowP = static_cast<int>(at.p * kTileP), rowQ = static_cast<int>(at.q * kTileQ);
    const int half = walk.rank() * kTileQ / 2;
    for (int step = 0; step < a.steps; ++step, ring.advance()) {
      const std::uint32_t full = ptx::sharedAddress(&shared.full[ring.index]);
      const std::uint32_t to = ptx::sharedAddress(shared.stages[ring.index]);
      ptx::wait(ptx::sharedAddress(&shared.empty[ring.index]), ring.parity ^ 1);
      ptx::arriveExpecting(full, Tiles::kStageBytes);  // what lies beyond the matrix counts too
      ptx::copyBox(to, &mapP, step * kTileK, rowP, full);
      if (a.blocks == 1) {
        ptx::copyBox(to + kBytesP, &mapQ, step * kTileK, rowQ, full);
      } else {
        ptx::copyBoxToBlocks(to + kBytesP + half * kTileK, &mapQ, step * kTileK, rowQ + half, full, 3);
      }
    }
  }
}

/** A warpgroup that multiplies. */
template <typename T, int kTileQ, Finish kFinish>
__device__ __forceinline__ void consume(const WgmmaArgs& a, SharedMemory<kTileQ>& shared) {
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / kGroup;
  const Place place = placeOf(thread % kGroup);
  Own<kTileQ>& own = shared.own[warpgroup];
  const int count = kFinish == Finish::kRound || kFinish == Finish::kPacked ? 0 : outlierCount(a.p.activations);
  PackedReader<kTileQ> packed(shared.packed, warpgroup);
  Ring<Tiling<kTileQ>::kStages> ring;
  for (Walk walk(a); !walk.done(); walk.advance()) {
    const TileAt at = walk.tile();
    const auto handBack = [&](int stage) {  // a lane to each block of the cluster
      if (thread % 32 < a.blocks) ptx::arriveAtBlock(ptx::sharedAddress(&shared.empty[stage]), thread % 32);
    };
    const Part part = {at.p * kTileP + warpgroup * kGroupRows, at.q * kTileQ, 1 + warpgroup};
    const Stats<kTileQ> stats(a, part);
    int sums[kTileQ / 2];
    multiplyStages(shared, a.steps, warpgroup, ring, sums, handBack);
    if (kFinish == Finish::kAny || !stats.share(part, own)) {
      finishSlowly<T, kTileQ>(a, part, place, kFinish == Finish::kPacked ? packed.skip() : count, sums);
      continue;
    }
    if constexpr (kFinish == Finish::kPacked) {
      finishPacked<T, kTileQ>(a, part, place, own, packed, sums);
    } else if (count == 0) {
      finishAtOnce<T, kTileQ, kFinish>(a, part, place, own, sums);
    } else {
      finishKept<T, kTileQ>(a, part, place, own, sums, [&](KeptValues<kTileQ>& kept) {
        addOutliers<kTileQ>(a, part, place, count, shared.gathered[warpgroup], kept);
      });
    }
  }
}

/** Waits for all threads of the cluster, whose barriers are initialised then. */
__device__ __forceinline__ void meetBlocks(const WgmmaArgs& a) {
  if (a.blocks > 1) {
    ptx::meetCluster();
  } else {
    __syncthreads();
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
      ptx::initBarrier(ptx::sharedAddress(&shared.empty[s]), a.blocks * kConsumers / 32);
    }
    if (kFinish == Finish::kPacked) initPacked(shared.packed);
    ptx::fenceBarrierInit();
  }
  meetBlocks(a);
  ptx::allowNextKernel();
  ptx::waitForLastKernel();
  // Registers: 168 a thread at the start, 384·168 = 128·40 + 256·232 = 128·120 + 256·192.
  constexpr bool kPacked = kFinish == Finish::kPacked;
  if (threadIdx.x >= kConsumers) {
    ptx::giveRegisters<kPacked ? 120 : 40>();
    if (threadIdx.x == kConsumers) produce<kTileQ>(mapP, mapQ, a, shared);
    if constexpr (kPacked) {
      if (threadIdx.x >= kConsumers + 32) pack<T, kTileQ>(a, shared.packed);
    }
    __syncwarp();
  } else {
    ptx::takeRegisters<kPacked ? 192 : 232>();
    consume<T, kTileQ, kFinish>(a, shared);
  }
  if (a.blocks > 1) ptx::meetCluster();  // the other block neither arrives nor copies here any more
}

/** Whether pairs of elements along rows may be loaded at once, from even columns on. */
bool takesPairs(const ConstDenseView& v, Index bytes) {
  return v.colStride == 1 && v.rowStride % 2 == 0 && isAligned(v.data, 2 * bytes);
}

/** \param bytes  of an element of Y */
Finish finishOf(const DenseView& y, const Epilogue& e, bool outliers, Index bytes) {
  const Index atOnce = bytes == 2 ? 8 : 2;
  const bool vectors =
      y.colStride == 1 && y.rowStride % atOnce == 0 && y.cols % atOnce == 0 && isAligned(y.data, atOnce * bytes);
  const bool bias = e.biasAxis == BiasAxis::kNone || (e.biasStride == 1 && isAligned(e.bias, 2 * bytes));
  const bool residual = !e.residual.data || takesPairs(e.residual, bytes);
  if (!vectors || !bias || !residual || e.activation != Activation::kNone) return Finish::kAny;
  return !outliers && isPlain(e) ? Finish::kRound : Finish::kAffine;
}

/** Tiles in the time of one, on so many multiprocessors, by so many blocks side by side. */
Index roundsOf(Index sizeP, Index sizeQ, Index tileQ, int multiprocessors, int blocks = 1) {
  return ceilDiv(ceilDiv(sizeP, kTileP * blocks) * ceilDiv(sizeQ, tileQ), multiprocessors / blocks);
}

/** Two blocks that share rows of Q read a third less from the second-level cache, unless one would have no tile. */
int clusterOf(Index sizeP, Index sizeQ, Index tileQ, int multiprocessors) {
  if (sizeP <= kTileP || multiprocessors < 2) return 1;
  const bool free = roundsOf(sizeP, sizeQ, tileQ, multiprocessors, 2) <= roundsOf(sizeP, sizeQ, tileQ, multiprocessors);
  return free ? 2 : 1;
}

struct Launch {
  WgmmaArgs args;
  const std::int8_t* codesP;
  const std::int8_t* codesQ;
  Index strideP;
  Index strideQ;
  Index depth;
  bool packs;  // outliers go by tensor cores
  Scratch* scratch;
  bool early;  // behind a kernel that joined the stream

  /** Where tiles are more than blocks, their rows are packed once. Claims are cleared by the quantiser, or here. */
  void shareRows(int tileQ, Context& context) {
    const Index tiles = args.heights * args.blocks * args.tilesQ;
    if (tiles <= context.multiprocessors()) {
      args.claims = nullptr;
      return;
    }
    const Index rows = args.heights * args.blocks * kTileP + args.tilesQ * tileQ;
    args.sharedRows = scratch->array<PackedHalf>(rows * kHalvesShared);
    const Index claims = args.heights * args.blocks + args.tilesQ;
    assert(claims <= mostClaims(args.p.y.rows, args.p.y.cols));
    if (args.claims) return;
    args.claims = scratch->array<unsigned>(claims);
    EIGENQ_CUDA_CHECK(
        cudaMemsetAsync(args.claims, 0, static_cast<std::size_t>(claims) * sizeof(unsigned), context.stream()));
  }
};

template <typename T, int kTileQ, Finish kFinish>
void launch(Launch& l, Context& context) {
  WgmmaArgs& a = l.args;
  a.tilesQ = ceilDiv(a.sizeQ, kTileQ);
  a.blocks = clusterOf(a.sizeP, a.sizeQ, kTileQ, context.multiprocessors());
  a.heights = ceilDiv(a.sizeP, a.blocks * kTileP);
  if (kFinish == Finish::kPacked) l.shareRows(kTileQ, context);
  const CUtensorMap mapP = boxesOf(l.codesP, a.sizeP, l.depth, l.strideP, kTileP);
  const CUtensorMap mapQ = boxesOf(l.codesQ, a.sizeQ, l.depth, l.strideQ, kTileQ / a.blocks);
  const auto kernel = wgmmaKernel<T, kTileQ, kFinish>;
  constexpr int kBytes = sizeof(SharedMemory<kTileQ>) + 1024;  // to start at a multiple of 1024
  static_assert(kBytes <= 227 * 1024, "a block of sm_90 has 227 KB");
  const Index clusters = std::min(a.heights * a.tilesQ, Index{context.multiprocessors() / a.blocks});
  const LaunchShape shape{static_cast<unsigned>(clusters * a.blocks), kThreads, kBytes,
                          static_cast<unsigned>(a.blocks)};
  if (l.early) return launchEarly("int8.wgmma", kernel, shape, context, mapP, mapQ, a);
  internal::launch("int8.wgmma", kernel, shape, context, mapP, mapQ, a);
}

template <typename T>
void launchNarrow(Launch& l, Finish finish, Context& context) {
  switch (finish) {
    case Finish::kRound:
      return launch<T, 128, Finish::kRound>(l, context);
    case Finish::kAffine:
      return launch<T, 128, Finish::kAffine>(l, context);
    case Finish::kPacked:
      if constexpr (sizeof(T) == 2) return launch<T, 128, Finish::kPacked>(l, context);
      break;
    case Finish::kAny:
      return launch<T, 128, Finish::kAny>(l, context);
  }
}

template <typename T>
void launch(Launch& l, Context& context) {
  Finish finish = finishOf(l.args.p.y, l.args.p.epilogue, l.args.p.activations.outlierCount != nullptr,
                           static_cast<Index>(sizeof(T)));
  if (l.packs) finish = Finish::kPacked;
  // A tile of 256 columns takes twice as long as one of 128, less some traffic.
  const int sms = context.multiprocessors();
  const Index wide = 2 * roundsOf(l.args.sizeP, l.args.sizeQ, 256, sms);
  const Index narrow = roundsOf(l.args.sizeP, l.args.sizeQ, 128, sms);
  if (wide <= narrow && finish == Finish::kRound) return launch<T, 256, Finish::kRound>(l, context);
  if (wide <= narrow && finish == Finish::kAffine) return launch<T, 256, Finish::kAffine>(l, context);
  if constexpr (sizeof(T) == 2) {
    if (wide <= narrow && finish == Finish::kPacked) return launch<T, 256, Finish::kPacked>(l, context);
  }
  launchNarrow<T>(l, finish, context);
}

/** Y's columns are contiguous: p runs over them, and over rows of W. */
bool transposes(const DeviceDecomposedProduct& p) { return p.y.rowStride == 1 && p.y.colStride != 1; }

/** What stands before the product. */
struct Before {
  GatheredOutliers gathered;  // or
  bool packs = false;         // what is listed, or
  const std::uint32_t* marks = nullptr;
  int* columns = nullptr;
  unsigned* claims = nullptr;  // all 0; null: to be made
  bool early = false;
};

void run(const DeviceDecomposedProduct& p, const Before& before, Scratch& scratch, Context& context) {
  assert(p.activations.stride % kCodeAlignment == 0 && isAligned(p.activations.codes, kCodeAlignment));
  const Side x = {true, p.activations.rowStats, before.gathered.x, before.gathered.xStride};
  const Side w = {false, p.w.rowAbsmax, before.gathered.w, before.gathered.wStride};
  const bool transpose = transposes(p);
  Launch l = {};
  l.packs = before.packs;
  l.early = before.early;
  l.args.p = p;
  l.args.marks = before.marks;
  l.args.columns = before.columns;
  l.args.claims = before.claims;
  l.scratch = &scratch;
  l.args.sideP = transpose ? w : x;
  l.args.sideQ = transpose ? x : w;
  if (transpose) {
    l.args.p.y = p.y.transpose();
    l.args.p.epilogue = p.epilogue.transpose();
  }
  l.args.plain = isPlain(p.epilogue);
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

bool takesPackedOutliers(const DeviceDecomposedProduct& p) {
  if (p.y.scalar == ScalarType::kFloat || p.x.scalar != p.y.scalar || p.outlierWeights.data) return false;
  const bool transpose = transposes(p);
  return finishOf(transpose ? p.y.transpose() : p.y, transpose ? p.epilogue.transpose() : p.epilogue, true, 2) ==
         Finish::kAffine;
}

void runDecomposedWgmma(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  Scratch scratch(context);
  Before before;
  before.packs = p.activations.outlierCount && takesPackedOutliers(p);
  if (!before.packs) before.gathered = gatherOutliers(p, scratch, context);
  run(p, before, scratch, context);
}

void runDecomposedWgmma(const DeviceDecomposedProduct& p, const OutlierMarks& marks, Context& context) {
  Scratch scratch(context);
  DeviceDecomposedProduct d = p;
  Before before;
  before.early = true;
  before.packs = marks.words != nullptr;
  before.marks = marks.words;
  before.claims = marks.claims;
  if (marks.words) d.activations.outliers = before.columns = scratch.array<int>(p.w.cols);
  run(d, before, scratch, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
