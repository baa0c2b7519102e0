// SPDX-License-Identifier: MPL-2.0
// The row of the largest entry of each column.
//
//   column j │ pack │ pack │ …    one block a column; a thread keeps the best of what it sees, then the threads agree.
//                                 Larger values win, then lower rows, so that the order does not matter; a NaN beats
//                                 all
//
// Traffic  x once: 250 KB for the logits of one token over a large vocabulary.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_blockwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr std::int32_t kNone = std::numeric_limits<std::int32_t>::max(), kNotANumber = -1;

struct Best {
  float value;
  std::int32_t row;
};

struct Better {
  __device__ __forceinline__ Best operator()(const Best& a, const Best& b) const {
    if (a.row == kNotANumber || b.row == kNotANumber) return {0, kNotANumber};
    const bool first = a.value > b.value || (a.value == b.value && a.row < b.row);
    return first ? a : b;
  }
};

__device__ __forceinline__ Best shuffleXor(const Best& v, unsigned mask) {
  return {__shfl_xor_sync(kAllLanes, v.value, mask), __shfl_xor_sync(kAllLanes, v.row, mask)};
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kMaxThreads)
    argmaxKernel(Columns<const T> x, std::int32_t* argmax, Index rows, Index cols) {
  joinStream();
  for (Index j = blockIdx.x; j < cols; j += gridDim.x) {
    Best best = {kNegativeInfinity, kNone};
    for (Index i = Index{threadIdx.x} * kWidth; i < rows; i += Index{blockDim.x} * kWidth) {
      float v[kWidth];
      load(x(j) + i, v);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        const bool number = v[k] == v[k];
        best = Better()(best, {v[k], number ? static_cast<std::int32_t>(i + k) : kNotANumber});
      }
    }
    best = blockReduce(best, Better());
    if (threadIdx.x == 0) argmax[j] = best.row;
  }
}

}  // namespace

void argmax(const ConstDenseView& x, std::int32_t* rows, Context& context) {
  assert((x.rows > 0 || x.cols == 0) && "argmax: there is no entry to choose");
  const Walk walk({x});
  if (walk.empty()) return;
  if (walk.rows > kNone) throw std::invalid_argument("argmax: expected fewer than 2^31 rows");
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = decltype(width)::value;
    const auto threads = std::min<Index>(kMaxThreads, (walk.rows / kWidth + kWarp - 1) / kWarp * kWarp);
    launchEarly("argmax", argmaxKernel<T, kWidth>, {dim3(gridFor(walk.cols)), static_cast<unsigned>(threads)}, context,
                Columns<const T>(x), rows, walk.rows, walk.cols);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
