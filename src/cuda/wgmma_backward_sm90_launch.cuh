// SPDX-License-Identifier: MPL-2.0
// wgmma_backward_sm90_launch.cuh: the kernels of wgmma_backward_sm90.cuh, and on how many slices of W's rows they run.
#ifndef EIGENQ_CUDA_WGMMA_BACKWARD_SM90_LAUNCH_CUH
#define EIGENQ_CUDA_WGMMA_BACKWARD_SM90_LAUNCH_CUH

#include <algorithm>
#include <limits>

#include "alignment.h"
#include "dense_view.h"
#include "epilogue.cuh"
#include "fourbit_decode.h"
#include "op_launch.cuh"
#include "tensor_map.h"
#include "wgmma_backward_sm90_multiply.cuh"
#include "wgmma_backward_sm90_scales.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace backward {

template <typename T, typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    multiplyBackward(const __grid_constant__ Problem p, const __grid_constant__ CUtensorMap codes,
                     const __grid_constant__ CUtensorMap x) {
  using M = Memory<S>;
  extern __shared__ __align__(1024) unsigned char bytes[];
  if (ptx::sharedAddress(bytes) != M::kStart) __trap();
  constexpr int kMultipliers = S::kGroups * kGroup;
  if (threadIdx.x == kMultipliers) {
    for (int s = 0; s < M::kSlots; ++s) {
      ptx::initBarrier(M::full(s), 2);  // copies and absmax
      ptx::initBarrier(M::empty(s), S::kTurns ? kGroup / 32 : kMultipliers / 32);
    }
    ptx::fenceBarrierInit();
  }
  ptx::allowNextKernel();
  ptx::waitForLastKernel();
  float factor = 1;
  const bool nested = S::Weights::kHasTable && !p.w.absmax.plain;
  if (S::Weights::kHasTable) factor = fillTable<T, S>(M::kTable, p.w.codeTable);
  if (nested && threadIdx.x < 256)
    fourbit::storeShared(M::kByteTable + 4 * threadIdx.x, p.w.absmax.codeTable[threadIdx.x]);
  __syncthreads();
  if (threadIdx.x < kMultipliers) {
    ptx::takeRegisters<S::kMultiplierRegisters>();
    consume<T, S>(p);
    return;
  }
  ptx::giveRegisters<S::kLoaderRegisters>();
  const int warp = static_cast<int>(threadIdx.x - kMultipliers) / 32;
  if (warp > 0) {
    if constexpr (!S::Weights::kHasTable) {
      loadScales<S, RowScales<T, S>>(p, warp - 1, factor);
    } else if (nested) {
      loadScales<S, BlockScales<S, true>>(p, warp - 1, factor);
    } else {
      loadScales<S, BlockScales<S, false>>(p, warp - 1, factor);
    }
  } else if (threadIdx.x == kMultipliers) {
    copyStages<S>(p, codes, x);
  }
}

constexpr int kRun = 4;  // columns
constexpr int kFinishThreads = 256;

/** Y = epilogue(Σ slices), four columns a thread. \a vectors  the epilogue is none, and Y takes four at a time */
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    addBackwardSlices(const float* sums, int slices, DenseView y, Epilogue e, bool vectors) {
  ptx::allowNextKernel();
  ptx::waitForLastKernel();
  const Index entries = y.rows * y.cols, first = kRun * (Index{blockIdx.x} * kFinishThreads + threadIdx.x);
  if (first >= entries) return;
  float4 sum = *reinterpret_cast<const float4*>(sums + first);
  for (int s = 1; s < slices; ++s) {
    const float4 v = *reinterpret_cast<const float4*>(sums + s * entries + first);
    sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
  }
  const Index i = first / y.cols, j = first % y.cols;
  if (vectors) {
    *reinterpret_cast<uint2*>(static_cast<T*>(y.data) + i * y.rowStride + j) =
        make_uint2(packPair<T>(sum.x, sum.y), packPair<T>(sum.z, sum.w));
    return;
  }
  storeResult<T>(y, e, sum.x, i, j);
  storeResult<T>(y, e, sum.y, i, j + 1);
  storeResult<T>(y, e, sum.z, i, j + 2);
  storeResult<T>(y, e, sum.w, i, j + 3);
}

