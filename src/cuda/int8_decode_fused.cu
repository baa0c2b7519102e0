// SPDX-License-Identifier: MPL-2.0
// int8_decode_fused.cu: LLM.int8() for a few rows of X in one launch: quantised, searched for outliers and multiplied.
//
//   once a block     X ──→ row stats, outlier columns ──→ codes of X and the list of these columns, in shared memory
//   for its tiles    16 rows of W, streamed: int8_decode.cuh; outliers and epilogue by the thread that stores a value
//
// Traffic  1 B a weight. X is read twice by every block, from the caches: 2 blocks a multiprocessor are 4 MB of it for
//          one row of 8192 halves.
// Work     some 12 instructions a value of X and block, which is why they are few: 32768 values take a block 2 us. The
//          first weights are under way meanwhile. Quantised apart, X takes a launch, or with outliers five.
// Needs    M ≤ 8, M·k ≤ 32768, contiguous rows of X in Y's scalar type, rows of W at 16-byte boundaries.
#include <cassert>

#include "epilogue.cuh"
#include "int8_codes.cuh"
#include "int8_decode.cuh"
#include "int8_scale.cuh"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace decode;

constexpr int kMostTokens = 8;
constexpr Index kMostValues = 32768;
constexpr int kBlocksPerMultiprocessor = 2;

struct FusedArgs {
  QuantizedProduct p;
  Index codeStride;  // of a row of X in shared memory
  bool alignedX;
};

/** Beside a block's arrays of variable size. */
struct Fixed {
  int parts[kWarps * kMaxTokens * kRows];
  float warpLargest[kMostTokens][kWarps];
  bool warpHoldsNaN[kMostTokens][kWarps];
  float stats[kMostTokens];
  int count;
};

/** Shared memory: what every thread has to know of X. */
struct Quantised {
  std::int8_t* codes;      // row i at i·codeStride
  std::uint32_t* mask;     // a bit a column: an outlier
  std::uint16_t* columns;  // those, ascending
};

constexpr Index maskWords(Index depth) { return (depth + 31) / 32; }

/** Row i of X is at 64·i bytes modulo 128: the 16-byte loads of eight lanes, two rows by four columns, meet all banks.
 */
constexpr Index sharedStride(Index depth) { return roundUp(depth, 128) + 64; }

__host__ __device__ constexpr Index codeBytes(Index rows, Index stride) { return (rows * stride + 15) / 16 * 16; }

__device__ __forceinline__ Quantised arrange(std::int8_t* memory, const FusedArgs& a) {
  Quantised q;
  q.codes = memory;
  q.mask = reinterpret_cast<std::uint32_t*>(memory + codeBytes(a.p.x.rows, a.codeStride));
  q.columns = reinterpret_cast<std::uint16_t*>(q.mask + (a.p.x.cols + 31) / 32);
  return q;
}

/** Calls f(column, eight values) for this thread's part of a row, zeros behind its end. */
template <typename T, typename F>
__device__ __forceinline__ void forEachEight(const FusedArgs& a, int row, F&& f) {
  const T* const from = static_cast<const T*>(a.p.x.data) + row * a.p.x.rowStride;
  const int depth = static_cast<int>(a.p.x.cols);
#pragma unroll 2
  for (int k = static_cast<int>(threadIdx.x) * kEight; k < depth; k += kThreads * kEight)
    f(k, loadEight(from + k, depth - k, a.alignedX));
}

