// SPDX-License-Identifier: MPL-2.0
// How outlier columns are packed for the tensor cores beside the products of int8_gemm_sm90.cu.
//
// Three warps of the third warpgroup list the columns once, and bring those of a tile while the others multiply it:
// W's codes, and what X's codes left of X.
//
//     packers    │ list │ tile 0 │ tile 1 │ …          ring of two chunks:  P 128 rows │ Q 128 or 256
//     consumers  │ multiply tile 0 │ + │ multiply tile 1 │ + │ …            of 16 columns, 32 bytes a row
//
// Rows     A value of a column costs a sector of 32 bytes. Where tiles are more than blocks, who first comes to 128
// rows
//          of P, or to Q's, packs them to memory for all (shareRows()), and a tile takes 32 bytes a row from there:
//          gathered anew for each tile, ten columns cost a tile of 128×256 some 6 us of 22.
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
  int count = 0;
  if (a.marks) {
    count = listMarked<4, 8>(a.marks, markChunks(a.p.x.rows), a.p.w.cols, [&](int o, int k) {
      a.columns[o] = k;
      if (o < kHeldColumns) packed.columns[o] = k;
    });
  } else {
    count = outlierCount(a.p.activations);
    for (int o = lane; o < min(count, kHeldColumns); o += 32) packed.columns[o] = a.p.activations.outliers[o];
  }
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
template <typename T, bool kIsX, int kAtOnce, int kTileQ>
__device__ __forceinline__ void packSide(const WgmmaArgs& a, const PackedChunks<kTileQ>& packed, const Side& side,
                                         Index firstRow, Index there, int rows, int first, PackedRow* to) {
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
        reinterpret_cast<uint2*>(to + item % rows)[quarter] = left > 0 ? four[n].packed(left) : make_uint2(0, 0);
    }
  }
}

/** The chunk from column \a first on: of P's rows to \a p, of Q's to \a q; null: not these. */
template <typename T, int kTileQ>
__device__ __forceinline__ void packRows(const WgmmaArgs& a, const PackedChunks<kTileQ>& packed, const TileAt& at,
                                         int first, PackedRow* p, PackedRow* q) {
  const Index rowP = at.p * kTileP, rowQ = at.q * kTileQ;
  if (a.sideP.isX) {
    if (q) packSide<T, false, 4>(a, packed, a.sideQ, rowQ, a.sizeQ - rowQ, kTileQ, first, q);
    if (p) packSide<T, true, 2>(a, packed, a.sideP, rowP, a.sizeP - rowP, kTileP, first, p);
  } else {
    if (p) packSide<T, false, 4>(a, packed, a.sideP, rowP, a.sizeP - rowP, kTileP, first, p);
    if (q) packSide<T, true, 2>(a, packed, a.sideQ, rowQ, a.sizeQ - rowQ, kTileQ, first, q);
  }
}

constexpr int kPackBarrier = 1 + kTileP / kGroupRows;  // behind those of the parts
enum Claim : unsigned { kNobody, kTaken, kDone };      // of rows that tiles share

/** Has the rows of a tile packed where all blocks find them: by whoever asks for them first. Nobody waits but for one
 * who is at work, and who waits for nobody. */
template <typename T, int kTileQ>
__device__ __forceinline__ void shareRows(const WgmmaArgs& a, PackedChunks<kTileQ>& packed, const TileAt& at,
                                          PackedRow* p, PackedRow* q) {
  const int thread = static_cast<int>(threadIdx.x) - kConsumers - 32;
  unsigned* const claim = a.claims + (thread == 0 ? at.p : a.heights * a.blocks + at.q);
  if (thread < 2) packed.claims[thread] = atomicCAS(claim, kNobody, kTaken);
  ptx::syncThreads(kPackBarrier, kPackers);
  const bool mineP = packed.claims[0] == kNobody, mineQ = packed.claims[1] == kNobody;
  for (int first = 0; (mineP || mineQ) && first < packed.count; first += kPackedAtOnce) {
    const int chunk = first / kPackedAtOnce;
    packRows<T>(a, packed, at, first, mineP ? p + chunk * kTileP : nullptr, mineQ ? q + chunk * kTileQ : nullptr);
  }
  ptx::syncThreads(kPackBarrier, kPackers);
  if (thread < 2) {
    if (thread == 0 ? mineP : mineQ) ptx::countWritten(claim);  // taken, plus one: done
    while (ptx::loadCount(claim) != kDone) __nanosleep(50);
  }
  ptx::syncThreads(kPackBarrier, kPackers);
}

/** What the packers do: kPackers threads behind the copying warp. */
template <typename T, int kTileQ>
__device__ __forceinline__ void pack(const WgmmaArgs& a, PackedChunks<kTileQ>& packed) {
  const int thread = static_cast<int>(threadIdx.x) - kConsumers - 32;
  if (thread < 32) listColumns(a, packed);
  ptx::syncThreads(kPackBarrier, kPackers);
  const int count = packed.count;
  const bool shares = a.claims && count > 0 && count <= kMostShared;
  Ring<kPackedSlots> ring;
  for (Walk walk(a); !walk.done(); walk.advance()) {
    const TileAt at = walk.tile();
    PackedRow* const p = a.sharedRows + at.p * (kMostShared / kPackedAtOnce * kTileP);
    PackedRow* const q = a.sharedRows + (a.heights * a.blocks * kTileP + at.q * kTileQ) * (kMostShared / kPackedAtOnce);
    if (shares) shareRows<T>(a, packed, at, p, q);
    for (int first = 0; first < max(count, 1); first += kPackedAtOnce, ring.advance()) {  // one of zeros at least
      ptx::wait(ptx::sharedAddress(&packed.empty[ring.index]), ring.parity ^ 1);
      PackedRow* const rows = packed.rows[ring.index];
      if (shares) {
        const int chunk = first / kPackedAtOnce;
        constexpr int kPieces = static_cast<int>(sizeof(PackedRow) / sizeof(uint4));
#pragma unroll 4
        for (int piece = thread; piece < PackedChunks<kTileQ>::kRows * kPieces; piece += kPackers) {
          const bool ofP = piece < kTileP * kPieces;
          const PackedRow* const from = ofP ? p + chunk * kTileP : q + chunk * kTileQ - kTileP;
          reinterpret_cast<uint4*>(rows)[piece] = __ldcg(reinterpret_cast<const uint4*>(from) + piece);
        }
      } else {
        packRows<T>(a, packed, at, first, rows, rows + kTileP);
      }
      ptx::arrive(ptx::sharedAddress(&packed.full[ring.index]));
    }
  }
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_PACK_CUH
