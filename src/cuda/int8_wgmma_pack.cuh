// SPDX-License-Identifier: MPL-2.0
// How outlier columns are packed for the tensor cores beside the products of int8_gemm_sm90.cu.
//
// Three warps of the third warpgroup list the columns once, and bring those of a tile while the others multiply it:
// W's codes, and what X's codes left of X.
//
//     packers    │ list │ tile 0 │ tile 1 │ …          ring of two chunks:  P 128 rows │ Q 128 or 256
//     consumers  │ multiply tile 0 │ + │ multiply tile 1 │ + │ …            of 16 columns, 2 × 16 bytes a row
//
// Rows     A value of a column costs a sector of 32 bytes. Where tiles are more than blocks, who first comes to rows of
//          P, or to Q's, packs them to memory for all (SharedRows), and a tile takes 32 bytes a row from there:
//          gathered anew for each tile, 8192 rows of X take 5 % longer.
// What     A product right behind its quantiser has codes of outlier columns in its integer sums, but 0 for the
// is left  outliers themselves. So x − code·absmax/127 is what remains to be multiplied: all of an outlier, and the
//          rounding error of its column's other values, exact to 2⁻⁹ of that error. Nothing has to be cleared between
//          the two launches.
#ifndef EIGENQ_CUDA_INT8_WGMMA_PACK_CUH
#define EIGENQ_CUDA_INT8_WGMMA_PACK_CUH

#include "int8_wgmma_walk.cuh"
#include "outlier_marks.cuh"
#include "ptx_team_sm90.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

/** Whose barriers these are: by one thread, before any other comes here. */
template <int kTileQ>
__device__ __forceinline__ void initPacked(PackedChunks<kTileQ>& packed) {
#pragma unroll
  for (int slot = 0; slot < kPackedSlots; ++slot) {
    ptx::initBarrier(ptx::sharedAddress(&packed.full[slot]), kPackers);
    ptx::initBarrier(ptx::sharedAddress(&packed.empty[slot]), kConsumers / 32);
  }
  ptx::initBarrier(ptx::sharedAddress(&packed.listed), 1);
}

/** The columns, by a warp. */
template <int kTileQ>
__device__ __forceinline__ void listColumns(const WgmmaArgs& a, PackedChunks<kTileQ>& packed) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int count = listOutliers<4, 8>(a.p, a.marks, markChunks(a.p.x.rows), a.columns, packed.columns);
  if (lane == 0) packed.count = count;
  __syncwarp();
  // Behind the last column the last again, up to a multiple of four.
  const int at = count + lane;
  if (count > 0 && lane < (-count & 3) && at < kHeldColumns) packed.columns[at] = packed.columns[count - 1];
  __syncwarp();
  if (lane == 0) ptx::arrive(ptx::sharedAddress(&packed.listed));
}

/** The columns from number \a first on, of which there are \a count: behind the last the last again. */
__device__ __forceinline__ int4 fourColumns(const WgmmaArgs& a, const int (&held)[kHeldColumns], int first, int count) {
  if (first < kHeldColumns) return *reinterpret_cast<const int4*>(held + first);
  const int* const list = a.p.activations.outliers;
  const int last = count - 1;
  return {list[first], list[min(first + 1, last)], list[min(first + 2, last)], list[min(first + 3, last)]};
}

/** Four columns of a row of X, what the codes left of them, or of codes of W: loaded, and later packed. */
template <typename T, bool kIsX>
struct FourOfRow {
  T values[kIsX ? 4 : 1];
  std::int8_t codes[4];
  float stat;

