// SPDX-License-Identifier: MPL-2.0
// Attention in the decoder's kernel: rope, the cache, and softmax over the keys of a sequence.
//
//   item    = (split of the keys, sequence, head), one a CTA; 16 warps, each 4 keys at a time
//   own key   is not in the cache yet: every item turns it for itself, the first item of a head of keys stores it
//   splits    are as many as there are 256 keys, or CTAs: the CTA of split 0 adds them up, in their order
//
// What the cache holds of earlier steps is asked for before the step's own words are there.
#ifndef EIGENQ_CUDA_DECODER_ATTENTION_CUH
#define EIGENQ_CUDA_DECODER_ATTENTION_CUH

#include "decoder_words.cuh"
#include "op_attention_decode.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {

constexpr int kKeysOfSplit = 256;

/** Which keys of which head. */
struct AttentionItem {
  int token, head, kvHead, split, splits;
  int position, begin, end;  // of all keys; the last one is the token's own
  bool known;                // whether the position has a place in the cache

  __device__ __forceinline__ AttentionItem(const Problem& p, const std::int32_t* positions, int window, int item,
                                           int mostSplits) {
    split = item / (p.tokens * p.heads);
    token = item / p.heads % p.tokens;
    head = item % p.heads;
    kvHead = head / (p.heads / p.kvHeads);
    position = positions[token];
    known = position >= 0 && position < p.capacity;
    const int keys = !known ? 0 : window > 0 && window <= position ? window : position + 1;
    splits = max(1, min(mostSplits, (keys + kKeysOfSplit - 1) / kKeysOfSplit));
    const int share = (keys + splits - 1) / splits, firstKey = position + 1 - keys;
    begin = firstKey + min(split * share, keys);
    end = min(begin + share, firstKey + keys);
  }
  __device__ __forceinline__ bool hasOwnKey() const { return end == position + 1 && begin < end; }
  __device__ __forceinline__ bool storesOwnKey(const Problem& p) const {
    return known && split == 0 && head % (p.heads / p.kvHeads) == 0;
  }
};

/** Asks for the cached keys and values of an item. */
template <typename T>
__device__ __forceinline__ void prefetch(const T* k, const T* v, Index stride, int begin, int end, int headDim) {
  const int lines = (headDim * static_cast<int>(sizeof(T)) + 127) / 128, count = (end - begin) * lines;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kConsumerThreads) {
    const Index at = (begin + i / lines) * stride + i % lines * (128 / static_cast<int>(sizeof(T)));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(k + at));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(v + at));
  }
}

/** The token's q, k and v of this item as floats, q and k turned and rounded. */
template <typename T>
__device__ __forceinline__ void turn(const Problem& p, const AttentionItem& item, const Tag& tag, float* qkv) {
  const int d = p.headDim, half = d / 2, thread = static_cast<int>(threadIdx.x);
  const std::uint32_t* const words = p.words.projected + item.token * (p.queries + 2 * p.keys);
  const bool rotates = thread < d;  // the first half q, the second half k, a pair a thread
  const int pair = thread % half, first = (thread < half ? 0 : d) + (p.adjacent ? 2 * pair : pair);
  const int second = first + (p.adjacent ? 1 : half);
  float c = __int_as_float(0x7fffffff), s = c;
  if (rotates && item.position >= 0 && item.position < p.maxPositions) {
    c = __ldg(p.cos + Index{item.position} * half + pair);
    s = __ldg(p.sin + Index{item.position} * half + pair);
  }
#pragma unroll 1
  for (int i = thread; i < 3 * d; i += kConsumerThreads) {
    const int part = i / d, at = i % d;
    const int from = part == 0 ? item.head * d : p.queries + (part - 1) * p.keys + item.kvHead * d;
    qkv[i] = tag.get<T>(words + from + at);
  }
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  if (rotates) {
    const float a = qkv[first], b = qkv[second];
    qkv[first] = toFloat(fromFloat<T>(a * c - b * s));
    qkv[second] = toFloat(fromFloat<T>(b * c + a * s));
  }
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
}

/** Softmax and weighted sum over keys, relative to exp(top). */
struct Weighed {
  float top, total, sum;

  __device__ __forceinline__ void add(const Weighed& other) {
    const float most = fmaxf(top, other.top), base = finiteTop(most);
    const float mine = expf(top - base), theirs = expf(other.top - base);
    total = total * mine + other.total * theirs;
    sum = sum * mine + other.sum * theirs;
    top = most;
  }
};

/** The warps' results, in their order, for entry \a i. */
__device__ __forceinline__ Weighed addWarps(const float* tops, const float* totals, const float* sums, int headDim,
                                            int i) {
  Weighed all = {tops[0], 0, 0};
#pragma unroll
  for (int w = 1; w < kWarps; ++w) all.top = fmaxf(all.top, tops[w]);
#pragma unroll 4
  for (int w = 0; w < kWarps; ++w) {
    const float weight = expf(tops[w] - finiteTop(all.top));
    all.total = fmaf(totals[w], weight, all.total);
    all.sum = fmaf(sums[w * headDim + i], weight, all.sum);
  }
  return all;
}

