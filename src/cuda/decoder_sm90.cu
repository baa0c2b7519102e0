// SPDX-License-Identifier: MPL-2.0
// decoder_sm90.cu: all blocks of a Llama with 4-bit weights for one token of each of one or two sequences, on Hopper.
//
//   CTA, one a multiprocessor, all of them at once
//     warp 16      ── copies the weights of block 0, 1, 2, … into a ring of stages, as far ahead as there is room ──►
//     warps 0…15   norm, q k v │ attention │ output, + │ norm, gate up, silu │ down, + │ norm, q k v of block 1 │ …
//                            words         words       words                 words     words
//
//   shared memory   │ barriers │ blocks' data │ stages │ 64 KiB: pair table, partial sums │ stages │ X │
//
// One step is one kernel because a step of 32 blocks in kernels of their own is some 400 launches of 3 to 8 us, most of
// which is their beginning: filling the pair table, the first trip to memory, the last CTA's end. Here the table is
// filled once, and the weights of what comes next arrive while a group's last sums are handed on: 6 stages of 16 KiB in
// each of 132 CTAs are 3 us of the memory's bandwidth.
//
// Traffic  All weights once: 0.5 B of codes and 1/64 B of nested absmax, or 4/64 B of plain. X comes from the second
//          cache, 4 B a value and CTA.
// Handing  Five times a block every CTA needs what all others have just computed: words with tags, decoder_words.cuh.
//   on     Whoever writes a word anew had to wait for values that every reader of the old one computed from it, one to
//          three groups later, so that words need no second copy.
// Time     H200, nested NF4, one token behind 48, a block of 4096/14336 with 32/8 heads: 57 us, of which 28 are
//          tiles and the rest is handing on; of 2048/8192: 34 us. Reading the weights takes 26 and 7.
// Order    Sums of warps, splits of keys and squares are added in a fixed order: the same bits in every run.
// Needs    All CTAs at once: a cooperative launch. Blocks of 64, rows of W of multiples of 256 codes, nested 1024; one
//          code table for all matrices, heads of 64 or 128: refuseDecoder() in decoder.cpp.
#include "decoder_attention.cuh"
#include "decoder_products.cuh"

#include "op_launch.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {
namespace {

/** The step's x, which every CTA needs, in words. */
template <typename T>
__device__ __forceinline__ void putInput(const Problem& p, const void* x, const Tag& tag) {
  const int count = p.tokens * p.hidden;
  for (int i = static_cast<int>(blockIdx.x * kConsumerThreads + threadIdx.x); i < count;
       i += static_cast<int>(gridDim.x) * kConsumerThreads)
    tag.put<T>(p.words.stream + i, toFloat(static_cast<const T*>(x)[i]));
}

/** X of a group, in shared memory when this returns. \param before, tag  of what the block began with and of what it
 * makes */
template <typename T, bool kNested>
__device__ __forceinline__ void stageInput(const Problem& p, const Group& group, const Tag& before, const Tag& tag,
                                           const Memory& memory, Multiplier<T, kNested>& product) {
  const std::uint32_t* const words = group.kind == kAttentionProducts ? p.words.stream
                                     : group.kind == kOutputProduct   ? p.words.attention
                                     : group.kind == kFfnProducts     ? p.words.middle
                                                                      : p.words.activation;
  const Input in{words, group.kind == kAttentionProducts ? before : tag, group.depth, group.depth * p.tokens, memory.x};
  const float2 squares = copyInput<T>(in);
  if (group.norms()) normalise<T>(in, squares, product.waitForGain(), p.eps, memory.sums());
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  if (group.norms()) product.releaseGain();
}

/** What is added to nested absmax. Visible behind the consumers' next barrier. */
__device__ __forceinline__ void readOffsets(const Problem& p, const Memory& memory) {
  BlockData* const blocks = sharedPointer<BlockData>(memory.blocks);
  for (int i = static_cast<int>(threadIdx.x); i < p.blockCount * kDecoderMatrices; i += kConsumerThreads)
    blocks[i / kDecoderMatrices].offset[i % kDecoderMatrices] = *p.offsets[i];
}

/** Warps 0 … 15. */
template <typename T, bool kNested>
__device__ __forceinline__ void runBlocks(const Problem& p, const DecoderStep& step, const Memory& memory) {
  const int number = *step.step;
  putInput<T>(p, step.x, Tag(number, p.blockCount, 0));
  const float factor = fourbit::fillPairTable<T>(memory.table, p.codeTable, kConsumerThreads);
  if (kNested && threadIdx.x < 256)
    fourbit::storeShared(memory.byteTable + 4 * threadIdx.x, p.nestedTable[threadIdx.x]);
  if (kNested) readOffsets(p, memory);
  const BlockData* const blocks = sharedPointer<BlockData>(memory.blocks);
  Multiplier<T, kNested> product(p, memory);
#pragma unroll 1
  for (int b = 0; b < p.blockCount; ++b) {
    const Tag before(number, p.blockCount, b), tag(number, p.blockCount, b + 1);
#pragma unroll 1
    for (int kind = 0; kind < kProductGroups; ++kind) {
      const Group group(p, kind);
      if (kind == kOutputProduct) attend<T>(p, step.positions, blocks[b], tag, memory);
      if (group.tiles == 0) continue;
      stageInput(p, group, before, tag, memory, product);
      std::uint32_t* const results = kind == kAttentionProducts ? p.words.projected
                                     : kind == kOutputProduct   ? p.words.middle
                                     : kind == kFfnProducts     ? p.words.activation
                                                                : p.words.stream;
      const std::uint32_t* const residual = !group.adds()            ? nullptr
                                            : kind == kOutputProduct ? p.words.stream
                                                                     : p.words.middle;
      T* const y = kind == kDownProduct && b + 1 == p.blockCount ? static_cast<T*>(step.y) : nullptr;
      const Output<T> out{group, blocks[b], results, tag, residual, kind == kOutputProduct ? before : tag, y};
      multiply(p, group, product, memory.table, factor, out);
    }
  }
}

template <typename T, bool kNested>
__global__ void __launch_bounds__(kThreads, 1)
    decodeBlocks(const __grid_constant__ Problem p, const __grid_constant__ DecoderStep step) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const Memory memory(bytes, p, Stage<kNested>::kBytes);
  if (threadIdx.x == kConsumerThreads) {
    for (int slot = 0; slot < memory.stages; ++slot) {
      ptx::initBarrier(memory.full(slot), 1);
      ptx::initBarrier(memory.empty(slot), kHalfWarps);
    }
    ptx::fenceBarrierInit();
  }
  const int words = p.blockCount * static_cast<int>(sizeof(BlockData) / 4);
  for (int i = static_cast<int>(threadIdx.x); i < words; i += kThreads)
    sharedPointer<std::uint32_t>(memory.blocks)[i] = reinterpret_cast<const std::uint32_t*>(p.blocks)[i];
  __syncthreads();
  if (threadIdx.x >= kConsumerThreads) {
    if (threadIdx.x == kConsumerThreads) Copier<kNested>(p, memory).run();
    return;
  }
  runBlocks<T, kNested>(p, step, memory);
}