  __device__ __forceinline__ void load(const WgmmaArgs& a, const Side& side, Index row, const int4& columns) {
    const std::int8_t* const from =
        kIsX ? a.p.activations.codes + row * a.p.activations.stride : codesOf(a.p.w) + row * a.p.w.stride;
    codes[0] = from[columns.x], codes[1] = from[columns.y], codes[2] = from[columns.z], codes[3] = from[columns.w];
    if constexpr (kIsX) {
      const T* const x = static_cast<const T*>(a.p.x.data) + row * a.p.x.rowStride;
      const Index step = a.p.x.colStride;
      values[0] = x[columns.x * step], values[1] = x[columns.y * step];
      values[2] = x[columns.z * step], values[3] = x[columns.w * step];
      stat = side.stats[row];
    }
  }
  /** \param there  columns that are there */
  __device__ __forceinline__ uint2 packed(int there) const {
    float v[4];
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const float code = static_cast<float>(codes[o]);
      v[o] = code;
      if constexpr (kIsX) v[o] = fmaf(-code, stat * kUnit, toFloat(values[o]));
      if (o >= there) v[o] = 0;
    }
    return make_uint2(packPair<T>(v[0], v[1]), packPair<T>(v[2], v[3]));
  }
};

/** A chunk of one side, \a rows rows, of which \a there are there: four columns of a row an item, kAtOnce items of a
 * thread under way at once. Nothing waits for a load before all are. */
template <typename T, bool kIsX, int kTileQ>
__device__ __forceinline__ void packSide(const WgmmaArgs& a, const PackedChunks<kTileQ>& packed, const Side& side,
                                         Index firstRow, Index there, int rows, int first, PackedHalf* to) {
  constexpr int kAtOnce = kIsX ? 2 : 4;
  const int thread = static_cast<int>(threadIdx.x) - kConsumers - 32, count = packed.count;
  const Index last = there - 1;
#pragma unroll 1
  for (int begin = thread; begin < kPackedAtOnce / 4 * rows; begin += kAtOnce * kPackers) {
    FourOfRow<T, kIsX> four[kAtOnce];
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int item = begin + n * kPackers, column = first + item / rows * 4;
      const Index row = item % rows;
      if (column < count)
        four[n].load(a, side, firstRow + (row < last ? row : last), fourColumns(a, packed.columns, column, count));
    }
#pragma unroll
    for (int n = 0; n < kAtOnce; ++n) {
      const int item = begin + n * kPackers, quarter = item / rows, left = count - first - 4 * quarter;
      if (quarter < kPackedAtOnce / 4)
        reinterpret_cast<uint2*>(to + quarter / 2 * rows + item % rows)[quarter % 2] =
            left > 0 ? four[n].packed(left) : make_uint2(0, 0);
    }
  }
}

/** The chunk from column \a first on: of P's rows to \a p, of Q's to \a q; null: not these. */
template <typename T, int kTileQ>
__device__ __forceinline__ void packRows(const WgmmaArgs& a, const PackedChunks<kTileQ>& packed, const TileAt& at,
                                         int first, PackedHalf* p, PackedHalf* q) {
  const Index rowP = at.p * kTileP, rowQ = at.q * kTileQ, leftP = a.sizeP - rowP, leftQ = a.sizeQ - rowQ;
  if (a.sideP.isX) {
    if (p) packSide<T, true>(a, packed, a.sideP, rowP, leftP, kTileP, first, p);
    if (q) packSide<T, false>(a, packed, a.sideQ, rowQ, leftQ, kTileQ, first, q);
  } else {
    if (q) packSide<T, true>(a, packed, a.sideQ, rowQ, leftQ, kTileQ, first, q);
    if (p) packSide<T, false>(a, packed, a.sideP, rowP, leftP, kTileP, first, p);
  }
}

constexpr int kPackBarrier = 1 + kTileP / kGroupRows;  // behind those of the parts

/** Of a row that blocks share. */
constexpr int kHalvesShared = kMostShared / kPackedAtOnce * kHalves;

/** Rows of a tile that all blocks share. Whoever asks for them first packs them; nobody waits but for one who is at
 * work, and who waits for nobody. Called by the packers, all together. */