/** This warp's part of a row: its largest magnitude that is no outlier, and whether it holds a NaN; marks outliers. */
template <typename T>
__device__ __forceinline__ void inspect(const FusedArgs& a, const Quantised& q, int row, Fixed& shared) {
  const float threshold = a.p.w.outlierThreshold;
  float largest = 0;
  bool nan = false;
  forEachEight<T>(a, row, [&](int k, const EightValues<T>& v) {
    nan = nan || holdsNaN(v);
    if (!(threshold > 0)) {
      largest = fmaxf(largest, absmaxOf(v));
      return;
    }
    float f[kEight];
    toFloats(v, f);
    std::uint32_t outliers = 0;
#pragma unroll
    for (int e = 0; e < kEight; ++e) {
      const bool outlier = fabsf(f[e]) >= threshold;
      outliers |= static_cast<std::uint32_t>(outlier) << e;
      largest = fmaxf(largest, outlier ? 0.0f : fabsf(f[e]));
    }
    if (outliers) atomicOr(&q.mask[k / 32], outliers << (k % 32));
  });
  for (int distance = 16; distance > 0; distance /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
  nan = __any_sync(0xffffffffu, nan);
  if (threadIdx.x % 32 != 0) return;
  shared.warpLargest[row][threadIdx.x / 32] = largest;
  shared.warpHoldsNaN[row][threadIdx.x / 32] = nan;
}

/** Codes of a row. Behind its last column, and in outlier columns, they are 0. */
template <typename T>
__device__ __forceinline__ void encode(const FusedArgs& a, const Quantised& q, int row, Fixed& shared) {
  float largest = 0;
  bool nan = false;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    largest = fmaxf(largest, shared.warpLargest[row][w]);
    nan = nan || shared.warpHoldsNaN[row][w];
  }
  const float absmax = flushedAbsmax(largest), scale = EigenQ::internal::int8Scale(absmax);
  if (threadIdx.x == 0) shared.stats[row] = nan ? CUDART_NAN_F : absmax;
  forEachEight<T>(a, row, [&](int k, const EightValues<T>& v) {
    std::uint64_t codes = encodeEight(v, scale);
    const std::uint32_t outliers = q.mask[k / 32] >> (k % 32) & 0xff;
    if (outliers) {
      for (int e = 0; e < kEight; ++e) {
        if (outliers >> e & 1) codes &= ~(std::uint64_t{0xff} << (8 * e));
      }
    }
    *reinterpret_cast<std::uint64_t*>(q.codes + row * a.codeStride + k) = codes;
  });
}

/** The first warp lists the marked columns. */
__device__ __forceinline__ void listOutliers(const FusedArgs& a, const Quantised& q, Fixed& shared) {
  const int lane = static_cast<int>(threadIdx.x), words = static_cast<int>((a.p.x.cols + 31) / 32);
  int listed = 0;
  for (int first = 0; first < words; first += 32) {
    std::uint32_t mask = first + lane < words ? q.mask[first + lane] : 0;
    const int mine = __popc(mask);
    int end = mine;  // of this lane's columns, by a scan over the lanes
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(0xffffffffu, end, distance);
      if (lane >= distance) end += before;
    }
    for (int at = listed + end - mine; mask; mask &= mask - 1)
      q.columns[at++] = static_cast<std::uint16_t>((first + lane) * 32 + __ffs(static_cast<int>(mask)) - 1);
    listed += __shfl_sync(0xffffffffu, end, 31);
  }
  if (lane == 0) shared.count = listed;
}

template <typename T>
__device__ __forceinline__ void quantise(const FusedArgs& a, const Quantised& q, Fixed& shared) {
  const int words = static_cast<int>((a.p.x.cols + 31) / 32);
  for (int w = static_cast<int>(threadIdx.x); w < words; w += kThreads) q.mask[w] = 0;
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  const int rows = static_cast<int>(a.p.x.rows);
  for (int row = 0; row < rows; ++row) inspect<T>(a, q, row, shared);
  __syncthreads();
  for (int row = 0; row < rows; ++row) encode<T>(a, q, row, shared);
  if (a.p.w.outlierThreshold > 0 && threadIdx.x < 32) listOutliers(a, q, shared);
  __syncthreads();
}

