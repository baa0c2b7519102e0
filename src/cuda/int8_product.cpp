// SPDX-License-Identifier: MPL-2.0
// LLM.int8() on the device, from the outside: quantise the activations, choose a way, and the way through cuBLASLt.
#include "int8_product.h"

#include <algorithm>
#include <cassert>

#include "int8_kernels.h"
#include "plan_cache.h"
#include "quantizers.h"
#include "row_panels.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** Integer sums of a slab of Y: written by cuBLASLt, read once by the epilogue, and small enough to stay in the
 * second-level cache in between (50 MB on an H100 or H200). 2²³ sums are also 256 tiles of 128×256: two full rounds of
 * 132 multiprocessors, but for 3 %. */
constexpr Index kSlabSums = Index{1} << 23;
constexpr Index kSlabMaxRows = Index{1} << 15;  // so that a slab has at least 256 columns
constexpr Index kSlabColumns = 256;
/** Padded copies of weight codes, where they are needed, are made a slab at a time too. */
constexpr Index kPaddedBytes = Index{1} << 26;

/** Sums contiguous along Y's columns, or along its rows: as Y is. */
bool sumsByColumns(const DenseView& y) { return y.rowStride == 1 && y.colStride != 1; }

/** The codes of some rows of W as cuBLASLt takes them. */
struct Factor {
  const std::int8_t* codes;
  Index stride;
  Index rows;
  Index depth;
};

Gemm gemmOf(const Factor& a, const Factor& b, std::int32_t* sums, Index stride) {
  Gemm g;
  g.factors = CUDA_R_8I;
  g.result = CUDA_R_32I;
  g.transposeA = true;
  g.m = a.rows;
  g.n = b.rows;
  g.k = a.depth;
  g.a = a.codes;
  g.lda = a.stride;
  g.b = b.codes;
  g.ldb = b.stride;
  g.d = sums;
  g.ldd = stride;
  return g;
}

/** Columns of Y that are computed at a time. */
Index slabColumns(const DeviceDecomposedProduct& p, Index rows) {
  const Index n = p.w.rows;
  Index most = std::max(kSlabColumns, kSlabSums / rows);
  if (!hasAlignedRows(p.w)) most = std::min(most, std::max(kSlabColumns, kPaddedBytes / p.w.cols));
  const Index slabs = (n + most - 1) / most;
  return std::min(roundUp((n + slabs - 1) / slabs, kSlabColumns), roundUp(n, kSlabColumns));
}

/** LLM.int8() through cuBLASLt, slab by slab of Y. */
class CublasLtProduct {
 public:
  CublasLtProduct(const DeviceDecomposedProduct& p, Context& context)
      : m_p(p),
        m_context(context),
        m_scratch(context),
        m_colMajor(sumsByColumns(p.y)),
        m_depth(roundUp(p.w.cols, kCodeAlignment)),
        m_slabRows(std::min(p.y.rows, kSlabMaxRows)),
        m_slabCols(slabColumns(p, m_slabRows)),
        m_stride(roundUp(m_colMajor ? m_slabRows : m_slabCols, 8)),
        m_sums(m_scratch.array<std::int32_t>(m_stride * (m_colMajor ? m_slabCols : m_slabRows))),
        m_outliers(gatherOutliers(p, m_scratch, context)) {}

  void run() {
    const Index n = m_p.w.rows;
    for (Index col = 0; col < n;) {
      const Index cols = columnsFrom(col);
      const Factor w = weights(col, cols);
      for (Index row = 0; row < m_p.y.rows; row += m_slabRows)
        multiply(w, row, std::min(m_slabRows, m_p.y.rows - row), col, cols);
      col += cols;
    }
  }

 private:
  /** cuBLASLt takes rows of its first factor by fours. Those of X have room behind them; of W, the last few go alone.
   */
  Index columnsFrom(Index col) const {
    const Index left = m_p.w.rows - col;
    if (left > m_slabCols) return m_slabCols;
    return m_colMajor || left < kCodeRows ? left : left / kCodeRows * kCodeRows;
  }

  Factor weights(Index col, Index cols) {
    const std::int8_t* const codes = codesOf(m_p.w) + col * m_p.w.stride;
    if (hasAlignedRows(m_p.w) && (m_colMajor || cols % kCodeRows == 0)) return {codes, m_p.w.stride, cols, m_depth};
    const Index rows = roundUp(cols, kCodeRows);
    if (rows > m_paddedRows) {
      m_padded = m_scratch.array<std::int8_t>(rows * m_depth);
      m_paddedRows = rows;
    }
    copyCodes(codes, m_p.w.stride, 1, cols, m_p.w.cols, m_padded, rows, m_depth, m_context);
    return {m_padded, m_depth, rows, m_depth};
  }

