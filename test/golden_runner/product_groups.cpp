// SPDX-License-Identifier: MPL-2.0
// product_groups.cpp: matmul_8bit_vectorwise, matmul_8bit and matmul_4bit: products and gradients.
//
// Ours are held, entry by entry, to the float64 product of the dequantised operands within the bound of our arithmetic:
// exact integer sums or float sums, and one rounding of the result. Their relative Frobenius error may not exceed that
// of the recorded output, which is measured against the product of its own operands: the original rounds activations to
// half before it quantises them. (For 16-bit results: but for ties, which either may win.)
#include <eigen_q/Core>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

using ArrayXXd = Eigen::ArrayXXd;

constexpr double kFloatUnit = 0x1p-24;

/** What a product should be, and how far its arithmetic may lead away from it before the result is rounded. */
struct Expected {
  MatrixXdRow exact;
  ArrayXXd sums;     // by the rounding of sums
  ArrayXXd weights;  // by that of decoded weights
  bool anyOrder = false;
};

double frobeniusError(const MatrixXdRow& found, const MatrixXdRow& exact) {
  const double size = exact.norm();
  return size > 0 ? (found - exact).norm() / size : (found - exact).norm();
}

/** \param found  ours   \param recorded  the original's, and \a itsExact the product of its own operands */
template <typename Found>
void compareProduct(const char* what, const Found& found, const Expected& expected, const test::Tensor& recorded,
                    const MatrixXdRow& itsExact, CaseReport& report) {
  const MatrixXdRow original = asDouble(recorded), ours = found.template cast<double>();
  if (ours.rows() != original.rows() || ours.cols() != original.cols())
    return report.fail(std::string(what) + ": shapes differ");
  const double u = unitRoundoff(recorded.dtype), smallest = recorded.dtype == "F16" ? 0x1p-25 : 0x1p-133;
  const ArrayXXd slack = expected.sums + expected.weights;
  const ArrayXXd bound = u * (expected.exact.array().abs() + slack) + slack + smallest;
  if (!((ours - expected.exact).array().abs() <= bound).all())
    report.fail(std::string(what) + ": beyond the bound of its arithmetic");
  const double error = frobeniusError(ours, expected.exact), itsError = frobeniusError(original, itsExact);
  report.worst = std::max(report.worst, error);
  // Where both round the same sum to 16 bits, float arithmetic may bring one of them to the other side of a tie.
  const bool mayDiffer = (u > kFloatUnit || expected.anyOrder) && expected.exact.norm() > 0;
  const double ties = mayDiffer ? expected.sums.matrix().norm() / expected.exact.norm() : 0;
  if (error > itsError + ties) {
    char text[120];
    std::snprintf(text, sizeof text, "%s: relative error %.17g, the original's %.17g", what, error, itsError);
    report.fail(text);
  }
  // The original may round through half, each weight and each term besides; were it further away, its output would not
  // be the product that we take it for.
  if (!(itsError <= 8 * std::max(u, kHalfRoundoff)))
    report.fail(std::string(what) + ": the file's own error is " + std::to_string(itsError));
}

/** A product by \a roundings in float of sums of terms that add up to \a magnitudes.
 * \param u  unit roundoff of the activations: that of decoded weights, where they are rounded */
Expected expectedBy(const Arithmetic& arithmetic, MatrixXdRow exact, Index roundings, const ArrayXXd& magnitudes,
                    double u) {
  const double weights = arithmetic.roundsWeights ? u : 0;
  return {std::move(exact), static_cast<double>(roundings) * arithmetic.unit * magnitudes, weights * magnitudes,
          arithmetic.ordersFreely};
}

Expected expectedExactly(MatrixXdRow exact, double slack = 0) {
  const ArrayXXd sums = ArrayXXd::Constant(exact.rows(), exact.cols(), slack);
  return {std::move(exact), sums, 0 * sums};
}

Eigen::RowVectorXd biasOf(const Case& c, Index outputs) {
  if (!c.parameter<bool>("bias")) return Eigen::RowVectorXd::Zero(outputs);
  return asDouble(c.tensor("bias"));
}

const Eigen::RowVectorXd* biasArgument(const Case& c, const Eigen::RowVectorXd& bias) {
  return c.parameter<bool>("bias") ? &bias : nullptr;
}

void compareBiasGradient(const Case& c, CaseReport& report) {
  if (!c.has("grad_bias")) return;
  const test::Tensor& g = c.tensor("grad_output");
  const MatrixXdRow exact = asDouble(g).colwise().sum();
  compareProduct("grad_bias", c.backend().biasGradient(viewOf(g)), expectedExactly(exact), c.tensor("grad_bias"), exact,
                 report);
}

