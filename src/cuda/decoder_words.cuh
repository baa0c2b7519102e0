// SPDX-License-Identifier: MPL-2.0
// How CTAs of the decoder's kernel hand values to one another: a word is 16 bits of a value and 16 of a tag.
//
// A reader asks for the words that it needs until all of them have the tag it expects. There is no flag to be written
// behind the data and none to be read before it, hence no fence, and a value needs one way through the second-level
// cache. Words are single 32-bit accesses, so that value and tag cannot part. What a word is overwritten with comes
// from CTAs that had to wait for all readers of its last value: see decoder_sm90.cu.
#ifndef EIGENQ_CUDA_DECODER_WORDS_CUH
#define EIGENQ_CUDA_DECODER_WORDS_CUH

#include "decoder_memory.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace decoder {

__device__ __forceinline__ uint4 loadWords(const std::uint32_t* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ std::uint32_t loadWord(const std::uint32_t* from) {
  std::uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ std::uint64_t loadLongWord(const std::uint64_t* from) {
  std::uint64_t v;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(from) : "memory");
  return v;
}
__device__ __forceinline__ void storeWord(std::uint32_t* to, std::uint32_t word) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}
__device__ __forceinline__ void storeLongWord(std::uint64_t* to, std::uint64_t word) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}

template <typename T>
__device__ __forceinline__ float valueOf(std::uint32_t bits) {
  const auto low = static_cast<std::uint16_t>(bits);
  return toFloat(*reinterpret_cast<const T*>(&low));
}
template <typename T>
__device__ __forceinline__ std::uint32_t bitsOf(float v) {
  const T rounded = fromFloat<T>(v);
  return *reinterpret_cast<const std::uint16_t*>(&rounded);
}

/** What a value has to have been written in: a block of a step. Neighbouring steps and blocks differ. */
class Tag {
 public:
  __device__ __forceinline__ Tag(int step, int blockCount, int block)
      : m_number(static_cast<std::uint32_t>(step) * (blockCount + 1) + block) {}

  __device__ __forceinline__ bool on(std::uint32_t word) const { return ((word >> 16) ^ (m_number & 0xffff)) == 0; }
  __device__ __forceinline__ bool on(const uint4& words) const {
    return on(words.x) && on(words.y) && on(words.z) && on(words.w);
  }

  template <typename T>
  __device__ __forceinline__ void put(std::uint32_t* to, float v) const {
    storeWord(to, bitsOf<T>(v) | m_number << 16);
  }
  /** The word, once it is there. */
  __device__ __forceinline__ std::uint32_t wait(const std::uint32_t* from) const {
    std::uint32_t word;
    do word = loadWord(from);
    while (!on(word));
    return word;
  }
  template <typename T>
  __device__ __forceinline__ float get(const std::uint32_t* from) const {
    return valueOf<T>(wait(from));
  }

  __device__ __forceinline__ void putFloat(std::uint64_t* to, float v) const {
    storeLongWord(to, std::uint64_t{m_number} << 32 | __float_as_uint(v));
  }
  __device__ __forceinline__ float getFloat(const std::uint64_t* from) const {
    std::uint64_t word;
    do word = loadLongWord(from);
    while (static_cast<std::uint32_t>(word >> 32) != m_number);
    return __uint_as_float(static_cast<std::uint32_t>(word));
  }

 private:
  std::uint32_t m_number;
};

// ---- X of a group of products, from words to shared memory

/** Four neighbouring values of a token. */
struct FourValues {
  uint2 bits;

  __device__ __forceinline__ static FourValues of(const uint4& words) {
    return {make_uint2(__byte_perm(words.x, words.y, 0x5410), __byte_perm(words.z, words.w, 0x5410))};
  }
  template <typename T>
  __device__ __forceinline__ static FourValues of(const float (&v)[4]) {
    return {make_uint2(bitsOf<T>(v[0]) | bitsOf<T>(v[1]) << 16, bitsOf<T>(v[2]) | bitsOf<T>(v[3]) << 16)};
  }
  template <typename T>
  __device__ __forceinline__ void read(float (&v)[4]) const {
    v[0] = valueOf<T>(bits.x), v[1] = valueOf<T>(bits.x >> 16);
    v[2] = valueOf<T>(bits.y), v[3] = valueOf<T>(bits.y >> 16);
  }
  __device__ __forceinline__ static FourValues load(std::uint32_t from) { return {fourbit::loadPair(from)}; }
  __device__ __forceinline__ void store(std::uint32_t to) const {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(bits.x), "r"(bits.y) : "memory");
  }
};