  void multiply(const Factor& w, Index row, Index rows, Index col, Index cols) {
    const DeviceActivations& a = m_p.activations;
    const Factor x = {a.codes + row * a.stride, a.stride, m_colMajor ? roundUp(rows, kCodeRows) : rows, m_depth};
    runGemm(m_colMajor ? gemmOf(x, w, m_sums, m_stride) : gemmOf(w, x, m_sums, m_stride), m_context);
    SumWindow window;
    window.sums = m_sums;
    window.stride = m_stride;
    window.colMajor = m_colMajor;
    window.row = row;
    window.col = col;
    window.rows = rows;
    window.cols = cols;
    scaleSums(m_p, window, m_outliers, m_context);
  }

  const DeviceDecomposedProduct& m_p;
  Context& m_context;
  Scratch m_scratch;
  bool m_colMajor;
  Index m_depth;
  Index m_slabRows;
  Index m_slabCols;
  Index m_stride;
  std::int32_t* m_sums;
  GatheredOutliers m_outliers;
  std::int8_t* m_padded = nullptr;
  Index m_paddedRows = 0;
};

constexpr DecomposedLowering kDecomposedLowerings[] = {
    {"int8.stream", refuseDecomposedStream, runDecomposedStream},        // up to 64 rows of X: W streams by once
    {"int8.decode", refuseDecomposedDecode, runDecomposedDecode},        // up to 16, any alignment, before sm_90a
    {"int8.wgmma", refuseDecomposedWgmma, runDecomposedWgmma},           // sums never leave the registers
    {"int8.cublaslt", refuseDecomposedCublasLt, runDecomposedCublasLt},  // sums pass through the second-level cache
    {"int8.reference", refuseDecomposedReference, runDecomposedReference},
};

/** Of a product whose activations are yet to be quantised. */
DeviceDecomposedProduct decomposed(const QuantizedProduct& p) {
  DeviceDecomposedProduct d;
  d.x = p.x;
  d.w = p.w;
  d.y = p.y;
  d.epilogue = p.epilogue;
  return d;
}

/** Activations quantised for a product that follows at once. */
struct QuantizedTokens {
  Int8Codes codes;
  OutlierMarks marks;
  DeviceDecomposedProduct product;  // with no list of outliers

  /** \param tensorCores  whether outliers go by them: int8.wgmma */
  QuantizedTokens(const QuantizedProduct& p, bool tensorCores, Scratch& scratch, Context& context)
      : codes(newCodes(p.x, scratch)), product(decomposed(p)) {
    float* const stats = scratch.array<float>(p.x.rows);
    if (p.w.outlierThreshold > 0) {
      marks.words = scratch.array<std::uint32_t>(markChunks(p.x.rows) * markWords(p.x.cols));
      marks.clearsOutliers = tensorCores;
      marks.claimCount = tensorCores ? mostClaims(p.y.rows, p.y.cols) : 0;
      if (tensorCores) marks.claims = scratch.array<unsigned>(marks.claimCount);
    }
    quantizeInt8Tokens(p.x, p.w.outlierThreshold, codes, stats, marks, context);
    product.activations = {codes.data, codes.stride, stats, nullptr, nullptr};
  }
};

const char* refuseOthers(const QuantizedProduct& p) {
  if (p.w.format != WeightFormat::kInt8) return "needs int8 weights";
  if (!p.w.int8Activations) return "the activations stay as they are";
  if (!p.transposed) return "computes X·Wᵀ only";
  return nullptr;
}

template <typename Refuse>
const char* refuseUnless(Refuse&& refuse, const QuantizedProduct& p, const Context& context) {
  const char* const why = refuseOthers(p);
  return why ? why : refuse(decomposed(p), context);
}

template <typename Run>
void quantizeAndRun(Run&& run, const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  Scratch scratch(context);
  DeviceDecomposedProduct d = decomposed(p);
  d.activations = quantizeActivations(p.x, p.w.outlierThreshold, scratch, context);
  run(d, context);
}

}  // namespace

LoweringTable<DecomposedLowering> deviceDecomposedLowerings() {
  return {std::begin(kDecomposedLowerings), std::end(kDecomposedLowerings)};
}

void multiplyDecomposed(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  const DecomposedLowering* row = deviceDecomposedLowerings().begin();
  while (row->refuse(p, context)) ++row;
  row->run(p, context);
}

Int8Codes newCodes(const ConstDenseView& x, Scratch& scratch) {
  Int8Codes codes;
  codes.stride = std::max(kCodeAlignment, roundUp(x.cols, kCodeAlignment));
  codes.data = scratch.array<std::int8_t>(roundUp(x.rows, kCodeRows) * codes.stride);
  return codes;
}

DeviceActivations quantizeActivations(const ConstDenseView& x, float threshold, Scratch& scratch, Context& context) {
  const Int8Codes codes = newCodes(x, scratch);
  float* const stats = scratch.array<float>(x.rows);
  DeviceOutliers outliers;
  if (threshold > 0) {
    outliers.mask = scratch.array<std::uint8_t>(x.cols);
    outliers.columns = scratch.array<int>(x.cols);
    outliers.count = scratch.array<int>(1);
  }
  quantizeInt8Rows(x, threshold, true, codes, stats, outliers, context);
  return {codes.data, codes.stride, stats, outliers.columns, outliers.count};
}