/** G·W for a W that is decoded to float. \param itsW  the original's */
void compareInputGradient(const Case& c, const MatrixXdRow& found, const MatrixXdRow& w, const MatrixXdRow& itsW,
                          CaseReport& report) {
  const MatrixXdRow g = asDouble(c.tensor("grad_output"));
  const Expected expected = expectedBy(c.backend().arithmetic(), g * w, g.cols() + 4,
                                       (g.cwiseAbs() * w.cwiseAbs()).array(), unitRoundoff(c.tensor("grad_A").dtype));
  compareProduct("grad_A", found, expected, c.tensor("grad_A"), g * itsW, report);
}

float throughHalf(float v) { return internal::halfToFloat(internal::floatToHalf(v)); }

RowMajorMatrix<float> throughHalf(const RowMajorMatrix<float>& m) {
  return m.unaryExpr([](float v) { return throughHalf(v); });
}

MatrixXdRow decodeRows(const Int8Codes& codes, const Eigen::VectorXf& stats) {
  return (stats.cast<double>() / 127).asDiagonal() * codes.cast<double>();
}

/** X̂·Ŵᵀ + Xₒ·Wₒᵀ + b: \a quantized is what is quantised, \a a what outlier columns are read from. */
Expected decomposedProduct(const RowMajorMatrix<float>& quantized, const RowMajorMatrix<float>& a, float threshold,
                           const MatrixXdRow& w, const MatrixXdRow& outlierWeights, const Eigen::RowVectorXd& bias,
                           Arithmetic arithmetic) {
  const Int8Quantized q = int8VectorwiseQuant(quantized, threshold);
  MatrixXdRow exact = decodeRows(q.codes, q.rowStats) * w.transpose();
  ArrayXXd magnitudes = exact.array().abs();
  for (const Index k : q.outlierColumns) {
    const MatrixXdRow term = a.col(k).cast<double>() * outlierWeights.col(k).transpose();
    exact += term;
    magnitudes += term.array().abs();
  }
  exact.rowwise() += bias;
  magnitudes.rowwise() += bias.array().abs();
  arithmetic.roundsWeights = false;  // codes are exact, and the weights of outliers stay in float
  return expectedBy(arithmetic, std::move(exact), q.outlierColumns.size() + 4, magnitudes, 0);
}

RowMajorMatrix<float> floatsOf(const test::Tensor& t) {
  const std::vector<float> values = widened(t);
  return MatrixMap<float>(values.data(), t.rows(), t.cols());
}

MatMul8bitOptions optionsOf(const Case& c) {
  MatMul8bitOptions options;
  options.type = vectorwiseType(c.parameter<std::string>("quant_type"));
  options.precision = c.parameter<std::array<int, 3>>("precision");
  if (c.tensor("B").shape.size() == 3) options.batch = c.tensor("B").shape[0];
  return options;
}

/** What a product sees of a factor: its decoded codes, or itself. */
MatrixXdRow seen(const RowMajorMatrix<float>& x, VectorwiseType type, VectorAxis axis, int bits) {
  if (bits != 8) return x.cast<double>();
  return vectorwiseDequant<double>(vectorwiseQuant(x, type, axis));
}

/** The same by columns of each matrix of a stack; a statistic of the whole matrix is one of the whole stack. */
MatrixXdRow seenByColumnsOfEach(const RowMajorMatrix<float>& x, VectorwiseType type, Index batch, int bits) {
  if (isWholeMatrix(type)) return seen(x, type, VectorAxis::kCols, bits);
  MatrixXdRow all(x.rows(), x.cols());
  const Index rows = x.rows() / batch;
  for (Index i = 0; i < batch; ++i)
    all.middleRows(i * rows, rows) = seen(x.middleRows(i * rows, rows), type, VectorAxis::kCols, bits);
  return all;
}

/** multiply(Xᵢ, Yᵢ) of each pair in two stacks of matrices, stacked. */
template <typename Multiply>
MatrixXdRow ofEach(const MatrixXdRow& x, const MatrixXdRow& y, Index batch, const Multiply& multiply) {
  const Index xRows = x.rows() / batch, yRows = y.rows() / batch;
  std::vector<MatrixXdRow> parts;
  for (Index i = 0; i < batch; ++i)
    parts.push_back(multiply(x.middleRows(i * xRows, xRows), y.middleRows(i * yRows, yRows)));
  MatrixXdRow all(batch * parts[0].rows(), parts[0].cols());
  for (Index i = 0; i < batch; ++i)
    all.middleRows(i * parts[0].rows(), parts[0].rows()) = parts[static_cast<std::size_t>(i)];
  return all;
}

Expected withoutSlack(const MatrixXdRow& exact) { return expectedExactly(exact, 1e-12 * exact.norm()); }

}  // namespace