/** Whether runs of columns may be stored and loaded at once. */
template <typename Void>
bool takesRuns(const EigenQ::internal::BasicDenseView<Void>& v) {
  return v.colStride == 1 && v.rowStride % kRun == 0 && isAligned(v.data, 2 * kRun);
}

/** How W's rows are split, by estimate. */
struct Split {
  Index slices = 1;
  Index steps = 1;  // stages of a slice
};

/** \param stage  microseconds of a stage of a tile, measured */
template <typename S>
Split splitOf(const QuantizedProduct& p, double stage, Index multiprocessors) {
  constexpr Index kMostSlices = 16;
  // The second kernel, and the second-level cache's time for writing and reading sums.
  constexpr double kSecondKernel = 2.5, kBytesPerMicrosecond = 4.2e6;
  const Index stages = ceilDiv(p.w.rows, kStageRows);
  const Index tiles = ceilDiv(p.y.rows, S::kTokens) * ceilDiv(p.y.cols, S::kCols);
  Split best;
  double least = std::numeric_limits<double>::infinity();
  for (Index wanted = 1; wanted <= kMostSlices; ++wanted) {
    const Index steps = roundUp(ceilDiv(stages, wanted), S::kStepMultiple), slices = ceilDiv(stages, steps);
    const double bytes = 8.0 * static_cast<double>(slices) * static_cast<double>(p.y.rows * p.y.cols);
    const double time = static_cast<double>(ceilDiv(tiles * slices, multiprocessors) * steps) * stage +
                        (slices > 1 ? kSecondKernel + bytes / kBytesPerMicrosecond : 0);
    if (time >= least) continue;
    least = time;
    best = {slices, steps};
  }
  return best;
}

template <typename T, typename S>
void launchShape(const QuantizedProduct& p, double stage, Context& context) {
  Scratch scratch(context);
  const Split split = splitOf<S>(p, stage, context.multiprocessors());
  const PackedRows x = packRows(p.x, p.x.scalar, scratch, context);
  const Index xStride = p.x.rows > 1 ? x.stride : roundUp(p.x.cols, 8);  // of one row it may be anything
  const bool residual = p.epilogue.residual.data != nullptr;
  const bool vectors = addsOnly(p.epilogue) && takesRuns(p.y) && (!residual || takesRuns(p.epilogue.residual));
  const bool inPlace = vectors && split.slices == 1;
  Problem problem{};
  problem.w = p.w;
  problem.y = p.y;
  problem.residual = p.epilogue.residual;
  problem.residualSign = p.epilogue.residualSign;
  if (!inPlace) problem.sums = scratch.array<float>(split.slices * p.y.rows * p.y.cols);
  problem.steps = static_cast<int>(split.steps);
  problem.slices = static_cast<int>(split.slices);
  problem.tilesTokens = static_cast<int>(ceilDiv(p.y.rows, S::kTokens));
  problem.tilesCols = static_cast<int>(ceilDiv(p.y.cols, S::kCols));

  constexpr Index kBits = S::Weights::kBits;
  const Index wStride = p.w.rows > 1 ? p.w.stride : roundUp(p.w.cols, 256);  // of one row it may be anything
  const CUtensorMap codes =
      tensorMap<2>(static_cast<const char*>(p.w.codes) + p.w.offset * kBits / 8, {p.w.cols * kBits / 8, p.w.rows},
                   {wStride * kBits / 8}, {S::kStrip, kStageRows},
                   S::kStrip == 128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B);
  const CUtensorMap rows = tensorMap<2>(x.data, {2 * p.w.rows, p.y.rows}, {2 * xStride}, {2 * kStageRows, S::kTokens},
                                        CU_TENSOR_MAP_SWIZZLE_128B);
  const Index items = Index{problem.tilesTokens} * problem.tilesCols * problem.slices;
  const auto blocks = static_cast<unsigned>(std::min<Index>(items, context.multiprocessors()));
  launchEarly("wgmma.backward", multiplyBackward<T, S>, {blocks, S::kThreads, kSharedBytes}, context, problem, codes,
              rows);
  if (inPlace) return;
  const auto runs = static_cast<unsigned>(ceilDiv(p.y.rows * p.y.cols, kRun * kFinishThreads));
  launchEarly("adding slices", addBackwardSlices<T>, {runs, kFinishThreads}, context, problem.sums, problem.slices, p.y,
              p.epilogue, vectors && !residual);
}

}  // namespace backward
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_WGMMA_BACKWARD_SM90_LAUNCH_CUH
