// SPDX-License-Identifier: MPL-2.0
// int8_stream_sm90.cu: LLM.int8() for few tokens (rows of X): W streams by once, as the 64 rows of wgmma.
//
//            k: a share of it for each block of a cluster          The copy engine fills a ring of stages, 128 columns
//          ┌──────────┬──────────┬──────────┬──────────┐           deep; W before the quantiser ahead has ended. Two
//   W: 128 │ block 0  │ block 1  │ block 2  │ block 3  │           warpgroups multiply, 64 rows of W each, by 8 to 64
//    rows  └──────────┴──────────┴──────────┴──────────┘           tokens. In the end a block of the cluster adds up a
//              └──────── integer sums meet ────────┘               share of the rows out of the memory of all.
//
// Traffic  1 B a weight, read once: 28672×8192 take 51 us at 4.6 TB/s. X comes from the second-level cache, tokens/128
//          of the bytes of W.
// Shape    Two blocks a multiprocessor with 96 KB of stages each: three times what 4.6 TB/s times 1 us of latency ask
//          for. k is shared so that all blocks find room at once (clusterOf()). Measured with 16 tokens at 4096×4096:
//          10 us, of which some 3 wait for the quantiser and 4 read W; at 28672×8192 61 us, 83 % of the limit.
// Outliers The quantiser leaves codes in their columns: these products are taken off again, exactly, and replaced by
//          floats, fmaf by fmaf in ascending order. Three warps see to what that takes while the others multiply: of W,
//          they take the codes from the stages. Measured at 28672×8192 with ten outliers and 1, 16 and 32 rows: 62.4,
//          66.4 and 70.1 us, where 59.9, 60.4 and 62.2 go without; read from memory, they took 67.5 us and more.
// Needs    sm_90a, m ≤ 64, k ≤ 2¹⁷, rows of W at 16-byte boundaries (the copy engine). It fills what it copies from
//          beyond the matrix with zeros.
#include <algorithm>
#include <cassert>
#include <limits>

#include "int8_stream_finish.cuh"
#include "int8_stream_help.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace stream;

/** The copying thread. The last kernel did not write W: its first stages are asked for before joining the stream. */
template <int kTokens>
__device__ __forceinline__ void produce(const CUtensorMap& mapW, const CUtensorMap& mapX, const Task& task,
                                        SharedMemory<kTokens>& shared) {
  using Tiles = Tiling<kTokens>;
  const int ahead = min(Tiles::kStages, task.steps);
  const auto copyW = [&](int step, int stage) {
    const std::uint32_t full = ptx::sharedAddress(&shared.full[stage]);
    ptx::arriveExpecting(full, Tiles::kStageBytes);  // what lies beyond the matrix counts too
    ptx::copyBox(ptx::sharedAddress(shared.stages[stage]), &mapW, (task.firstStep + step) * kTileK,
                 static_cast<int>(task.row), full);
  };
  const auto copyX = [&](int step, int stage) {
    ptx::copyBox(ptx::sharedAddress(shared.stages[stage]) + kBytesP, &mapX, (task.firstStep + step) * kTileK, 0,
                 ptx::sharedAddress(&shared.full[stage]));
  };
  for (int step = 0; step < ahead; ++step) copyW(step, step);
  ptx::waitForLastKernel();
  for (int step = 0; step < ahead; ++step) copyX(step, step);
  Ring<Tiles::kStages> ring;
  for (int step = ahead; step < task.steps; ++step, ring.advance()) {
    ptx::wait(ptx::sharedAddress(&shared.empty[ring.index]), ring.parity);
    copyW(step, ring.index);
    copyX(step, ring.index);
  }
}

