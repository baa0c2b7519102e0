// SPDX-License-Identifier: MPL-2.0
// absmax.cu: the mean of statistics, and nested statistics on top of it, without the host ever seeing a value.
#include "quantizers.h"
#include "tree_sum.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

struct Itself {
  __device__ __forceinline__ double operator()(double v) const { return v; }
};

struct StoreMean {
  Index count;
  float* mean;

  __device__ __forceinline__ void operator()(double sum) const {
    *mean = count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
  }
};

}  // namespace

void meanOf(const float* values, Index count, float* mean, Context& context) {
  treeSum("meanOf", values, count, Itself(), StoreMean{count, mean}, context);
}

void quantizeNested(const float* absmax, Index blocks, Index nestedBlockSize, std::uint8_t* codes, float* absmax2,
                    float* offset, Context& context) {
  meanOf(absmax, blocks, offset, context);
  quantizeAbsmax(absmax, blocks, offset, nestedBlockSize, codes, absmax2, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
