// SPDX-License-Identifier: MPL-2.0
// Attention of one query a sequence over cached keys and values: a step of generation.
//
//   keys of a sequence │ split 0 │ split 1 │ …    block = (split, head, sequence): 4 warps, each 4 keys at a time;
//                                                 a lane has kEntries neighbouring entries of q, k, v and the sum
//   splits ─► (maximum, total, sum) each ─► one block a head adds them in a fixed order
//
// Traffic  K and V once, from L2 for all but the first head of a group; a few floats a split. 4 FLOP an entry of K
//          and V: memory is the limit, and with few sequences the latency of one split. There are as many splits as
//          keep the device busy, of at least 64 keys of the capacity or the window.
#include <string>

#include "op_attention.h"
#include "op_attention_decode.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr unsigned kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostSplits = 64;
static_assert(kMostSplits <= kThreads, "a thread weighs a split");

struct Maximum {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/** Where the splits leave their results: sums (sequence, head, split, headDim), and tops and totals without headDim. */
struct Splits {
  float* top;
  float* total;
  float* sum;
  int count;
};

template <int kEntries, typename T>
__global__ void __launch_bounds__(kThreads)
    attentionDecodeKernel(const AttentionDecode op, float scale, bool packed, Splits splits) {
  joinStream();
  const Index item = Index{blockIdx.x} / splits.count, sequence = item / op.heads, head = item % op.heads;
  const int split = static_cast<int>(Index{blockIdx.x} % splits.count), headDim = static_cast<int>(op.headDim);
  const int position = op.positions[sequence];
  const bool known = position >= 0 && position < op.capacity;
  const int keys = !known ? 0 : op.window > 0 && op.window <= position ? static_cast<int>(op.window) : position + 1;
  const int share = (keys + splits.count - 1) / splits.count, firstKey = position + 1 - keys;
  const int begin = firstKey + min(split * share, keys), end = min(begin + share, firstKey + keys);
  const Index kvOffset = head / (op.heads / op.kvHeads) * headDim, cache = sequence * op.capacity;
  const T* const k = static_cast<const T*>(op.k.data) + cache * op.k.colStride + kvOffset;
  const T* const v = static_cast<const T*>(op.v.data) + cache * op.v.colStride + kvOffset;

  float q[kEntries];
  loadEntries(static_cast<const T*>(op.q.data) + sequence * op.q.colStride + head * headDim, headDim, packed, q);
#pragma unroll
  for (int i = 0; i < kEntries; ++i) q[i] *= scale;
  Partial<kEntries> partial;
  attend<kWarps>(q, k, v, op.k.colStride, op.v.colStride, begin, end, headDim, packed, partial);

  // The warps' results, one after the other.
  __shared__ float tops[kWarps], totals[kWarps], sums[kWarps][kEntries * kWarp];
  const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kEntries; ++i) sums[warp][lane * kEntries + i] = partial.sum[i];
  if (lane == 0) tops[warp] = partial.top, totals[warp] = partial.total;
  __syncthreads();
  float top = kNegativeInfinity, total = 0;
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, tops[w]);
  for (int w = 0; w < kWarps; ++w) total = fmaf(totals[w], expf(tops[w] - finiteTop(top)), total);
  for (int i = static_cast<int>(threadIdx.x); i < headDim; i += static_cast<int>(kThreads)) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum = fmaf(sums[w][i], expf(tops[w] - finiteTop(top)), sum);
    splits.sum[Index{blockIdx.x} * headDim + i] = sum;
  }
  if (threadIdx.x == 0) splits.top[blockIdx.x] = top, splits.total[blockIdx.x] = total;
}

/** Weighs the splits by their tops. Without a key the total is 0 and the result NaN. */
template <typename T>
__global__ void __launch_bounds__(kThreads)
    combineSplitsKernel(Splits splits, Columns<T> o, Index heads, Index headDim, Index items) {
  joinStream();
  __shared__ float weights[kMostSplits];
  const auto mine = static_cast<int>(threadIdx.x);  // one split a thread, at first
  for (Index item = blockIdx.x; item < items; item += gridDim.x) {
    const Index first = item * splits.count;
    const bool owner = mine < splits.count;
    const float ownTop = owner ? splits.top[first + mine] : kNegativeInfinity;
    const float top = blockReduce(ownTop, Maximum()), weight = expf(ownTop - finiteTop(top));
    if (owner) weights[mine] = weight;
    const float total = blockReduce(owner ? weight * splits.total[first + mine] : 0.0f, Plus());
    for (Index i = mine; i < headDim; i += kThreads) {
      float sum = 0;
#pragma unroll 8
      for (int s = 0; s < splits.count; ++s) sum = fmaf(splits.sum[(first + s) * headDim + i], weights[s], sum);
      o(item / heads)[item % heads * headDim + i] = fromFloat<T>(sum / total);
    }
    __syncthreads();  // the weights have been read
  }
}

