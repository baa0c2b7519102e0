// SPDX-License-Identifier: MPL-2.0
// dense_update.cu: which products dense_update.cuh takes, and by which tiles.
//
//   depth ≤ 32, 64, 128   tiles of that depth; what a sum is short of it is zeros
//   Y of odd addresses    loaded and stored one value at a time, at depth 128
//
// Each multiprocessor gets as many blocks as stay on it, and each block an equal share of Y's patches.
#include "dense_update.h"

#include <algorithm>

#include "alignment.h"
#include "dense_orientation.h"
#include "dense_update.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kMostDepth = 128;

// H200, bf16, 4096×4096 of Y by 16, 64 and 128: 23.1, 24.6 and 30.3 us; with 256 rows of A a block 23.1, 25.2 and 31.4,
// 512 24.8, 27.9 and 35.3; Y by cp.async through a ring of stages 30, 31 to 33 and 36 to 37. Reading and writing Y
// alone takes 18.2.
template <int kDepth>
using TilesFor = update::Tiles<kDepth, 2, 8, 2>;

bool isSixteenBits(ScalarType scalar) { return scalar == ScalarType::kHalf || scalar == ScalarType::kBFloat16; }

/** Whether columns are read by 16 bytes, without a rest. */
template <typename View>
bool hasVectorColumns(const View& v) {
  return v.rowStride == 1 && v.rows % kEight == 0 && isAligned(v.data, 16) &&
         (v.cols <= 1 || v.colStride % kEight == 0);
}

update::Problem problemOf(const DenseProduct& p) {
  const bool byRows = hasVectorColumns(p.a), byDepth = hasVectorColumns(p.a.transpose());
  return {p, byRows || (!byDepth && p.a.rowStride == 1), byRows || byDepth, hasVectorColumns(p.b)};
}

template <typename T, typename Tiles, bool kVectors>
void launchUpdate(const DenseProduct& p, Context& context) {
  const Index patches = update::Patches<Tiles>(p.y).count();
  const Index blocks = std::min<Index>(patches, Index{Tiles::kBlocks} * context.multiprocessors());
  launchEarly("mma.update", update::updateKernel<T, Tiles, kVectors>,
              {dim3(static_cast<unsigned>(blocks)), Tiles::kThreads, Tiles::kSharedBytes}, context, problemOf(p));
}

template <typename T>
void launchFor(const DenseProduct& p, Context& context) {
  if (!hasVectorColumns(p.y) || !hasVectorColumns(p.epilogue.residual))
    return launchUpdate<T, TilesFor<kMostDepth>, false>(p, context);
  if (p.a.cols <= 32) return launchUpdate<T, TilesFor<32>, true>(p, context);
  if (p.a.cols <= 64) return launchUpdate<T, TilesFor<64>, true>(p, context);
  return launchUpdate<T, TilesFor<kMostDepth>, true>(p, context);
}

}  // namespace

const char* refuseDenseUpdate(const DenseProduct& product, const Context&) {
  const ScalarType scalar = product.y.scalar;
  if (!isSixteenBits(scalar) || product.a.scalar != scalar || product.b.scalar != scalar)
    return "A, B and Y are not of one type of 16 bits";
  if (!isLinear(product.epilogue)) return "the epilogue has a bias, an activation or bounds";
  if (!product.epilogue.residual.data) return "nothing is added, so that cuBLASLt writes Y once too";
  if (product.a.cols > kMostDepth) return "the sums are of more than 128 products";
  const DenseProduct p = orient(product);
  if (!hasContiguousColumns(p.y)) return "neither rows nor columns of Y are contiguous";
  if (!hasContiguousColumns(p.epilogue.residual)) return "the residual lies across Y";
  return nullptr;
}

void runDenseUpdate(const DenseProduct& product, Context& context) {
  if (product.y.rows == 0 || product.y.cols == 0) return;
  const DenseProduct p = orient(product);
  dispatchSixteenBits(p.y.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(p, context); });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