/** The sums over all consumers, in the order of their warps. \param sums  room for two floats a warp, that no thread
 * reads any more */
__device__ __forceinline__ float2 sumOverConsumers(std::uint32_t sums, float2 v) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    v.x += __shfl_xor_sync(0xffffffffu, v.x, mask);
    v.y += __shfl_xor_sync(0xffffffffu, v.y, mask);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) FourValues{make_uint2(__float_as_uint(v.x), __float_as_uint(v.y))}.store(sums + threadIdx.x / 4);
  ptx::syncThreads(kConsumerBarrier, kConsumerThreads);
  const uint2 other = FourValues::load(sums + lane % kWarps * 8).bits;  // two lanes a warp
  v = {__uint_as_float(other.x), __uint_as_float(other.y)};
#pragma unroll
  for (int mask = kWarps / 2; mask > 0; mask /= 2) {
    v.x += __shfl_xor_sync(0xffffffffu, v.x, mask);
    v.y += __shfl_xor_sync(0xffffffffu, v.y, mask);
  }
  return v;
}

/** What a group multiplies with: words of all tokens, and where its values go. */
struct Input {
  const std::uint32_t* words;
  Tag tag;
  int depth, total;  // values of a token, of all
  std::uint32_t x;

  __device__ __forceinline__ int token(int at) const { return at >= depth ? 1 : 0; }
  __device__ __forceinline__ std::uint32_t place(int at) const { return x + token(at) * fourbit::kXPadding + 2 * at; }
};

constexpr int kSharesAtOnce = 2, kShareStep = 4 * kConsumerThreads;  // a thread has every 512th four values

/** Copies X to shared memory. \returns the squares of this thread's values, a sum a token */
template <typename T>
__device__ __forceinline__ float2 copyInput(const Input& in) {
  float2 squares = {0, 0};
#pragma unroll 1
  for (int first = 4 * static_cast<int>(threadIdx.x); first < in.total; first += kSharesAtOnce * kShareStep) {
    uint4 words[kSharesAtOnce];
    bool waiting;
    do {
      waiting = false;
#pragma unroll
      for (int n = 0; n < kSharesAtOnce; ++n)  // a share behind the end is asked for as the first one
        words[n] = loadWords(in.words + (first + n * kShareStep < in.total ? first + n * kShareStep : first));
#pragma unroll
      for (int n = 0; n < kSharesAtOnce; ++n) waiting = waiting || !in.tag.on(words[n]);
    } while (waiting);
#pragma unroll
    for (int n = 0; n < kSharesAtOnce; ++n) {
      const int at = first + n * kShareStep;
      if (at >= in.total) continue;
      const FourValues values = FourValues::of(words[n]);
      values.store(in.place(at));
      float v[4];
      values.read<T>(v);
      float& sum = in.token(at) == 0 ? squares.x : squares.y;
#pragma unroll
      for (int i = 0; i < 4; ++i) sum = fmaf(v[i], v[i], sum);
    }
  }
  return squares;
}

/** RMSNorm of what copyInput() has copied, with the roundings of op_norm.cu but for the last bit of 1/√.
 * \param gain  in shared memory */
template <typename T>
__device__ __forceinline__ void normalise(const Input& in, float2 squares, std::uint32_t gain, float eps,
                                          std::uint32_t sums) {
  const float2 total = sumOverConsumers(sums, squares);
  const float depth = static_cast<float>(in.depth);
  const float first = rsqrtf(__fdividef(total.x, depth) + eps), second = rsqrtf(__fdividef(total.y, depth) + eps);
#pragma unroll 1
  for (int at = 4 * static_cast<int>(threadIdx.x); at < in.total; at += kShareStep) {
    const float r = in.token(at) == 0 ? first : second;
    float v[4], g[4];
    FourValues::load(in.place(at)).read<T>(v);
    FourValues::load(gain + 2 * (at - in.token(at) * in.depth)).read<T>(g);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = r * (v[i] * g[i]);
    FourValues::of<T>(v).store(in.place(at));
  }
}

}  // namespace decoder
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_DECODER_WORDS_CUH
