// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_simt.cu: Y = epilogue(X·Wᵀ) for up to 16 rows of X, W in NF4 or FP4, in float arithmetic.
//
//   4 rows of W a CTA   │ word 0 … 31: warp 0 │ 32 … 63: warp 1 │ … │ warp 7 │ 256 …: warp 0 │    8 codes a word
//   a lane              one word of each row; their 8 values of X are read once for the four rows
//
// Traffic  0.5 B of codes + 4/64 B of absmax per weight from memory; X 4·M B per four weights from the first cache.
// Work     A shift, a mask and a load of the level per weight, M FMAs, and M/8 for absmax, which multiplies the sum of
//          a word: float sums of float levels, without a rounding of weights. Bound by memory at M = 1, by FMAs from
//          M = 8 on (28672×8192, M = 16: 127 µs at 128 a clock).
// Order    Lanes by a fixed tree, warps in ascending order: the same bits in every run.
// Needs    Nothing. Words want rows of W at multiples of 8 codes; other rows are read bytewise.
#include <eigen_q/src/FourBit.h>

#include "alignment.h"
#include "epilogue.cuh"
#include "fourbit_decode.h"
#include "op_launch.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::kFourBitLevels;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kRows = 4;  // of W, of a CTA

struct Problem {
  WeightView w;
  const float* x = nullptr;  // rows at multiples of 16 bytes
  Index xStride = 0;
  DenseView y;
  Epilogue epilogue;
};

/** Levels of the table, a copy in each bank: lane l reads address level·128 + 4·l. */
class LevelTable {
 public:
  __device__ __forceinline__ LevelTable(float (&memory)[kFourBitLevels][32], const float* codeTable)
      : m_levels(&memory[0][threadIdx.x % 32]) {
    for (int i = static_cast<int>(threadIdx.x); i < kFourBitLevels * 32; i += kThreads)
      memory[i / 32][i % 32] = codeTable[i / 32];
    __syncthreads();
  }
  __device__ __forceinline__ float operator()(unsigned code) const { return m_levels[code * 32]; }

 private:
  const float* m_levels;
};

/** What a lane takes of a row at once. A row may begin inside a byte: positions count from its first byte, and the
 * first and the last byte may belong to its neighbours in part. */
struct Bytes {
  static constexpr int kValues = 2;

  __device__ __forceinline__ static Index positions(Index begin, Index cols) { return (begin % 2 + cols + 1) / 2; }
  __device__ __forceinline__ static Index firstValue(Index begin, Index position) { return 2 * position - begin % 2; }
  __device__ __forceinline__ static unsigned load(const std::uint8_t* codes, Index begin, Index position) {
    return codes[begin / 2 + position];
  }
  __device__ __forceinline__ static void loadX(float (&x)[2], const float* row, Index first, Index cols) {
#pragma unroll
    for (int i = 0; i < 2; ++i) x[i] = first + i >= 0 && first + i < cols ? row[first + i] : 0.0f;
  }
};

/** Rows of whole aligned words. */
struct Words {
  static constexpr int kValues = 8;

  __device__ __forceinline__ static Index positions(Index, Index cols) { return cols / 8; }
  __device__ __forceinline__ static Index firstValue(Index, Index position) { return 8 * position; }
  __device__ __forceinline__ static unsigned load(const std::uint8_t* codes, Index begin, Index position) {
    return __ldg(reinterpret_cast<const unsigned*>(codes + begin / 2) + position);
  }
  __device__ __forceinline__ static void loadX(float (&x)[8], const float* row, Index first, Index) {
    const float4 low = __ldg(reinterpret_cast<const float4*>(row + first));
    const float4 high = __ldg(reinterpret_cast<const float4*>(row + first) + 1);
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
  }
};

/** The sums of kCount values over the lanes of a warp; afterwards lane l holds kHeld of them, from number l·kHeld on,
 * or, where there are fewer values than lanes, number l / (32 / kCount). Halving the values at each step costs
 * kCount + 5 shuffles instead of 5·kCount. */
template <int kCount>
struct LaneSums {
  static constexpr int kHeld = kCount > 32 ? kCount / 32 : 1;

  template <int kMask = 16, int kLeft = kCount>
  __device__ __forceinline__ static void add(float (&values)[kCount], int lane) {
    if constexpr (kMask > 0) {
      constexpr int kKept = kLeft > 1 ? kLeft / 2 : 1;
      const bool upper = (lane & kMask) != 0;
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        const float other = values[kLeft > 1 ? i + kKept : i];
        const float sent = kLeft > 1 && !upper ? other : values[i], kept = kLeft > 1 && upper ? other : values[i];
        values[i] = kept + __shfl_xor_sync(0xffffffffu, sent, kMask);
      }
      add<kMask / 2, kKept>(values, lane);
    }
  }
};

/** The scalar of the result is chosen here, so that the kernel need not be compiled for each. */
__device__ void store(const DenseView& y, const Epilogue& e, float sum, Index i, Index j) {
  if (y.scalar == ScalarType::kFloat) {
    storeResult<float>(y, e, sum, i, j);
  } else if (y.scalar == ScalarType::kHalf) {
    storeResult<__half>(y, e, sum, i, j);
  } else {
    storeResult<__nv_bfloat16>(y, e, sum, i, j);
  }
}

