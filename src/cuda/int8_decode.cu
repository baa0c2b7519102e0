// SPDX-License-Identifier: MPL-2.0
// int8_decode.cu: LLM.int8() for up to 16 rows of X, by m16n8k32 products of codes; int8_decode.cuh draws the operands.
//
// Traffic  1 B a weight, read once; the codes of X come from the first-level cache. 28672×8192: 55 us at 4.3 TB/s.
// Work     2·M operations a weight on tensor cores that could do two hundred times that: bound by memory alone.
// Shape    A block takes 16 rows of W over the whole depth, its warps in turn 256 columns each: 8 loads of 16 bytes a
//          lane under way, 64 KB a multiprocessor with 16 warps, where 4.3 TB/s times 700 ns of latency ask for 23 KB.
// Outliers A thread owns one value of Y and adds its outlier columns before its warp has seen a weight: while the first
//          loads are under way. Those sectors of W are the block's own, and come with them.
// Needs    M ≤ 16, k ≤ 2¹⁷. Rows of W at 16-byte boundaries; others are read bytewise, several times slower.
#include "epilogue.cuh"
#include "int8_decode.cuh"
#include "int8_scale.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace decode;

/** The rows of X that a lane reads, and what it reads of them in kUnroll steps. */
template <int kTiles>
struct Tokens {
  const std::int8_t* rows[kTiles];
  bool present[kTiles];
  uint4 codes[kUnroll][kTiles];

  __device__ __forceinline__ Tokens(const DeviceDecomposedProduct& p, int g) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      present[t] = t * 8 + g < p.y.rows;
      rows[t] = p.activations.codes + (t * 8 + g) * p.activations.stride;
    }
  }
  __device__ __forceinline__ void load(Index k, Index depth) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const bool there = present[t] && k + u * kStep < depth;  // codes of X are padded to 16
        codes[u][t] = there ? ptx::loadCached(rows[t] + k + u * kStep) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};

template <int kTiles>
__device__ __forceinline__ void multiply(const WeightBatch& w, const Tokens<kTiles>& x, int (&sums)[kTiles][4]) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) multiplyCodes(w.low[u], w.high[u], x.codes[u][t], sums[t]);
  }
}

template <typename T, int kTiles, bool kAligned>
__global__ void __launch_bounds__(kThreads) decodeKernel(const __grid_constant__ DeviceDecomposedProduct p) {
  __shared__ int parts[kWarps * kMaxTokens * kRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const Index firstRow = static_cast<Index>(blockIdx.x) * kRows, n = p.w.rows, depth = p.w.cols;
  const int m = static_cast<int>(p.y.rows);

  const WeightRows rows(p.w, firstRow, g);
  Index k = static_cast<Index>(warp) * kUnroll * kStep + 16 * c;
  WeightBatch w;
  Tokens<kTiles> x(p, g);
  load<kAligned>(rows, k, depth, w);
  x.load(k, depth);

  const int token = thread / kRows, row = thread % kRows;  // the value of Y that this thread stores
  const Index j = firstRow + row;
  const bool stores = token < m && j < n;
  float outliers = 0;
  if (const int count = outlierCount(p.activations)) {
    if (stores) outliers = sumOutliers(p, token, j, 0, count, 0.0f);
  }

  int sums[kTiles][4] = {};
  while (true) {
    multiply<kTiles>(w, x, sums);
    k += kTurn;
    if (k - 16 * c >= depth) break;
    load<kAligned>(rows, k, depth, w);
    x.load(k, depth);
  }

  storeParts<kTiles>(sums, warp, lane, parts);
  __syncthreads();
  if (!stores) return;
  const double sum = exactDouble(sumOfWarps(parts, token, row));
  const float v = scaledSum(sum, rowScale(p.activations.rowStats[token]), p.w.rowAbsmax[j], outliers);
  storeResult<T>(p.y, p.epilogue, v, token, j);
}

template <typename T>
void launchAs(const DeviceDecomposedProduct& p, Context& context) {
  const auto kernel = !hasAlignedRows(p.w) ? decodeKernel<T, 2, false>
                      : p.y.rows > 8       ? decodeKernel<T, 2, true>
                                           : decodeKernel<T, 1, true>;
  launch("int8.decode", kernel, {blocksFor(p.w.rows), kThreads}, context, p);
}

}  // namespace

const char* refuseDecomposedDecode(const DeviceDecomposedProduct& p, const Context&) {
  if (p.y.rows > kMaxTokens) return "more than 16 rows of X";
  if (p.w.cols > kInt8MaxDepth) return "32 bits may not hold the sums of so many columns";
  return nullptr;
}

void runDecomposedDecode(const DeviceDecomposedProduct& p, Context& context) {
  forResult(p.y, [&](auto tag) { launchAs<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