int splitsFor(const AttentionDecode& op, Index sequences, const Context& context) {
  constexpr Index kFewestKeys = 64, kBlocksPerMultiprocessor = 8;
  const Index items = op.heads * sequences;
  const Index wanted = (kBlocksPerMultiprocessor * context.multiprocessors() + items - 1) / items;
  const Index keys = op.window > 0 ? std::min(op.window, op.capacity) : op.capacity;
  return static_cast<int>(std::max<Index>(1, std::min({wanted, Index{kMostSplits}, keys / kFewestKeys})));
}

void checkDecode(const AttentionDecode& op) {
  checkHeads("attentionDecode", op.heads, op.kvHeads, op.headDim, op.window);
  if (op.capacity > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("attentionDecode: expected a capacity below 2^31, found " +
                                std::to_string(op.capacity));
  const auto check = [&](const ConstDenseView& m, Index heads, Index cols) {
    (void)m, (void)heads, (void)cols;  // without assertions
    assert(m.rows == heads * op.headDim && m.cols == cols && m.scalar == op.q.scalar &&
           (m.rowStride == 1 || m.rows <= 1) && "attentionDecode: matrices differ in shape, layout or scalar type");
  };
  check(op.q, op.heads, op.q.cols);
  check(asConst(op.o), op.heads, op.q.cols);
  check(op.k, op.kvHeads, op.q.cols * op.capacity);
  check(op.v, op.kvHeads, op.q.cols * op.capacity);
}

/** Calls \a f with how many entries a lane holds. */
template <typename F>
void dispatchEntries(Index headDim, F&& f) {
  if (headDim <= 32) return f(std::integral_constant<int, 1>());
  if (headDim <= 64) return f(std::integral_constant<int, 2>());
  if (headDim <= 128) return f(std::integral_constant<int, 4>());
  static_assert(kMaxHeadDim == 256, "32 lanes hold the largest head");
  return f(std::integral_constant<int, 8>());
}

/** Whether every lane's entries are one aligned pack in all operands. */
bool isPacked(const AttentionDecode& op, int entries) {
  const auto bytes = static_cast<std::uintptr_t>(entries) * sizeOf(op.q.scalar);
  bool packed = op.headDim == entries * static_cast<Index>(kWarp);
  for (const ConstDenseView& m : {op.q, op.k, op.v})
    packed = packed && reinterpret_cast<std::uintptr_t>(m.data) % bytes == 0 && m.colStride % entries == 0;
  return packed;
}

}  // namespace

void attentionDecode(const AttentionDecode& op, Context& context) {
  checkDecode(op);
  const Index sequences = op.q.cols, items = op.heads * sequences;
  if (items == 0) return;
  const int count = splitsFor(op, sequences, context);
  if (items > std::numeric_limits<std::int32_t>::max() / count)
    throw std::invalid_argument("attentionDecode: expected fewer than 2^31 blocks of heads, sequences and splits");
  Scratch scratch(context);
  const Splits splits = {scratch.array<float>(items * count), scratch.array<float>(items * count),
                         scratch.array<float>(items * count * op.headDim), count};
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(op.headDim)));
  dispatchDeviceScalar(op.q.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    dispatchEntries(op.headDim, [&](auto entries) {
      constexpr int kEntries = decltype(entries)::value;
      launchEarly("attentionDecode", attentionDecodeKernel<kEntries, T>,
                  {dim3(static_cast<unsigned>(items * count)), kThreads}, context, op, scale, isPacked(op, kEntries),
                  splits);
    });
    launchEarly("attentionDecode", combineSplitsKernel<T>, {dim3(gridFor(items)), kThreads}, context, splits,
                Columns<T>(op.o), op.heads, op.headDim, items);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