/** A split's result on its way to the CTA that adds them up; one entry a thread. */
__device__ __forceinline__ void putSplit(std::uint64_t* words, const Tag& tag, const Weighed& w) {
  const int i = static_cast<int>(threadIdx.x);
  if (i == 0) {
    tag.putFloat(words, w.top);
    tag.putFloat(words + 1, w.total);
  }
  tag.putFloat(words + 2 + i, w.sum);
}
__device__ __forceinline__ Weighed getSplit(const std::uint64_t* words, const Tag& tag) {
  return {tag.getFloat(words), tag.getFloat(words + 1), tag.getFloat(words + 2 + threadIdx.x)};
}

template <int kEntries, typename T>
__device__ __noinline__ void attendItem(const Problem& p, const AttentionItem& item, const BlockData& block,
                                        const Tag& tag, float* shared) {
  constexpr int kHeadDim = 32 * kEntries;
  float *const qkv = shared, *const tops = qkv + 3 * kHeadDim, *const totals = tops + kWarps,
               *const sums = totals + kWarps;
  const Index column = Index{item.token} * p.capacity, at = column * p.keys + item.kvHead * kHeadDim;
  T *const keys = static_cast<T*>(block.keys) + at, *const values = static_cast<T*>(block.values) + at;
  const int cached = item.hasOwnKey() ? item.end - 1 : item.end;
  prefetch<T>(keys, values, p.keys, item.begin, cached, kHeadDim);
  turn<T>(p, item, tag, qkv);

  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  if (item.storesOwnKey(p) && thread < kHeadDim) {
    keys[Index{item.position} * p.keys + thread] = fromFloat<T>(qkv[kHeadDim + thread]);
    values[Index{item.position} * p.keys + thread] = fromFloat<T>(qkv[2 * kHeadDim + thread]);
  }
  const float scale = 1.0f / sqrtf(static_cast<float>(kHeadDim));
  float q[kEntries];
#pragma unroll
  for (int i = 0; i < kEntries; ++i) q[i] = qkv[lane * kEntries + i] * scale;
  Partial<kEntries> partial;
#pragma unroll 1
  for (int key = item.begin + warp * kKeysAtOnce; key < item.end; key += kWarps * kKeysAtOnce) {
    float k[kKeysAtOnce][kEntries], v[kKeysAtOnce][kEntries];
#pragma unroll
    for (int n = 0; n < kKeysAtOnce; ++n) {
      const int at = min(key + n, item.end - 1);
      if (at < cached) {
        load(keys + Index{at} * p.keys + lane * kEntries, k[n]);
        load(values + Index{at} * p.keys + lane * kEntries, v[n]);
      } else {
        load(qkv + kHeadDim + lane * kEntries, k[n]);
        load(qkv + 2 * kHeadDim + lane * kEntries, v[n]);
      }
    }
    attend(q, k, v, item.end - key, partial);
  }
#pragma unroll
  for (int i = 0; i < kEntries; ++i) sums[warp * kHeadDim + lane * kEntries + i] = partial.sum[i];
  if (lane == 0) tops[warp] = partial.top, totals[warp] = partial.total;
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);

  if (thread < kHeadDim) {
    Weighed all = addWarps(tops, totals, sums, kHeadDim, thread);
    const Index heads = p.tokens * p.heads, own = item.token * p.heads + item.head;
    const auto words = [&](int split) { return p.words.splits + (split * heads + own) * (kHeadDim + 2); };
    if (item.split > 0) {
      putSplit(words(item.split), tag, all);
    } else {
      for (int split = 1; split < item.splits; ++split) all.add(getSplit(words(split), tag));
      tag.put<T>(p.words.attention + item.token * p.queries + item.head * kHeadDim + thread, all.sum / all.total);
    }
  }
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);  // what is shared has been read
}

template <typename T>
__device__ __forceinline__ void attend(const Problem& p, const std::int32_t* positions, const BlockData& block,
                                       const Tag& tag, const Memory& memory) {
  float* const shared = sharedPointer<float>(memory.x);
  const int heads = p.tokens * p.heads, ctas = static_cast<int>(gridDim.x);
  const int mostSplits = max(1, min(ctas / heads, kMostSplits));
#pragma unroll 1
  for (int i = static_cast<int>(blockIdx.x); i < heads * mostSplits; i += ctas) {
    const AttentionItem item(p, positions, block.window, i, mostSplits);
    if (item.split >= item.splits) continue;
    if (p.headDim == 64)
      attendItem<2, T>(p, item, block, tag, shared);
    else
      attendItem<4, T>(p, item, block, tag, shared);
  }
}

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DECODER_ATTENTION_CUH
