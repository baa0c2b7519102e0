// SPDX-License-Identifier: MPL-2.0
#include "dense_product.h"

#include <algorithm>

#include "context_state.h"
#include "dense_orientation.h"
#include "dense_view.h"
#include "plan_cache.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** Of float sums between a product and its epilogue: most of an H200's 50 MB of second-level cache, and columns enough
 * to keep its multiprocessors busy (8192 rows: 1024 columns, four waves of 128×128 tiles). */
constexpr Index kSlabBytes = Index{32} << 20;
constexpr Index kSlabStep = 128;  // columns; a tile of most kernels

cudaDataType_t dataTypeOf(ScalarType scalar) {
  return scalar == ScalarType::kHalf ? CUDA_R_16F : scalar == ScalarType::kBFloat16 ? CUDA_R_16BF : CUDA_R_32F;
}

/** From column to column of a matrix whose columns are contiguous. */
template <typename View>
Index columnStride(const View& v) {
  return v.cols <= 1 ? std::max<Index>(v.rows, 1) : v.colStride;
}

/** D = A·B with D's columns contiguous; cuBLASLt's terms. */
Gemm gemmOf(const ConstDenseView& a, const ConstDenseView& b, const DenseView& d) {
  const Storage storedA = storageOf(a), storedB = storageOf(b);
  Gemm g;
  g.factors = dataTypeOf(a.scalar);
  g.result = dataTypeOf(d.scalar);
  g.transposeA = storedA.transposed;
  g.transposeB = storedB.transposed;
  g.m = d.rows;
  g.n = d.cols;
  g.k = a.cols;
  g.a = a.data;
  g.lda = storedA.ld;
  g.b = b.data;
  g.ldb = storedB.ld;
  g.d = d.data;
  g.ldd = columnStride(d);
  return g;
}

/** Whether cuBLASLt rounds its float sums to this type of Y. */
bool storesAs(const DenseProduct& p) { return p.y.scalar == p.a.scalar || p.y.scalar == ScalarType::kFloat; }

bool addsToItself(const DenseProduct& p) {
  return p.epilogue.residual.data && sameElements(p.epilogue.residual, asConst(p.y));
}

/** Whether cuBLASLt's alpha, beta and C say it all. sign·alpha is exact for a sign of ±1. A factor of 0 would keep
 * cuBLASLt from reading what it scales, and NaNs in there would be lost. Only to float is C added: some of its 16-bit
 * kernels round the product before they add. */
bool fitsCublasLt(const DenseProduct& p) {
  const Epilogue& e = p.epilogue;
  const bool scales = isLinear(e) && e.alpha != 0 && (e.sign == 1 || e.sign == -1);
  const bool adds =
      !e.residual.data || (p.y.scalar == ScalarType::kFloat && e.residualSign != 0 && hasContiguousColumns(e.residual));
  return scales && adds && p.a.cols > 0 && storesAs(p) && hasContiguousColumns(p.y);
}

/** Where the sums of a slab wait for their epilogue: in Y, if it can hold them and is not needed by the epilogue. */
bool sumsFitIntoY(const DenseProduct& p) {
  return p.y.scalar == ScalarType::kFloat && hasContiguousColumns(p.y) && !addsToItself(p);
}

/** Columns of Y in a slab. */
Index slabColumns(const DenseProduct& p) {
  const Index fit = kSlabBytes / (std::max<Index>(p.y.rows, 1) * static_cast<Index>(sizeof(float)));
  return std::min(p.y.cols, std::max(fit / kSlabStep, Index{1}) * kSlabStep);
}

void runWithEpilogue(const DenseProduct& p, Context& context) {
  const bool inPlace = sumsFitIntoY(p);
  const Index width = slabColumns(p);
  Scratch scratch(context);
  float* const memory = inPlace ? nullptr : scratch.array<float>(p.y.rows * width);
  for (Index begin = 0; begin < p.y.cols; begin += width) {
    const Index count = std::min(width, p.y.cols - begin);
    const DenseView y = columns(p.y, begin, count);
    const DenseView sums = inPlace ? y : DenseView{memory, ScalarType::kFloat, p.y.rows, count, 1, p.y.rows};
    runGemm(gemmOf(p.a, columns(p.b, begin, count), sums), context);
    elementwise(asConst(sums), y, columns(p.epilogue, p.y.scalar, begin, count), context);
  }
}

const char* refuseOperands(const DenseProduct& p) {
  for (const ScalarType scalar : {p.a.scalar, p.b.scalar, p.y.scalar}) {
    if (scalar == ScalarType::kDouble) return "double operands stay on the host";
  }
  if (p.a.scalar != p.b.scalar) return "A and B are of different scalar types";
  if (storageOf(p.a).ld == 0) return "neither rows nor columns of A are contiguous";
  if (storageOf(p.b).ld == 0) return "neither rows nor columns of B are contiguous";
  return nullptr;
}

}  // namespace

const char* refuseDenseCublasLt(const DenseProduct& product, const Context&) {
  if (const char* why = refuseOperands(product)) return why;
  const DenseProduct p = orient(product);
  // Slabs are narrower than Y, so what suits all of it suits them; scratch is packed.
  const DenseView packed = {nullptr, ScalarType::kFloat, p.y.rows, p.y.cols, 1, p.y.rows};
  return refuseGemm(gemmOf(p.a, p.b, hasContiguousColumns(p.y) && storesAs(p) ? p.y : packed));
}

void runDenseCublasLt(const DenseProduct& product, Context& context) {
  if (product.y.rows == 0 || product.y.cols == 0) return;
  const DenseProduct p = orient(product);
  if (!fitsCublasLt(p)) return runWithEpilogue(p, context);
  const Epilogue& e = p.epilogue;
  Gemm g = gemmOf(p.a, p.b, p.y);
  g.alpha = e.sign * e.alpha;
  g.c = e.residual.data;
  g.ldc = columnStride(e.residual);
  g.beta = e.residualSign;
  runGemm(g, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