/** A warpgroup that multiplies and leaves its sums for all to read. */
template <int kTokens>
__device__ __forceinline__ void consume(const Task& task, bool watched, SharedMemory<kTokens>& shared) {
  const int thread = static_cast<int>(threadIdx.x), warpgroup = thread / kGroup;
  const int g = thread % 32 / 4, c = thread % 4, row = thread / 32 * 16 + g;
  Ring<Tiling<kTokens>::kStages> ring;
  int sums[kTokens / 2];
  multiplyStages(shared, task.steps, warpgroup, ring, sums, [&](int stage) {
    if (thread % 32 == 0) ptx::arrive(ptx::sharedAddress(&shared.empty[stage]));
  });
  ptx::syncThreads(kConsumersBarrier, kConsumers + (watched ? 32 : 0));  // the stages have been used by all
  auto& to = shared.exchange().sums;
#pragma unroll
  for (int i = 0; i < kTokens / 8; ++i) {
    to[8 * i + 2 * c][row] = sums[4 * i];
    to[8 * i + 2 * c + 1][row] = sums[4 * i + 1];
    to[8 * i + 2 * c][row + 8] = sums[4 * i + 2];
    to[8 * i + 2 * c + 1][row + 8] = sums[4 * i + 3];
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kThreads, 2)
    streamKernel(const __grid_constant__ CUtensorMap mapW, const __grid_constant__ CUtensorMap mapX,
                 const __grid_constant__ StreamArgs a) {
  extern __shared__ std::int8_t memory[];
  auto& shared = *reinterpret_cast<SharedMemory<kTokens>*>(memory + (-ptx::sharedAddress(memory) & 1023));
  const Task task(a);
  if (threadIdx.x == 0) {
    for (int s = 0; s < Tiling<kTokens>::kStages; ++s) {
      ptx::initBarrier(ptx::sharedAddress(&shared.full[s]), 1);
      ptx::initBarrier(ptx::sharedAddress(&shared.empty[s]), kConsumers / 32 + (hasOutliers(a) ? 1 : 0));
    }
    shared.outliers.count = 0;
    ptx::fenceBarrierInit();
  }
  if (hasOutliers(a)) {
    ptx::syncCluster();  // blocks store to one another's memory
  } else {
    __syncthreads();
  }
  ptx::allowNextKernel();
  // Registers: 80 a thread at the start; 128·48 + 256·96 fit in half of 65536.
  if (threadIdx.x >= kConsumers) {
    ptx::giveRegisters<48>();
    if (threadIdx.x == kConsumers) {
      produce<kTokens>(mapW, mapX, task, shared);
    } else if (threadIdx.x >= kThreads - kHelpers) {
      help(a, task, shared);
    }
    __syncwarp();
    ptx::syncCluster();
  } else {
    ptx::takeRegisters<96>();
    ptx::waitForLastKernel();
    consume<kTokens>(task, hasOutliers(a), shared);
    ptx::syncCluster();  // the sums of all shares are there, and the outliers
    finish<kTokens>(a, task, shared);
  }
  ptx::meetCluster();  // no other block reads this one's memory any more
}

/** Blocks a cluster: as many as find room on the device together. Twice as many blocks as multiprocessors do not
 * always, as a cluster lies within one of the device's parts. Measured: 11008×4096 by 32 tokens takes 17.5 us with one
 * or two, 24 with four; 4096×4096 12.8, 10.5 and 11.0, and 17.5 with eight. */
int clusterOf(Index tiles, int steps, int multiprocessors) {
  int shares = 1;
  while (2 * shares <= std::min(kMostShares, steps) && tiles * 2 * shares <= multiprocessors * 7 / 4) shares *= 2;
  return shares;
}

bool takesVectorStores(const DenseView& y) {
  const Index bytes = y.scalar == ScalarType::kFloat ? 16 : 8;
  return y.colStride == 1 && (y.rowStride % 4 == 0 || y.rows == 1) && isAligned(y.data, bytes);
}

template <int kTokens>
void launchFor(const StreamArgs& given, bool early, Context& context) {
  StreamArgs args = given;
  const DeviceDecomposedProduct& p = args.p;
  args.tokens = static_cast<int>(p.y.rows);
  args.steps = static_cast<int>(ceilDiv(p.w.cols, kTileK));
  const Index tiles = ceilDiv(p.w.rows, kTileP);
  args.shares = clusterOf(tiles, args.steps, context.multiprocessors());
  args.plain = isPlain(p.epilogue);
  args.vectorStores = takesVectorStores(p.y);
  const CUtensorMap mapW = boxesOf(codesOf(p.w), p.w.rows, p.w.cols, p.w.stride, kTileP);
  const CUtensorMap mapX = boxesOf(p.activations.codes, p.y.rows, p.w.cols, p.activations.stride, kTokens);
  constexpr std::size_t kBytes = sizeof(SharedMemory<kTokens>) + 1024;  // to start at a multiple of 1024
  static_assert(kBytes <= 113 * 1024, "two blocks share the 228 KB of a multiprocessor, of which each costs one more");
  const LaunchShape shape{static_cast<unsigned>(tiles * args.shares), kThreads, kBytes,
                          static_cast<unsigned>(args.shares)};
  if (early) return launchEarly("int8.stream", streamKernel<kTokens>, shape, context, mapW, mapX, args);
  launch("int8.stream", streamKernel<kTokens>, shape, context, mapW, mapX, args);
}

void run(const StreamArgs& args, bool early, Context& context) {
  const Index m = args.p.y.rows;
  if (m <= 8) return launchFor<8>(args, early, context);
  if (m <= 16) return launchFor<16>(args, early, context);
  if (m <= 32) return launchFor<32>(args, early, context);
  launchFor<kMostTokens>(args, early, context);
}

}  // namespace

const char* refuseDecomposedStream(const DeviceDecomposedProduct& p, const Context& context) {
  if (p.y.rows > kMostTokens) return "more than 64 rows of X";
  return refuseDecomposedWgmma(p, context);
}

void runDecomposedStream(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  StreamArgs args = {};
  args.p = p;
  run(args, false, context);
}

void runDecomposedStream(const DeviceDecomposedProduct& p, const std::uint32_t* outlierMarks, Context& context) {
  Scratch scratch(context);
  StreamArgs args = {};
  args.p = p;
  args.marks = outlierMarks;
  args.columns = outlierMarks ? scratch.array<int>(p.w.cols) : nullptr;
  run(args, true, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
