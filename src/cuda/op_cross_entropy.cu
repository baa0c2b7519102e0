// SPDX-License-Identifier: MPL-2.0
// Cross-entropy of logits against one target a token, without the softmax in memory.
//
//   logits, column j │ pack │ pack │ …    one block a token: maximum and sum in one pass (op_blockwise.cuh)
//        └─► lse[j], loss of token j ─► one block sums the tokens in double: loss and weight, without the host
//
// Traffic  forward reads the logits once; backward reads them once and writes their gradient once, in place if asked.
//          An ignored token costs its target; its column is not read. In chunks the same kernels run on a few columns
//          after another, and the gradient takes the place of the logits before the next ones come.
// Work     one exp per logit: at 4.8 TB/s and 2 bytes a logit 2.4·10¹² a second, against 4·10¹² that 132 SMs at 1.8 GHz
//          compute (16 a clock each): memory is the limit.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 512;

__device__ __forceinline__ bool inRange(std::int32_t target, Index classes) {
  return target >= 0 && static_cast<Index>(target) < classes;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaxThreads)
    tokenLossKernel(Columns<const T> logits, Index classes, Index tokens, const std::int32_t* targets,
                    std::int32_t ignoreIndex, float* lse, float* tokenLoss) {
  for (Index j = blockIdx.x; j < tokens; j += gridDim.x) {
    const std::int32_t target = targets[j];
    const bool counted = target != ignoreIndex;
    float norm = 0, loss = 0;
    if (counted) {
      norm = columnLogSumExp<kWidth>(logits(j), classes).value();
      // NaN, not a read beyond the column: nobody can throw here.
      if (!inRange(target, classes)) norm = __int_as_float(0x7fffffff);
      loss = inRange(target, classes) ? norm - toFloat(logits(j)[target]) : norm;
    }
    if (threadIdx.x == 0) {
      lse[j] = norm;
      tokenLoss[j] = loss;
    }
  }
}

constexpr unsigned kTotalThreads = 1024;

__device__ __forceinline__ float weightOf(double counted, bool mean) {
  return mean && counted > 0 ? 1.0f / static_cast<float>(counted) : 1.0f;
}

__global__ void __launch_bounds__(kTotalThreads)
    totalLossKernel(const float* tokenLoss, const std::int32_t* targets, std::int32_t ignoreIndex, Index tokens,
                    bool mean, float* weight, DenseView loss) {
  double total = 0, counted = 0;
  for (Index j = threadIdx.x; j < tokens; j += kTotalThreads) {
    if (targets[j] == ignoreIndex) continue;
    total += static_cast<double>(tokenLoss[j]);
    counted += 1;
  }
  total = blockReduce(total, Plus());
  counted = blockReduce(counted, Plus());
  if (threadIdx.x != 0) return;
  const float w = weightOf(counted, mean);
  *weight = w;
  storeScalar(loss, total * static_cast<double>(w));
}

__global__ void __launch_bounds__(kTotalThreads)
    factorsKernel(const std::int32_t* targets, std::int32_t ignoreIndex, Index tokens, bool mean, float* factors) {
  double counted = 0;
  for (Index j = threadIdx.x; j < tokens; j += kTotalThreads) counted += targets[j] != ignoreIndex ? 1 : 0;
  counted = blockReduce(counted, Plus());
  if (threadIdx.x != 0) return;
  int exponent = 0;
  factors[0] = frexpf(weightOf(counted, mean), &exponent);
  factors[1] = ldexpf(1.0f, exponent);
  factors[2] = weightOf(counted, mean);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaxThreads)
    crossEntropyPullbackKernel(Columns<const T> logits, Index classes, Index tokens, const std::int32_t* targets,
                               std::int32_t ignoreIndex, const float* lse, const float* weight, ConstDenseView dloss,
                               Columns<T> dlogits, bool accumulate) {
  const float g = dloss.data ? loadScalar(dloss) * *weight : *weight;
  for (Index j = blockIdx.x; j < tokens; j += gridDim.x) {
    const std::int32_t target = targets[j];
    const bool counted = target != ignoreIndex;
    if (!counted && accumulate) continue;
    const float norm = lse[j];
    for (Index i = Index{threadIdx.x} * kWidth; i < classes; i += Index{blockDim.x} * kWidth) {
      float d[kWidth];
      if (counted) load(logits(j) + i, d);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const float p = counted ? g * expf(d[k] - norm) : 0.0f;
        d[k] = counted && i + k == static_cast<Index>(target) ? p - g : p;
      }
      store(dlogits(j) + i, d, accumulate);
    }
  }
}