const char* refuseDecomposedCublasLt(const DeviceDecomposedProduct& p, const Context& context) {
  if (p.w.cols == 0) return "nothing to sum";
  if (p.w.cols > kInt8MaxDepth) return "32 bits may not hold the sums of so many columns";
  const DeviceProperties& device = context.properties();
  if (!supportsIgemmlt(device)) return "the device has no int8 tensor cores";
  return nullptr;
}

void runDecomposedCublasLt(const DeviceDecomposedProduct& p, Context& context) {
  if (p.y.rows > 0 && p.y.cols > 0) CublasLtProduct(p, context).run();
}

const char* refuseDecomposedReference(const DeviceDecomposedProduct&, const Context&) { return nullptr; }

const char* refuseInt8Stream(const QuantizedProduct& p, const Context& c) {
  // Measured: 8 us against 9 for 4096×4096, less for larger ones.
  if (p.x.rows == 1 && p.w.outlierThreshold == 0 && !refuseInt8DecodeFused(p, c))
    return "one row of X without outliers, which int8.decode.fused quantises by itself";
  return refuseUnless(refuseDecomposedStream, p, c);
}
void runInt8Stream(const QuantizedProduct& p, Context& c) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  if (!hasContiguousRows(p.x))
    return quantizeAndRun([](const auto& d, Context& context) { runDecomposedStream(d, context); }, p, c);
  Scratch scratch(c);
  const QuantizedTokens tokens(p, /*tensorCores=*/false, scratch, c);
  runDecomposedStream(tokens.product, tokens.marks.words, c);
}

const char* refuseInt8Decode(const QuantizedProduct& p, const Context& c) {
  return refuseUnless(refuseDecomposedDecode, p, c);
}
void runInt8Decode(const QuantizedProduct& p, Context& c) { quantizeAndRun(runDecomposedDecode, p, c); }

const char* refuseInt8Wgmma(const QuantizedProduct& p, const Context& c) {
  return refuseUnless(refuseDecomposedWgmma, p, c);
}
void runInt8Wgmma(const QuantizedProduct& p, Context& c) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  if (!hasContiguousRows(p.x) || (p.w.outlierThreshold > 0 && !takesPackedOutliers(decomposed(p))))
    return quantizeAndRun([](const auto& d, Context& context) { runDecomposedWgmma(d, context); }, p, c);
  Scratch scratch(c);
  const QuantizedTokens tokens(p, /*tensorCores=*/true, scratch, c);
  runDecomposedWgmma(tokens.product, tokens.marks, c);
}

const char* refuseInt8CublasLt(const QuantizedProduct& p, const Context& c) {
  return refuseUnless(refuseDecomposedCublasLt, p, c);
}
void runInt8CublasLt(const QuantizedProduct& p, Context& c) { quantizeAndRun(runDecomposedCublasLt, p, c); }

const char* refuseInt8Reference(const QuantizedProduct& p, const Context& c) {
  return refuseUnless(refuseDecomposedReference, p, c);
}
void runInt8Reference(const QuantizedProduct& p, Context& c) { quantizeAndRun(runDecomposedReference, p, c); }

void int8Gemm(const Int8Product& p, Context& context) {
  assert(p.k <= kInt8MaxDepth && "int8Gemm: sums of so many codes may not fit 32 bits");
  if (p.m == 0 || p.n == 0) return;
  Scratch scratch(context);
  const Index depth = roundUp(p.k, kCodeAlignment);
  const auto factor = [&](const std::int8_t* codes, Index stride, Index rows, Index multiple) -> Factor {
    const bool fits =
        isAligned(codes, kCodeAlignment) && stride % kCodeAlignment == 0 && p.k == depth && stride >= depth;
    if (fits && rows % multiple == 0) return {codes, stride, rows, depth};
    const Index padded = roundUp(rows, multiple);
    std::int8_t* const copy = scratch.array<std::int8_t>(padded * depth);
    copyCodes(codes, stride, 1, rows, p.k, copy, padded, depth, context);
    return {copy, depth, padded, depth};
  };
  // Sums contiguous along C's rows go by B first, as cuBLASLt counts from column to column.
  const Factor b = factor(p.b, p.bStride, p.n, kCodeRows), a = factor(p.a, p.aStride, p.m, 1);
  const bool inPlace =
      p.cColStride == 1 && p.cRowStride >= p.n && p.cRowStride % kCodeRows == 0 && b.rows == p.n && isAligned(p.c, 16);
  if (inPlace) return runGemm(gemmOf(b, a, p.c, p.cRowStride), context);
  std::int32_t* const sums = scratch.array<std::int32_t>(p.m * b.rows);
  runGemm(gemmOf(b, a, sums, b.rows), context);
  copySums(sums, b.rows, p, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