void checkMatmul8bitVectorwise(const Case& c, CaseReport& report) {
  const MatMul8bitOptions options = optionsOf(c);
  const RowMajorMatrix<float> a = floatsOf(c.tensor("A")), b = floatsOf(c.tensor("B"));
  const RowMajorMatrix<float> g = floatsOf(c.tensor("grad_output"));
  const VectorwiseType type = options.type;
  const Index batch = options.batch;
  const auto& [forward, gradB, gradA] = options.precision;
  constexpr VectorAxis kRows = VectorAxis::kRows, kCols = VectorAxis::kCols;
  const MatrixXdRow y = ofEach(seen(a, type, kRows, forward), seenByColumnsOfEach(b, type, batch, forward), batch,
                               [](const auto& ai, const auto& bi) -> MatrixXdRow { return ai * bi; });
  const MatrixXdRow da = ofEach(seen(g, type, kRows, gradA), seen(b, type, kRows, gradA), batch,
                                [](const auto& gi, const auto& bi) -> MatrixXdRow { return gi * bi.transpose(); });
  const MatrixXdRow db = ofEach(seen(a, type, kCols, gradB), seen(g, type, kCols, gradB), batch,
                                [](const auto& ai, const auto& gi) -> MatrixXdRow { return ai.transpose() * gi; });
  const Backend& backend = c.backend();
  const auto viewOfFloats = [](const RowMajorMatrix<float>& m) { return internal::viewOf(m); };
  const auto gradients = backend.matMul8bitBackward(viewOfFloats(a), viewOfFloats(b), viewOfFloats(g), options);
  compareProduct("output", backend.matMul8bit(viewOfFloats(a), viewOfFloats(b), options), withoutSlack(y),
                 c.tensor("output"), y, report);
  compareProduct("grad_A", gradients.a, withoutSlack(da), c.tensor("grad_A"), da, report);
  compareProduct("grad_B", gradients.b, withoutSlack(db), c.tensor("grad_B"), db, report);
}

void checkMatmul8bit(const Case& c, CaseReport& report) {
  checkMatmul8bitWeights(c, report);
  const Backend& backend = c.backend();
  const test::Tensor &a = c.tensor("A"), &weight = c.tensor("W");
  const RowMajorMatrix<float> fa = floatsOf(a), fw = floatsOf(weight);
  MatmulLtState state;
  state.threshold = c.parameter<float>("threshold");
  state.hasFp16Weights = c.parameter<bool>("has_fp16_weights");
  Int8Quantized original = int8VectorwiseQuant(throughHalf(fw));
  if (!state.hasFp16Weights) {
    const auto codes = c.tensor("CB").as<std::int8_t>("I8");
    original.codes = MatrixMap<std::int8_t>(codes.data(), fw.rows(), fw.cols());
    original.rowStats = toEigen(c.tensor("SCB").floats());
    state.codes = original.codes;
    state.rowStats = original.rowStats;
  }
  const Eigen::RowVectorXd bias = biasOf(c, fw.rows());
  const MatrixXdRow y = backend.matMul8bitLt(viewOf(a), viewOf(weight), state, biasArgument(c, bias));

  const MatrixXdRow w = decodeRows(state.codes, state.rowStats), itsW = decodeRows(original.codes, original.rowStats);
  const MatrixXdRow outlierWeights = state.hasFp16Weights ? MatrixXdRow(fw.cast<double>()) : w;
  const Arithmetic arithmetic = backend.arithmetic();
  compareProduct("output", y, decomposedProduct(fa, fa, state.threshold, w, outlierWeights, bias, arithmetic),
                 c.tensor("output"),
                 decomposedProduct(throughHalf(fa), fa, state.threshold, itsW, itsW, bias, arithmetic).exact, report);
  compareInputGradient(c, backend.matMul8bitLtGradA(viewOf(c.tensor("grad_output")), state), w, itsW, report);
  compareBiasGradient(c, report);
}

void checkMatmul4bit(const Case& c, CaseReport& report) {
  const Backend& backend = c.backend();
  const QuantState state = checkMatmul4bitWeights(c, report);
  const test::Tensor& a = c.tensor("A");
  const ByteVector packed = toEigen(c.tensor("packed").bytesU8());
  const MatrixXdRow w = dequantize4bit(packed, state).cast<double>(), a64 = asDouble(a);
  const Eigen::RowVectorXd bias = biasOf(c, w.rows());
  const MatrixXdRow exact = (a64 * w.transpose()).rowwise() + bias;
  const ArrayXXd magnitudes = (a64.cwiseAbs() * w.cwiseAbs().transpose()).array().rowwise() + bias.array().abs();
  const Expected expected = expectedBy(backend.arithmetic(), exact, a64.cols() + 2, magnitudes, unitRoundoff(a.dtype));
  const MatrixXdRow y = backend.matMul4bit(viewOf(a), packed, state, biasArgument(c, bias));
  compareProduct("output", y, expected, c.tensor("output"), exact, report);
  compareProduct("output_inference", y, expected, c.tensor("output_inference"), exact, report);
  const MatrixXdRow g = backend.matMul4bitGradA(viewOf(c.tensor("grad_output")), packed, state);
  compareInputGradient(c, g, w, w, report);
  compareBiasGradient(c, report);
}

}  // namespace golden
}  // namespace EigenQ
