// SPDX-License-Identifier: MPL-2.0
// What the helping warps of int8_stream_sm90.cu bring while the others multiply: statistics, a list of the outlier
// columns, X there, and the codes of W there, out of the stages as they pass.
#ifndef EIGENQ_CUDA_INT8_STREAM_HELP_CUH
#define EIGENQ_CUDA_INT8_STREAM_HELP_CUH

#include "int8_stream_sm90.cuh"
#include "outlier_marks.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace stream {

/** The statistics, while the others multiply. */
template <int kTokens>
__device__ __forceinline__ void loadStatistics(const StreamArgs& a, const Task& task, int thread, int threads,
                                               SharedMemory<kTokens>& to) {
  for (int t = thread; t < a.tokens; t += threads) to.rowStats[t] = a.p.activations.rowStats[t];
  for (int r = task.firstRow + thread; r < task.firstRow + task.rows; r += threads)
    to.absmax[r] = task.row + r < a.p.w.rows ? a.p.w.rowAbsmax[task.row + r] : 0.0f;
}

static_assert(markChunks(kMostTokens) == 1, "list() looks at one chunk");

/** Lists the first outliers, by a warp. */
template <int kTokens>
__device__ __forceinline__ void list(const StreamArgs& a, Outliers<kTokens>& to) {
  const int count = listOutliers<8, 8>(a.p, a.marks, 1, a.columns, to.columns);
  if (threadIdx.x % 32 == 0) to.count = count;
}

// Loads of a batch go out together only where no branch stands between them: what is not there is read elsewhere and
// set to zero afterwards.
constexpr int kBatch = 4;

/** X in the columns listed, and its codes there, by so many threads. */
template <typename T, int kTokens>
__device__ __forceinline__ void gatherX(const StreamArgs& a, int count, int thread, int threads,
                                        Outliers<kTokens>& to) {
  const T* const x = static_cast<const T*>(a.p.x.data);
  const int all = (count + 3) / 4 * 4 * kTokens;
  for (int begin = thread; begin < all; begin += kBatch * threads) {
    T values[kBatch];
    std::int8_t codes[kBatch];
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, k = to.columns[min(at / kTokens, count - 1)];
      const Index i = min(at % kTokens, a.tokens - 1);
      values[u] = x[i * a.p.x.rowStride + k * a.p.x.colStride];
      codes[u] = a.p.activations.codes[i * a.p.activations.stride + k];
    }
#pragma unroll
    for (int u = 0; u < kBatch; ++u) {
      const int at = begin + u * threads, o = at / kTokens, t = at % kTokens;
      if (at >= all) break;
      to.x[o][t] = o < count ? toFloat(values[u]) : 0.0f;
      to.xCodes[o / 4][t][o % 4] = o < count ? codes[u] : std::int8_t{0};
    }
  }
}

/** A warp that takes the codes of W in the outlier columns to the blocks whose rows they are, out of the stages as they
 * pass: each read from memory would cost 64 bytes, a tenth of W for ten columns of 8192. Only those of the first stages
 * are read again, as these must not wait for a list that follows the last kernel. */
template <int kTokens>
class Watcher {
 public:
  __device__ __forceinline__ Watcher(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared)
      : m_args(a), m_task(task), m_shared(shared), m_early(min(kStages, task.steps)) {}

  /** Hands back the first stages, each when it has come: only of one that is known to have come does the parity tell
   * whether the next is there. */
  __device__ __forceinline__ void skipFirstStages() {
    if (threadIdx.x % 32 == 0) {
      for (int s = 0; s < m_early; ++s) {
        ptx::wait(ptx::sharedAddress(&m_shared.full[s]), 0);
        ptx::arrive(ptx::sharedAddress(&m_shared.empty[s]));
      }
    }
    __syncwarp();
  }

  /** \param count  of columns listed */
  __device__ __forceinline__ void watch(int count) {
    const int* const columns = m_shared.outliers.columns;
    const std::int8_t* const w = codesOf(m_args.p.w);
    int o = 0;
    while (o < count && columns[o] < m_task.firstStep * kTileK) ++o;
    for (; o < count && columns[o] < (m_task.firstStep + m_early) * kTileK; ++o)
      take(o, [&](int row) {
        const Index last = m_args.p.w.rows - 1, j = m_task.row + row;
        return w[(j < last ? j : last) * m_args.p.w.stride + columns[o]];
      });
    Ring<kStages> ring;
    ring.parity = 1;  // the second round
    for (int step = m_early; step < m_task.steps; ++step, ring.advance()) {
      ptx::wait(ptx::sharedAddress(&m_shared.full[ring.index]), ring.parity);
      const std::int8_t* const stage = m_shared.stages[ring.index];
      const int first = (m_task.firstStep + step) * kTileK;
      for (; o < count && columns[o] < first + kTileK; ++o) {
        const int k = columns[o] - first;  // the swizzle exchanges 16-byte pieces
        take(o, [&](int row) { return stage[row * kTileK + ((k / 16) ^ (row % 8)) * 16 + k % 16]; });
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) ptx::arrive(ptx::sharedAddress(&m_shared.empty[ring.index]));
    }
  }

 private:
  static constexpr int kStages = Tiling<kTokens>::kStages;

  template <typename At>
  __device__ __forceinline__ void take(int o, At&& at) {
    const int lane = static_cast<int>(threadIdx.x % 32), shift = 31 - __clz(m_task.rows);  // a power of two
    std::int8_t codes[kTileP / 32];
#pragma unroll
    for (int i = 0; i < kTileP / 32; ++i) codes[i] = at(i * 32 + lane);
#pragma unroll
    for (int i = 0; i < kTileP / 32; ++i) {
      const int row = i * 32 + lane;
      ptx::storeToBlock(ptx::sharedAddress(&m_shared.outliers.wCodes[o / 4][row][o % 4]), row >> shift, codes[i]);
    }
  }

  const StreamArgs& m_args;
  const Task& m_task;
  SharedMemory<kTokens>& m_shared;
  const int m_early;
};

/** The helping warps. One watches W, one lists outliers, one brings statistics; these two then bring X. */
template <int kTokens>
__device__ __forceinline__ void help(const StreamArgs& a, const Task& task, SharedMemory<kTokens>& shared) {
  const int helper = static_cast<int>(threadIdx.x) - (kThreads - kHelpers), others = kHelpers - 32;
  const bool lists = hasOutliers(a);
  Outliers<kTokens>& to = shared.outliers;
  if (helper < 32) {
    if (!lists) return;
    Watcher<kTokens> watcher(a, task, shared);
    watcher.skipFirstStages();
    ptx::syncThreads(kHelpersBarrier, kHelpers);
    watcher.watch(min(to.count, kMostGathered));
    ptx::syncThreads(kConsumersBarrier, kConsumers + 32);
    return;
  }
  ptx::waitForLastKernel();
  if (lists && helper < 64) {
    list(a, to);
  } else {
    const int begin = lists ? 64 : 32;
    loadStatistics(a, task, helper - begin, kHelpers - begin, shared);
  }
  if (!lists) return;
  ptx::syncThreads(kHelpersBarrier, kHelpers);
  const int count = min(to.count, kMostGathered);
  if (count == 0) return;
  switch (a.p.x.scalar) {
    case ScalarType::kFloat:
      return gatherX<float>(a, count, helper - 32, others, to);
    case ScalarType::kHalf:
      return gatherX<__half>(a, count, helper - 32, others, to);
    default:
      return gatherX<__nv_bfloat16>(a, count, helper - 32, others, to);
  }
}

}  // namespace stream
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_STREAM_HELP_CUH