Maps mapsOf(const WeightView& w) {
  const Index lines = w.cols / kLineValues, scaleBytes = w.absmax.plain ? sizeof(float) : 1;
  const void* const scales = w.absmax.plain ? static_cast<const void*>(w.absmax.plain) : w.absmax.codes;
  return {tensorMap<3>(w.codes, {kLine, w.rows, lines}, {w.cols / 2, kLine},
                       {kLine, kTileRows, kStageValues / kLineValues}, CU_TENSOR_MAP_SWIZZLE_128B),
          tensorMap<2>(scales, {w.cols / kBlock * scaleBytes, w.rows}, {w.cols / kBlock * scaleBytes},
                       {kScalesPerRow * scaleBytes, kTileRows},
                       w.absmax.plain ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE)};
}

using Kernel = void (*)(Problem, DecoderStep);

Kernel kernelFor(ScalarType scalar, bool nested) {
  Kernel kernel = nullptr;
  dispatchSixteenBits(scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    kernel = nested ? decodeBlocks<T, true> : decodeBlocks<T, false>;
  });
  return kernel;
}

}  // namespace

BlockMaps mapsOf(const DecoderBlock& block) {
  BlockMaps maps;
  for (int m = 0; m < kDecoderMatrices; ++m) maps.matrices[m] = mapsOf(block.weights[m]);
  return maps;
}

bool fits(ScalarType scalar, bool nested, Context& context) {
  const DeviceGuard guard(context.device());
  const Kernel kernel = kernelFor(scalar, nested);
  int together = 0, blocks = 0;
  EIGENQ_CUDA_CHECK(cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, context.device()));
  EIGENQ_CUDA_CHECK(allowSharedMemory(reinterpret_cast<const void*>(kernel), context.device(), kSharedBytes));
  EIGENQ_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, kSharedBytes));
  return together != 0 && blocks > 0;
}

void launch(const Problem& problem, const DecoderStep& step, ScalarType scalar, bool nested, Context& context) {
  LaunchShape shape{dim3(static_cast<unsigned>(context.multiprocessors())), kThreads, kSharedBytes};
  shape.together = true;
  internal::launch("decodeBlocks", kernelFor(scalar, nested), shape, context, problem, step);
}

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
