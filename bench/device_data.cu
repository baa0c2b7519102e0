// SPDX-License-Identifier: MPL-2.0
#include "DeviceData.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include <src/cuda/check.h>

namespace EigenQ {
namespace bench {
namespace {

constexpr int kThreads = 256;
constexpr int kMostBlocks = 132 * 64;  // the rest by strides; enough to fill any device

unsigned blocksFor(Index items) {
  return static_cast<unsigned>(std::max<Index>(1, std::min<Index>((items + kThreads - 1) / kThreads, kMostBlocks)));
}

/** The finaliser of SplitMix64: independent bits for consecutive counters. */
__device__ std::uint64_t hashOf(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
/** In (0, 1]. */
__device__ float uniform(std::uint32_t bits) { return (static_cast<float>(bits >> 8) + 1) * 0x1p-24f; }

__device__ void store(float* to, float value) { *to = value; }
__device__ void store(__half* to, float value) { *to = __float2half_rn(value); }
__device__ void store(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

template <typename T>
__global__ void normalValues(T* data, Index count, float deviation, std::uint64_t seed) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const std::uint64_t bits = hashOf(hashOf(seed) + static_cast<std::uint64_t>(i));
    const float radius = sqrtf(-2 * logf(uniform(static_cast<std::uint32_t>(bits >> 32))));
    store(data + i, deviation * radius * cospif(2 * uniform(static_cast<std::uint32_t>(bits))));
  }
}

template <typename T>
__global__ void outlierValues(T* data, Index rows, Index cols, Index apart, std::uint64_t seed) {
  const Index step = static_cast<Index>(gridDim.x) * kThreads, count = rows * kOutlierColumns;
  for (Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const Index row = i / kOutlierColumns, col = i % kOutlierColumns * apart + apart / 2;
    const std::uint64_t bits = hashOf(hashOf(seed) + static_cast<std::uint64_t>(i));
    const float magnitude = 8 + 8 * uniform(static_cast<std::uint32_t>(bits));
    store(data + row * cols + col, bits >> 63 ? -magnitude : magnitude);
  }
}

/** f(T*) for the scalar's type. */
template <typename F>
void withType(ScalarType scalar, void* data, F&& f) {
  switch (scalar) {
    case ScalarType::kHalf:
      return f(static_cast<__half*>(data));
    case ScalarType::kBFloat16:
      return f(static_cast<__nv_bfloat16*>(data));
    case ScalarType::kFloat:
    case ScalarType::kDouble:
      break;
  }
  f(static_cast<float*>(data));
}

constexpr int kLoads = 8;  // of 16 bytes, that a thread has in flight

__global__ void __launch_bounds__(kThreads) readKernel(const uint4* from, Index count, std::uint32_t* sink) {
  const Index block = static_cast<Index>(kThreads) * kLoads, step = gridDim.x * block;
  std::uint32_t seen = 0;
  for (Index base = blockIdx.x * block + threadIdx.x; base < count; base += step) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Index at = base + i * kThreads;
      v[i] = at < count ? __ldcs(from + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) seen ^= v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
  }
  if (seen == 0x9e3779b9u) *sink = seen;  // what nobody could use, the compiler would not read
}

__global__ void __launch_bounds__(kThreads) copyKernel(uint4* to, const uint4* from, Index count) {
  const Index block = static_cast<Index>(kThreads) * kLoads, step = gridDim.x * block;
  for (Index base = blockIdx.x * block + threadIdx.x; base < count; base += step) {
    uint4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Index at = base + i * kThreads;
      if (at < count) v[i] = __ldcs(from + at);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const Index at = base + i * kThreads;
      if (at < count) __stcs(to + at, v[i]);
    }
  }
}

}  // namespace

void fillNormal(void* data, ScalarType scalar, Index count, float deviation, std::uint64_t seed, cudaStream_t stream) {
  withType(scalar, data, [&](auto* values) {
    normalValues<<<blocksFor(count), kThreads, 0, stream>>>(values, count, deviation, seed);
  });
  EIGENQ_CUDA_CHECK_LAUNCH("normalValues");
}

void plantOutliers(void* data, ScalarType scalar, Index rows, Index cols, std::uint64_t seed, cudaStream_t stream) {
  withType(scalar, data, [&](auto* values) {
    outlierValues<<<blocksFor(rows * kOutlierColumns), kThreads, 0, stream>>>(values, rows, cols,
                                                                              cols / kOutlierColumns, seed);
  });
  EIGENQ_CUDA_CHECK_LAUNCH("outlierValues");
}

void readAll(const void* from, std::size_t bytes, std::uint32_t* sink, cudaStream_t stream) {
  const Index count = static_cast<Index>(bytes / sizeof(uint4));
  readKernel<<<blocksFor(count / kLoads), kThreads, 0, stream>>>(static_cast<const uint4*>(from), count, sink);
  EIGENQ_CUDA_CHECK_LAUNCH("readKernel");
}

void copyAll(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const Index count = static_cast<Index>(bytes / sizeof(uint4));
  copyKernel<<<blocksFor(count / kLoads), kThreads, 0, stream>>>(static_cast<uint4*>(to),
                                                                 static_cast<const uint4*>(from), count);
  EIGENQ_CUDA_CHECK_LAUNCH("copyKernel");
}

}  // namespace bench
}  // namespace EigenQ