void tokenLosses(const ConstDenseView& logits, const std::int32_t* targets, std::int32_t ignoreIndex, float* lse,
                 float* tokenLoss, Context& context) {
  if (logits.cols <= 0) return;
  dispatchWalk(Walk({logits}), [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launch("crossEntropy", tokenLossKernel<T, kWidth>,
           {dim3(gridFor(logits.cols)), threadsForColumn(logits.rows / kWidth)}, context, Columns<const T>(logits),
           logits.rows, logits.cols, targets, ignoreIndex, lse, tokenLoss);
  });
}

}  // namespace

void crossEntropyForward(const CrossEntropy& op, Context& context) {
  const Index tokens = op.logits.cols;
  Scratch scratch(context);
  float* const tokenLoss = scratch.array<float>(tokens);
  tokenLosses(op.logits, op.targets, op.ignoreIndex, op.lse, tokenLoss, context);
  launch("crossEntropyTotal", totalLossKernel, {dim3(1), kTotalThreads}, context, tokenLoss, op.targets, op.ignoreIndex,
         tokens, op.mean, op.weight, op.loss);
}

void crossEntropyBackward(const CrossEntropyBackward& op, Context& context) {
  const Walk walk({op.logits, asConst(op.dlogits)});
  if (walk.empty()) return;
  assert((op.dlogits.data != op.logits.data || !op.accumulate) &&
         "crossEntropyBackward: a gradient in place of the logits cannot accumulate");
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    launch("crossEntropyBackward", crossEntropyPullbackKernel<T, kWidth>,
           {dim3(gridFor(walk.cols)), threadsForColumn(walk.rows / kWidth)}, context, Columns<const T>(op.logits),
           walk.rows, walk.cols, op.targets, op.ignoreIndex, op.lse, op.weight, op.dloss, Columns<T>(op.dlogits),
           op.accumulate);
  });
}

void crossEntropyFactors(const ChunkedCrossEntropy& op, Context& context) {
  launch("crossEntropyFactors", factorsKernel, {dim3(1), kTotalThreads}, context, op.targets, op.ignoreIndex, op.tokens,
         op.mean, op.factors);
}

void crossEntropyChunk(const ChunkedCrossEntropy& op, const DenseView& logits, Index first, bool gradient,
                       Context& context) {
  assert(first >= 0 && first + logits.cols <= op.tokens && "crossEntropyChunk: more columns than tokens");
  Scratch scratch(context);
  float* const lse = scratch.array<float>(logits.cols);
  tokenLosses(asConst(logits), op.targets + first, op.ignoreIndex, lse, op.tokenLoss + first, context);
  if (!gradient) return;
  CrossEntropyBackward back;
  back.logits = asConst(logits);
  back.targets = op.targets + first;
  back.ignoreIndex = op.ignoreIndex;
  back.lse = lse;
  back.weight = op.factors;
  back.dlogits = logits;
  crossEntropyBackward(back, context);
}

void crossEntropyTotal(const ChunkedCrossEntropy& op, const DenseView& loss, Context& context) {
  launch("crossEntropyTotal", totalLossKernel, {dim3(1), kTotalThreads}, context, op.tokenLoss, op.targets,
         op.ignoreIndex, op.tokens, op.mean, op.factors + 2, loss);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
