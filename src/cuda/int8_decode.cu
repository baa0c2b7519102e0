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

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace decode;

constexpr int kUnroll = 4;  // steps whose loads are under way together

/** What a lane multiplies in kUnroll steps. */
template <int kTiles>
struct Batch {
  uint4 low[kUnroll];             // row g of W
  uint4 high[kUnroll];            // row g + 8
  uint4 tokens[kUnroll][kTiles];  // row g of X, and g + 8
};

/** A lane's own rows. */
template <int kTiles>
struct Rows {
  const std::int8_t* low;
  const std::int8_t* high;
  const std::int8_t* tokens[kTiles];
  bool present[kTiles];
};

template <int kTiles, bool kAligned>
__device__ __forceinline__ void load(const Rows<kTiles>& rows, Index k, Index depth, Batch<kTiles>& batch) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    batch.low[u] = loadCodes<kAligned>(rows.low, k + u * kStep, depth);
    batch.high[u] = loadCodes<kAligned>(rows.high, k + u * kStep, depth);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const bool there = rows.present[t] && k + u * kStep < depth;  // codes of X are padded to 16
      batch.tokens[u][t] = there ? ptx::loadCached(rows.tokens[t] + k + u * kStep) : make_uint4(0, 0, 0, 0);
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void multiply(const Batch<kTiles>& batch, int (&sums)[kTiles][4]) {
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const uint4& low = batch.low[u];
    const uint4& high = batch.high[u];
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4& x = batch.tokens[u][t];
      ptx::mmaS8(sums[t], low.x, high.x, low.y, high.y, x.x, x.y);
      ptx::mmaS8(sums[t], low.z, high.z, low.w, high.w, x.z, x.w);
    }
  }
}

template <typename T, int kTiles, bool kAligned>
__global__ void __launch_bounds__(kThreads) decodeKernel(const __grid_constant__ DeviceDecomposedProduct p) {
  __shared__ int parts[kWarps * kMaxTokens * kRows];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const Index firstRow = static_cast<Index>(blockIdx.x) * kRows, n = p.w.rows, depth = p.w.cols;
  const int m = static_cast<int>(p.y.rows);

  // Rows beyond the last read the last: their sums are not stored.
  const std::int8_t* const codes = static_cast<const std::int8_t*>(p.w.codes) + p.w.offset;
  const Index lastRow = n - 1;
  Rows<kTiles> rows;
  rows.low = codes + (firstRow + g < lastRow ? firstRow + g : lastRow) * p.w.stride;
  rows.high = codes + (firstRow + g + 8 < lastRow ? firstRow + g + 8 : lastRow) * p.w.stride;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
    rows.present[t] = t * 8 + g < m;
    rows.tokens[t] = p.activations.codes + (t * 8 + g) * p.activations.stride;
  }

  constexpr Index kTurn = static_cast<Index>(kWarps) * kUnroll * kStep;
  Index k = static_cast<Index>(warp) * kUnroll * kStep + 16 * c;
  Batch<kTiles> batch;
  load<kTiles, kAligned>(rows, k, depth, batch);

  const int token = thread / kRows, row = thread % kRows;  // the value of Y that this thread stores
  const Index j = firstRow + row;
  const bool stores = token < m && j < n;
  float outliers = 0;
  if (const int count = outlierCount(p.activations)) {
    if (stores) outliers = sumOutliers(p, token, j, 0, count, 0.0f);
  }

  int sums[kTiles][4] = {};
  while (true) {
    multiply<kTiles>(batch, sums);
    k += kTurn;
    if (k - 16 * c >= depth) break;
    load<kTiles, kAligned>(rows, k, depth, batch);
  }

  storeParts<kTiles>(sums, warp, lane, parts);
  __syncthreads();
  if (!stores) return;
  const double sum = exactDouble(sumOfWarps(parts, token, row));
  const float v = scaledSum(sum, rowScale(p.activations.rowStats[token]), p.w.rowAbsmax[j], outliers);
  storeResult<T>(p.y, p.epilogue, v, token, j);
}

template <typename T>
void launch(const DeviceDecomposedProduct& p, Context& context) {
  const unsigned blocks = blocksFor(p.w.rows);
  if (!hasAlignedRows(p.w)) {
    decodeKernel<T, 2, false><<<blocks, kThreads, 0, context.stream()>>>(p);
  } else if (p.y.rows > 8) {
    decodeKernel<T, 2, true><<<blocks, kThreads, 0, context.stream()>>>(p);
  } else {
    decodeKernel<T, 1, true><<<blocks, kThreads, 0, context.stream()>>>(p);
  }
  EIGENQ_CUDA_CHECK_LAUNCH("int8.decode");
}

}  // namespace

const char* refuseDecomposedDecode(const DeviceDecomposedProduct& p, const Context&) {
  if (p.y.rows > kMaxTokens) return "more than 16 rows of X";
  if (p.w.cols > kInt8MaxDepth) return "32 bits may not hold the sums of so many columns";
  return nullptr;
}

void runDecomposedDecode(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DeviceGuard guard(context.device());
  dispatchDeviceScalar(p.y.scalar, [&](auto tag) { launch<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