/** acc[row][token] of the words, or bytes, of this lane. */
template <typename Access, int kTokens>
__device__ __forceinline__ void sumLane(float (&acc)[kRows * kTokens], const Problem& p, Index firstRow,
                                        const LevelTable& levels) {
  constexpr int kValues = Access::kValues;
  const std::uint8_t* const codes = static_cast<const std::uint8_t*>(p.w.codes);
  Index begin[kRows], positions = 0;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {  // rows behind the last are read as the last; their sums go nowhere
    const Index row = firstRow + r < p.w.rows ? firstRow + r : p.w.rows - 1;
    begin[r] = p.w.offset + row * p.w.stride;
    const Index mine = Access::positions(begin[r], p.w.cols);
    positions = mine > positions ? mine : positions;
  }
  for (Index position = threadIdx.x; position < positions; position += kThreads) {
    unsigned loaded[kRows];
    float absmax[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool inside = position < Access::positions(begin[r], p.w.cols);
      loaded[r] = inside ? Access::load(codes, begin[r], position) : 0;
      const Index flat = (begin[r] / kValues + position) * kValues;  // blocks hold whole words
      absmax[r] = inside ? p.w.absmax(flat >> p.w.blockShift) : 0.0f;
    }
    float weights[kRows][kValues];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kValues; ++i) weights[r][i] = levels(loaded[r] >> (4 * (i ^ 1)) & 15);  // high nibble first
    }
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
      const float* const xRow = p.x + (token < p.y.rows ? token : 0) * p.xStride;
      float x[kValues];
      if (Access::kValues == Words::kValues) Access::loadX(x, xRow, 8 * position, p.w.cols);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (Access::kValues != Words::kValues) Access::loadX(x, xRow, Access::firstValue(begin[r], position), p.w.cols);
        float sum = weights[r][0] * x[0];
#pragma unroll
        for (int i = 1; i < kValues; ++i) sum = fmaf(weights[r][i], x[i], sum);
        acc[r * kTokens + token] = fmaf(sum, absmax[r], acc[r * kTokens + token]);
      }
    }
  }
}

/** Few tokens want loads under way, hence warps; many want their sums in registers. */
template <int kTokens>
constexpr int kBlocksPerMultiprocessor = kTokens == 1   ? 4
                                         : kTokens == 2 ? 3
                                                        : 2;

template <typename Access, int kTokens>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor<kTokens>)
    decodeRows(const __grid_constant__ Problem p) {
  constexpr int kCount = kRows * kTokens;
  __shared__ float levelMemory[kFourBitLevels][32];
  __shared__ float partial[kWarps][kCount];
  const LevelTable levels(levelMemory, p.w.codeTable);
  const Index firstRow = Index{blockIdx.x} * kRows;

  float acc[kCount] = {};
  sumLane<Access, kTokens>(acc, p, firstRow, levels);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  using Sums = LaneSums<kCount>;
  Sums::add(acc, lane);
  constexpr int kLanesPerValue = kCount < 32 ? 32 / kCount : 1;
  if (lane % kLanesPerValue == 0) {
#pragma unroll
    for (int i = 0; i < Sums::kHeld; ++i) partial[warp][lane / kLanesPerValue * Sums::kHeld + i] = acc[i];
  }
  __syncthreads();
  if (threadIdx.x >= kCount) return;
  const Index row = firstRow + threadIdx.x / kTokens, token = threadIdx.x % kTokens;
  if (row >= p.w.rows || token >= p.y.rows) return;
  float sum = partial[0][threadIdx.x];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += partial[w][threadIdx.x];
  store(p.y, p.epilogue, sum, token, row);
}

template <typename Access, int kTokens>
void launchAs(const Problem& p, Context& context) {
  const auto blocks = static_cast<unsigned>(ceilDiv(p.w.rows, kRows));
  launch("simt.decode", decodeRows<Access, kTokens>, {blocks, kThreads}, context, p);
}

template <typename Access>
void launchFor(const Problem& p, Context& context) {
  if (p.y.rows <= 1) return launchAs<Access, 1>(p, context);
  if (p.y.rows <= 2) return launchAs<Access, 2>(p, context);
  if (p.y.rows <= 4) return launchAs<Access, 4>(p, context);
  if (p.y.rows <= 8) return launchAs<Access, 8>(p, context);
  launchAs<Access, 16>(p, context);
}

bool hasWholeWords(const WeightView& w) {
  constexpr Index kWord = Words::kValues;
  return w.cols % kWord == 0 && w.offset % kWord == 0 && (w.rows <= 1 || w.stride % kWord == 0) &&
         isAligned(w.codes, sizeof(unsigned));
}

}  // namespace

const char* refuseFourBitDecodeSimt(const QuantizedProduct& p, const Context&) {
  if (p.w.format != WeightFormat::kFourBit) return "W is not in 4 bits";
  if (!p.transposed) return "W is not used transposed";
  if (p.x.rows > kDecodeRows) return "more than 16 rows of X";
  if (p.x.scalar == ScalarType::kDouble || p.y.scalar == ScalarType::kDouble) return "double operands";
  return nullptr;
}

void runFourBitDecodeSimt(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  Scratch scratch(context);
  const DeviceGuard guard(context.device());
  const PackedRows x = packRows(p.x, ScalarType::kFloat, scratch, context);
  const Problem problem{p.w, static_cast<const float*>(x.data), x.stride, p.y, p.epilogue};
  if (hasWholeWords(p.w)) {
    launchFor<Words>(problem, context);
  } else {
    launchFor<Bytes>(problem, context);
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