class SharedRows {
 public:
  template <int kTileQ>
  __device__ __forceinline__ SharedRows(const WgmmaArgs& a, PackedChunks<kTileQ>& packed, const TileAt& at, int thread)
      : p(a.sharedRows + at.p * kTileP * kHalvesShared),
        q(a.sharedRows + (a.heights * a.blocks * kTileP + at.q * kTileQ) * kHalvesShared),
        m_claim(a.claims + (thread == 0 ? at.p : a.heights * a.blocks + at.q)),
        m_thread(thread) {
    if (thread < 2) packed.claims[thread] = atomicCAS(m_claim, kNobody, kTaken);
    ptx::syncThreads(kPackBarrier, kPackers);
    mineP = packed.claims[0] == kNobody;
    mineQ = packed.claims[1] == kNobody;
  }
  /** Behind the packing of what is this block's: waits for the rest. */
  __device__ __forceinline__ void wait() const {
    ptx::syncThreads(kPackBarrier, kPackers);
    if (m_thread < 2) {
      if (m_thread == 0 ? mineP : mineQ) ptx::countWritten(m_claim);  // taken, plus one: done
      while (ptx::loadCount(m_claim) != kDone) __nanosleep(50);
    }
    ptx::syncThreads(kPackBarrier, kPackers);
  }
  /** A chunk, to shared memory. */
  template <int kTileQ>
  __device__ __forceinline__ void copy(int chunk, PackedHalf* toP, PackedHalf* toQ) const {
    copyPieces<kHalves * kTileP>(p + chunk * kHalves * kTileP, toP);
    copyPieces<kHalves * kTileQ>(q + chunk * kHalves * kTileQ, toQ);
  }

  PackedHalf* const p;
  PackedHalf* const q;
  bool mineP, mineQ;

 private:
  template <int kCount>
  __device__ __forceinline__ void copyPieces(const PackedHalf* from, PackedHalf* to) const {
#pragma unroll 4
    for (int piece = m_thread; piece < kCount; piece += kPackers)
      reinterpret_cast<uint4*>(to)[piece] = __ldcg(reinterpret_cast<const uint4*>(from) + piece);
  }

  enum State : unsigned { kNobody, kTaken, kDone };
  unsigned* m_claim;  // of p by thread 0, of q by thread 1
  int m_thread;
};

/** What the packers do: kPackers threads behind the copying warp. */
template <typename T, int kTileQ>
__device__ __forceinline__ void pack(const WgmmaArgs& a, PackedChunks<kTileQ>& packed) {
  const int thread = static_cast<int>(threadIdx.x) - kConsumers - 32;
  if (thread < 32) listColumns(a, packed);
  ptx::syncThreads(kPackBarrier, kPackers);
  const int count = packed.count;
  if (count == 0) return;
  const bool shares = a.claims && count <= kMostShared;
  Ring<kPackedSlots> ring;
  const auto fill = [&](auto&& work) {
    ptx::wait(ptx::sharedAddress(&packed.empty[ring.index]), ring.parity ^ 1);
    work(packed.p[ring.index][0], packed.q[ring.index][0]);
    ptx::fenceAsyncProxy();
    ptx::arrive(ptx::sharedAddress(&packed.full[ring.index]));
    ring.advance();
  };
  for (Walk walk(a); !walk.done(); walk.advance()) {
    const TileAt at = walk.tile();
    if (!shares) {
      for (int first = 0; first < count; first += kPackedAtOnce)
        fill([&](PackedHalf* p, PackedHalf* q) { packRows<T>(a, packed, at, first, p, q); });
      continue;
    }
    const SharedRows shared(a, packed, at, thread);
    for (int first = 0; (shared.mineP || shared.mineQ) && first < count; first += kPackedAtOnce) {
      const int chunk = first / kPackedAtOnce;
      packRows<T>(a, packed, at, first, shared.mineP ? shared.p + chunk * kHalves * kTileP : nullptr,
                  shared.mineQ ? shared.q + chunk * kHalves * kTileQ : nullptr);
    }
    shared.wait();
    for (int first = 0; first < count; first += kPackedAtOnce)
      fill([&](PackedHalf* p, PackedHalf* q) { shared.copy<kTileQ>(first / kPackedAtOnce, p, q); });
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_PACK_CUH