/** One value of Y, by its thread. */
template <typename T>
__device__ __forceinline__ void finish(const FusedArgs& a, const Quantised& q, const Fixed& shared, int token, int row,
                                       Index j) {
  float outliers = 0;
#pragma unroll 4
  for (int o = 0; o < shared.count; ++o) {
    const Index k = q.columns[o];
    outliers = fmaf(readFloat(a.p.x, token, k), a.p.w.coeff(j, k), outliers);
  }
  const double sum = exactDouble(sumOfWarps(shared.parts, token, row));
  const float v = scaledSum(sum, rowScale(shared.stats[token]), a.p.w.rowAbsmax[j], outliers);
  storeResult<T>(a.p.y, a.p.epilogue, v, token, j);
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor) fusedKernel(const __grid_constant__ FusedArgs a) {
  extern __shared__ __align__(16) std::int8_t memory[];
  __shared__ Fixed shared;
  joinStream();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const Index depth = a.p.w.cols, tiles = (a.p.w.rows + kRows - 1) / kRows;
  const Quantised q = arrange(memory, a);
  const bool present = g < a.p.x.rows;
  const std::int8_t* const x = q.codes + g * a.codeStride;
  const Index begin = static_cast<Index>(warp) * kUnroll * kStep + 16 * c;

  Index tile = blockIdx.x;
  WeightRows rows(a.p.w, tile * kRows, g);
  WeightBatch w;
  load<true>(rows, begin, depth, w);
  quantise<T>(a, q, shared);

  while (true) {
    int sums[1][4] = {};
    const Index next = tile + gridDim.x;
    for (Index k = begin; k - 16 * c < depth;) {
      const Index now = k;
      WeightBatch current = w;
      k += kTurn;
      const bool more = k - 16 * c < depth;
      // The loads for the next turn, or for the next tile's first, are under way while this one is multiplied.
      if (!more && next < tiles) rows = WeightRows(a.p.w, next * kRows, g);
      if (more || next < tiles) load<true>(rows, more ? k : begin, depth, w);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        uint4 codes = make_uint4(0, 0, 0, 0);
        if (present && now + u * kStep < depth) codes = *reinterpret_cast<const uint4*>(x + now + u * kStep);
        multiplyCodes(current.low[u], current.high[u], codes, sums[0]);
      }
    }
    storeParts<1>(sums, warp, lane, shared.parts);
    __syncthreads();
    const int token = thread / kRows, row = thread % kRows;
    const Index j = tile * kRows + row;
    if (token < a.p.y.rows && j < a.p.w.rows) finish<T>(a, q, shared, token, row, j);
    tile = next;
    if (tile >= tiles) break;
    __syncthreads();  // the parts have been used
  }
}

Index sharedBytes(const QuantizedProduct& p) {
  return codeBytes(p.x.rows, sharedStride(p.x.cols)) + maskWords(p.x.cols) * 4 + roundUp(p.x.cols * 2, 4);
}

template <typename T>
void launchAs(const QuantizedProduct& p, Context& context) {
  const FusedArgs args = {p, sharedStride(p.x.cols), hasAlignedRows(p.x)};
  const Index tiles = blocksFor(p.w.rows), most = kBlocksPerMultiprocessor * context.multiprocessors();
  const LaunchShape shape{static_cast<unsigned>(tiles < most ? tiles : most), kThreads,
                          static_cast<std::size_t>(sharedBytes(p))};
  launchEarly("int8.decode.fused", fusedKernel<T>, shape, context, args);
}

}  // namespace

const char* refuseInt8DecodeFused(const QuantizedProduct& p, const Context& context) {
  if (p.w.format != WeightFormat::kInt8) return "needs int8 weights";
  if (!p.w.int8Activations) return "the activations stay as they are";
  if (!p.transposed) return "computes X·Wᵀ only";
  if (p.x.rows > kMostTokens) return "more than 8 rows of X";
  // Measured: without outliers the quantiser ahead costs less than quantising several rows in every block.
  if (p.x.rows > 1 && p.w.outlierThreshold == 0) return "several rows of X without outliers";
  if (p.x.rows * p.x.cols > kMostValues) return "X is too large for every block to quantise";
  if (p.x.cols == 0) return "nothing to sum";
  if (p.x.scalar != p.y.scalar) return "X and Y are of different scalar types";
  if (p.x.cols > 1 && p.x.colStride != 1) return "the rows of X are not contiguous";
  if (!hasAlignedRows(p.w)) return "rows of the weight do not lie between 16-byte boundaries";
  if (sharedBytes(p) + static_cast<Index>(sizeof(Fixed)) > static_cast<Index>(context.state().sharedMemoryPerBlock))
    return "the device has too little shared memory for X";
  return nullptr;
}

void runInt8DecodeFused(const QuantizedProduct& p, Context& context) {
  forResult(p.y, [&](auto tag) { launchAs<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
