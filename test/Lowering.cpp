// SPDX-License-Identifier: MPL-2.0
// Every row of the table against the reference, at awkward sizes, offsets, strides and epilogues.
#define BOOST_TEST_MODULE Lowering
#include <boost/test/unit_test.hpp>

#include "support/Bounds.h"

#include <eigen_q/Core>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::Index;
using internal::ConstDenseView;
using internal::DenseView;
using internal::Epilogue;
using internal::QuantizedProduct;
using internal::WeightView;

namespace {

struct Shape {
  Index m, n, k;
};

// Around the tiles of every instruction set (4, 6, 12 rows; panels of 8, 16, 32 outputs; depth 256), primes, and too
// many rows for double chains.
const Shape kShapes[] = {{1, 1, 1},      {1, 33, 64},   {8, 31, 257},  {9, 32, 256}, {13, 7, 15},  {12, 40, 8},
                         {25, 65, 31},   {3, 129, 97},  {7, 16, 1000}, {31, 5, 300}, {37, 33, 70}, {50, 133, 67},
                         {40, 133, 300}, {2, 130, 416}, {4, 19, 992},  {5, 300, 96}};

enum class Layout { kColMajor, kRowMajor, kStrided };

/** A rows×cols matrix of floats in a wider frame of sentinels. */
class Framed {
 public:
  Framed(Index rows, Index cols, Layout layout) : m_rows(rows), m_cols(cols) {
    const Index step = layout == Layout::kStrided ? 3 : 1;
    m_rowStride = layout == Layout::kColMajor ? 1 : step * (cols + 1);
    m_colStride = layout == Layout::kColMajor ? rows + 1 : step;
    m_data = Eigen::VectorXf::Random((rows + 1) * m_rowStride + (cols + 1) * m_colStride);
  }
  float& at(Index i, Index j) { return m_data[i * m_rowStride + j * m_colStride]; }
  DenseView view() { return {m_data.data(), ScalarType::kFloat, m_rows, m_cols, m_rowStride, m_colStride}; }
  ConstDenseView constView() const {
    return {m_data.data(), ScalarType::kFloat, m_rows, m_cols, m_rowStride, m_colStride};
  }
  const Eigen::VectorXf& data() const { return m_data; }

 private:
  Index m_rows, m_cols, m_rowStride, m_colStride;
  Eigen::VectorXf m_data;
};

double xAt(const QuantizedProduct& p, Index i, Index k) {
  return static_cast<double>(static_cast<const float*>(p.x.data)[i * p.x.rowStride + k * p.x.colStride]);
}

/** Σ|x||w| of an output, for its error bound. */
double magnitude(const QuantizedProduct& p, Index i, Index j) {
  double sum = 0;
  for (Index k = 0; k < p.x.cols; ++k)
    sum += std::abs(xAt(p, i, k) * static_cast<double>(p.transposed ? p.w.coeff(j, k) : p.w.coeff(k, j)));
  return sum;
}

/** What a row of the table adds to the rounding of float arithmetic, as it rounds operands to integers. */
struct IntegerOperands {
  double largest;     // integer for the largest of 64 values of X, which are off by up to half a step
  double levelError;  // by which levels of W are off, of their absmax

  double error(const QuantizedProduct& p, Index i, Index j) const {
    double sum = 0;
    for (Index begin = 0; begin < p.x.cols; begin += 64) {
      const Index end = std::min<Index>(p.x.cols, begin + 64);
      double most = 0;
      for (Index k = begin; k < end; ++k) most = std::max(most, std::abs(xAt(p, i, k)));
      for (Index k = begin; k < end; ++k) {
        const double level = levelError * double(p.w.absmax((p.w.offset + j * p.w.stride + k) >> p.w.blockShift));
        sum += 0.5 / largest * most * (std::abs(double(p.w.coeff(j, k))) + level) + level * std::abs(xAt(p, i, k));
      }
    }
    return sum;
  }
};
constexpr IntegerOperands kFixedPoint{32767, 1.6e-5};  // NF4's levels in 16 bits
// With int8 activations; FP4's levels. Doc of FourBitWithInt8Activations.
constexpr IntegerOperands kSums16{107, 5.3e-3}, kSums32{127, 3.7e-3};

bool isFixedPoint(const internal::Lowering& row) { return std::string(row.name) == "avx2.fourbit-gemv"; }
bool isInt8(const internal::Lowering& row) { return std::string(row.name).find(".fourbit-int8") != std::string::npos; }
/** Whether products meet in 32 bits. */
bool hasDotProducts(const internal::Lowering& row) {
  const std::string name = row.name;
  return name.find("vnni.") != std::string::npos || name.find("neondot.") != std::string::npos;
}

double addedError(const internal::Lowering& row, const QuantizedProduct& p, Index i, Index j) {
  if (isFixedPoint(row)) return kFixedPoint.error(p, i, j);
  if (isInt8(row)) return (hasDotProducts(row) ? kSums32 : kSums16).error(p, i, j);
  return 0;
}

int g_refusals = 0, g_runs = 0;

void compareWithReference(QuantizedProduct p, Framed y) {
  const internal::Lowering* const reference = internal::hostLowerings().end() - 1;
  BOOST_REQUIRE_EQUAL(std::string(reference->name), "reference");
  BOOST_REQUIRE(!reference->refuse(p));
  Framed expected = y;
  p.y = expected.view();
  if (p.epilogue.residual.data) p.epilogue.residual = expected.constView();
  reference->run(p);
  for (const internal::Lowering& row : internal::hostLowerings()) {
    Framed found = y;
    p.y = found.view();
    if (p.epilogue.residual.data) p.epilogue.residual = found.constView();
    if (row.refuse(p)) {
      ++g_refusals;
      continue;
    }
    ++g_runs;
    row.run(p);
    for (Index i = 0; i < p.y.rows; ++i) {
      for (Index j = 0; j < p.y.cols; ++j) {
        // γ of the sum and of the epilogue's few operations; activations have slopes of at most 1.13.
        const double fixed = addedError(row, p, i, j), alpha = double(p.epilogue.alpha);
        const double bound =
            1.2 * (gammaFloat(p.x.cols + 6) * (std::abs(alpha) * magnitude(p, i, j) + 4) + std::abs(alpha) * fixed);
        const double difference = std::abs(double(found.at(i, j)) - double(expected.at(i, j)));
        if (difference <= bound) continue;
        BOOST_ERROR(row.name << " (" << i << ", " << j << ") of " << p.y.rows << "x" << p.y.cols << ", k = " << p.x.cols
                             << ": expected " << expected.at(i, j) << ", found " << found.at(i, j));
        return;
      }
    }
    // What lies between and behind the entries is somebody else's.
    Framed restored = found;
    for (Index i = 0; i < p.y.rows; ++i) {
      for (Index j = 0; j < p.y.cols; ++j) restored.at(i, j) = y.at(i, j);
    }
    BOOST_TEST((restored.data().array() == y.data().array()).all(), row.name << " writes outside of its result");
  }
}

/** W of the given shape as a window at (row, col) of a larger matrix, col a multiple of \a step: with 1, rows begin at
 * any nibble and block. */
template <typename Matrix>
void sweep(const Matrix& whole, bool transposed, Index step = 1, bool int8Activations = false) {
  int round = 0;
  for (const Shape& s : kShapes) {
    const Index rows = transposed ? s.n : s.k, cols = transposed ? s.k : s.n;
    const Index row = round % 3, col = round * 5 % 7 * step;
    if (row + rows > whole.rows() || col + cols > whole.cols()) continue;
    const auto layout = static_cast<Layout>(round % 3), xLayout = static_cast<Layout>(round / 2 % 3);
    Framed x(s.m, s.k, xLayout), y(s.m, s.n, layout);
    QuantizedProduct p;
    p.x = x.constView();
    p.w = whole.quantizedView().weights.window(row, col, rows, cols);
    p.w.int8Activations = int8Activations;
    p.transposed = transposed;
    compareWithReference(p, y);

    const Eigen::VectorXf bias = Eigen::VectorXf::Random(2 * std::max(s.m, s.n));
    p.epilogue.alpha = -1.5f;
    p.epilogue.bias = bias.data();
    p.epilogue.biasStride = 2;
    p.epilogue.biasAxis = round % 2 ? internal::BiasAxis::kPerCol : internal::BiasAxis::kPerRow;
    p.epilogue.activation = static_cast<Activation>(round % 5);
    p.epilogue.upper = 0.5f;
    p.epilogue.lower = -0.25f;
    p.epilogue.sign = -1;
    p.epilogue.residual = y.constView();
    p.epilogue.residualSign = round % 2 ? 1.0f : -1.0f;
    compareWithReference(p, y);
    ++round;
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyLoweringAgreesWithTheReference) {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(140, 1009);  // odd: rows begin in the middle of bytes and blocks
  for (const bool transposed : {true, false}) {
    sweep(Int8Matrix(w), transposed);
    sweep(NF4Matrix(w), transposed);
    sweep(FP4Matrix(w, 32, Statistics::kNested), transposed);
    sweep(NF4Matrix(w.leftCols(300), 4096, Statistics::kNested), transposed);
    sweep(NF4Matrix(w.topRows(40).transpose(), 32), transposed);
  }
  BOOST_TEST_MESSAGE(g_runs << " runs, " << g_refusals << " refusals");
  // The portable rows and the reference refuse no float product of some shape: a run cannot pass by declining.
  BOOST_TEST(g_runs > 3 * 60);
}

BOOST_AUTO_TEST_CASE(alignedRowsAgreeWithTheReference) {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(140, 1024);
  for (const bool transposed : {true, false}) {
    sweep(NF4Matrix(w), transposed, 64);
    sweep(NF4Matrix(w, 64, Statistics::kNested), transposed, 32);
    sweep(FP4Matrix(w, 32), transposed, 32);
    sweep(NF4Matrix(w, 4096), transposed, 32);
    // More rows of X than share one decoding, and sums in long chains.
    const Framed x(270, 128, Layout::kRowMajor), y(270, 140, Layout::kColMajor);
    const NF4Matrix large(Eigen::MatrixXf::Random(transposed ? 140 : 128, transposed ? 128 : 140));
    QuantizedProduct p;
    p.x = x.constView();
    p.w = large.quantizedView().weights;
    p.transposed = transposed;
    compareWithReference(p, y);
  }
}

// Rows that kernels take in pieces, with rows of X from any address; rows in which second-level blocks end and
// which begin inside blocks.
BOOST_AUTO_TEST_CASE(longRowsAgreeWithTheReference) {
  const Int8Matrix int8(Eigen::MatrixXf::Random(23, 9000));
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(250, 1088);  // 17 blocks of 64
  const NF4Matrix nested(w, 64, Statistics::kNested), wide(w, 128), nestedWide(w, 256, Statistics::kNested);
  const NF4Matrix pieces(Eigen::MatrixXf::Random(20, 6240), 64);  // 48 steps of 128 and a rest
  const auto check = [](const WeightView& weights, Index m, Layout layout) {
    const Framed x(m, weights.cols, layout), y(m, weights.rows, Layout::kColMajor);
    QuantizedProduct p;
    p.x = x.constView();
    p.w = weights;
    for (const bool int8Activations : {false, true}) {
      p.w.int8Activations = int8Activations;
      if (!int8Activations || weights.format == internal::WeightFormat::kFourBit) compareWithReference(p, y);
    }
  };
  for (const Index m : {1, 2, 3, 4, 5, 6, 7, 8}) {
    check(int8.quantizedView().weights.window(m % 3, m, 19, 8990 - 300 * m), m, static_cast<Layout>(m % 3));
    if (m > 4) continue;
    for (const NF4Matrix* matrix : {&nested, &wide, &nestedWide, &pieces}) {
      check(matrix->quantizedView().weights, m, static_cast<Layout>(m % 3));
    }
  }
}

// x·code is too large for float, x·ŵ is not.
BOOST_AUTO_TEST_CASE(sumsOfLargeActivationsAndSmallWeights) {
  const Int8Matrix w(1e-3f * Eigen::MatrixXf::Random(19, 300));
  for (const Index m : {1, 3, 8}) {
    Framed x(m, 300, Layout::kRowMajor), y(m, 19, Layout::kColMajor);
    for (Index i = 0; i < m; ++i) {
      for (Index k = 0; k < 300; ++k) x.at(i, k) = k % 2 ? 1e37f : 3e37f;
    }
    QuantizedProduct p;
    p.x = x.constView();
    p.w = w.quantizedView().weights;
    p.y = y.view();
    compareWithReference(p, y);
  }
}

bool isGevm(const internal::Lowering& row) { return std::string(row.name).find(".gevm") != std::string::npos; }

// Rows of W beyond one chain of sums and not in whole blocks; columns of several tasks, of whole steps and not.
BOOST_AUTO_TEST_CASE(rowsOfWAreAddedUp) {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(1100, 608);
  int runs = 0;
  const auto check = [&](const WeightView& whole, Index step) {
    for (const Index m : {1, 2, 3, 4, 5, 6, 7, 8}) {
      const Index n = m % 2 ? 1031 : 513, k = m % 3 == 0 ? 512 : m % 3 == 1 ? 577 : 33;
      const Framed x(m, n, static_cast<Layout>(m % 3));
      QuantizedProduct p;
      p.x = x.constView();
      p.w = whole.window(m, m % 2 * step, n, std::min<Index>(k, whole.cols - step));
      p.transposed = false;
      Framed y(m, p.w.cols, static_cast<Layout>(m / 2 % 3));
      p.y = y.view();
      for (const internal::Lowering& row : internal::hostLowerings()) runs += isGevm(row) && !row.refuse(p);
      compareWithReference(p, y);
    }
  };
  check(Int8Matrix(w).quantizedView().weights, 1);
  check(NF4Matrix(w).quantizedView().weights, 32);
  check(NF4Matrix(w.leftCols(576)).quantizedView().weights, 64);
  check(FP4Matrix(w, 32).quantizedView().weights, 32);
  check(NF4Matrix(w, 256, Statistics::kNested).quantizedView().weights, 32);
  // At least six rows of four 4-bit matrices and eight of the int8 one, wherever the processor has such a kernel.
  QuantizedProduct p;
  p.transposed = false;
  p.w = NF4Matrix(w).quantizedView().weights;
  const auto why = [&](const internal::Lowering& row, Index m, Index k) {
    p.y.rows = m;
    p.y.cols = k;
    const char* const reason = row.refuse(p);
    return std::string(reason ? reason : "");
  };
  for (const internal::Lowering& row : internal::hostLowerings()) {
    if (!isGevm(row) || !why(row, 1, 608).empty()) continue;
    BOOST_TEST(runs >= 32);
    BOOST_TEST(why(row, 9, 608) == "too many rows of X: a decoded panel pays off");
    BOOST_TEST(why(row, 1, 31) == "rows of W too short for whole steps");
    p.transposed = true;
    BOOST_TEST(why(row, 1, 608) == "W is used transposed: its rows are not what is added up");
    p.transposed = false;
    p.w.offset = 1;
    BOOST_TEST(why(row, 1, 600) == "rows of W do not begin at multiples of 32 codes");
    p.w.offset = 0;
  }
}

// 16-bit fixed point is for matrices of 2¹⁸ weights and more.
BOOST_AUTO_TEST_CASE(fixedPointKeepsItsBound) {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(300, 1024).array().cube();
  const auto check = [](const WeightView& whole, double relativeError) {
    for (const Index m : {1, 2, 3, 4}) {
      for (const Index cols : {1024, 992, 1001}) {  // the last step: none, half of one, and an odd number of codes
        Framed x(m, cols, static_cast<Layout>(m % 3)), y(m, 299, static_cast<Layout>(m / 2));
        for (Index i = 0; i < m; ++i) {
          for (Index k = 0; k < cols; ++k) x.at(i, k) *= k % 100 == 7 ? 50.0f : k / 64 == 3 ? 0.0f : 1.0f;  // outliers
        }
        QuantizedProduct p;
        p.x = x.constView();
        p.w = whole.window(1, 0, 299, cols);
        compareWithReference(p, y);
        Framed exact = y, found = y;
        p.y = exact.view();
        (internal::hostLowerings().end() - 1)->run(p);
        p.y = found.view();
        for (const internal::Lowering& row : internal::hostLowerings()) {
          if (!isFixedPoint(row) || row.refuse(p)) continue;
          row.run(p);
          double error = 0, size = 0;
          for (Index j = 0; j < 299; ++j) {
            error += std::pow(double(found.at(0, j)) - double(exact.at(0, j)), 2);
            size += std::pow(double(exact.at(0, j)), 2);
          }
          BOOST_TEST(std::sqrt(error / size) < relativeError);
        }
      }
    }
  };
  check(NF4Matrix(w).quantizedView().weights, 1e-4);
  check(NF4Matrix(w, 256, Statistics::kNested).quantizedView().weights, 1e-4);
  check(FP4Matrix(w, 32).quantizedView().weights, 1e-4);
}

BOOST_AUTO_TEST_CASE(fixedPointLeavesWideRangesToFloat) {
  const NF4Matrix w(Eigen::MatrixXf::Random(300, 1024));
  Eigen::VectorXf x = Eigen::VectorXf::Ones(1024);
  for (const float value :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e30f, 1e-30f}) {
    x(77) = value;
    const Eigen::VectorXf y = w * x;
    const Eigen::VectorXd exact = Eigen::MatrixXf(w).cast<double>() * x.cast<double>();
    for (Index j = 0; j < y.size(); ++j) {
      const double found = double(y(j));
      const bool same = std::isfinite(exact(j)) ? std::abs(found - exact(j)) <= 1e-5 * std::abs(exact(j)) + 1e-3
                                                : std::isnan(exact(j)) == std::isnan(found) && !std::isfinite(found);
      BOOST_TEST_REQUIRE(same, "row " << j << ": expected " << exact(j) << ", found " << found);
    }
    const internal::ConstDenseView view{x.data(), ScalarType::kFloat, 1, 1024, 1024, 1};
    QuantizedProduct p;
    p.x = view;
    p.w = w.quantizedView().weights;
    p.y = {nullptr, ScalarType::kFloat, 1, 300, 300, 1};
    for (const internal::Lowering& row : internal::hostLowerings()) BOOST_TEST((!isFixedPoint(row) || row.refuse(p)));
  }
}

BOOST_AUTO_TEST_CASE(int8ActivationsKeepTheirBound) {
  const Eigen::MatrixXf w = Eigen::MatrixXf::Random(140, 1024);
  const int before = g_runs;
  sweep(NF4Matrix(w), true, 64, true);
  sweep(NF4Matrix(w, 64, Statistics::kNested), true, 32, true);
  sweep(FP4Matrix(w, 32), true, 32, true);
  sweep(NF4Matrix(w, 4096), true, 32, true);
  sweep(NF4Matrix(w), false, 64, true);  // not for the backward pass: these are the products of float
  BOOST_TEST(g_runs > before);
  // Panels of several depths, several of them in a task, and more rows of X than share one decoding.
  const NF4Matrix large(Eigen::MatrixXf::Random(150, 1120));
  const auto compare = [&](Index m, Index n, Index k) {
    Framed x(m, k, Layout::kRowMajor), y(m, n, Layout::kColMajor);
    for (Index i = 64; i < 128; ++i) x.at(0, i) = 0;  // a group of nothing
    x.at(1, 65) = 1000;                               // and one of an outlier
    QuantizedProduct p;
    p.x = x.constView();
    p.w = large.quantizedView().weights.window(0, 0, n, k);
    p.w.int8Activations = true;
    compareWithReference(p, y);
  };
  compare(9, 150, 1100);
  compare(259, 40, 160);
}

/** Sums that kernels add up in 16 bits, at the largest that these hold: levels of ±1 with tokens of ±1, and with tokens
 * just small enough for twice as many products (76·(107 + 7·40) and 76·8·53 of 32767, in units of a level by a step).
 */
BOOST_AUTO_TEST_CASE(int8ActivationsAtTheLimitsOfTheirSums) {
  const Index rows = 21, cols = 320;
  const NF4Matrix w(Eigen::MatrixXf::NullaryExpr(40, cols, [](Index i, Index) { return i % 2 ? 1.0f : -1.0f; }));
  Framed x(rows, cols, Layout::kRowMajor), y(rows, 40, Layout::kColMajor);
  for (const bool small : {false, true}) {
    for (Index i = 0; i < rows; ++i) {
      for (Index k = 0; k < cols; ++k) {
        const float steps = !small || k % 16 == 0 ? 107 : k % 8 < 4 ? 40 : 53;
        x.at(i, k) = (i % 3 ? steps : -steps) / 107;
      }
    }
    QuantizedProduct p;
    p.x = x.constView();
    p.w = w.quantizedView().weights;
    p.w.int8Activations = true;
    compareWithReference(p, y);
  }
}

BOOST_AUTO_TEST_CASE(int8ActivationsInExpressions) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto draw = [&](Index rows, Index cols) -> Eigen::MatrixXf {
    return Eigen::MatrixXf::NullaryExpr(rows, cols, [&] { return normal(random); });
  };
  const NF4Matrix w(draw(200, 1024));
  const Eigen::MatrixXf x = draw(1024, 21), c = draw(200, 21);
  const Eigen::MatrixXd exact = Eigen::MatrixXf(w).cast<double>() * x.cast<double>();
  const Eigen::MatrixXf y = w.withInt8Activations() * x;
  BOOST_TEST((y.cast<double>() - exact).norm() < 1e-2 * exact.norm());
  BOOST_TEST((Eigen::MatrixXf(x.transpose() * w.withInt8Activations().transpose()) == y.transpose()));
  Eigen::MatrixXf sum = c;
  sum.noalias() += relu(w.withInt8Activations() * x);
  BOOST_TEST((sum - (c + y.cwiseMax(0.0f))).norm() <= 1e-6 * sum.norm());
  // All else is W.
  BOOST_TEST((Eigen::MatrixXf(w.withInt8Activations()) == Eigen::MatrixXf(w)));
  BOOST_TEST((Eigen::MatrixXf(w.withInt8Activations().transpose() * c) == Eigen::MatrixXf(w.transpose() * c)));
  // Where there is a kernel for it, it is asked for and used; nobody else's product meets it.
  QuantizedProduct p;
  p.x = {x.data(), ScalarType::kFloat, 21, 1024, 1024, 1};
  p.y = {sum.data(), ScalarType::kFloat, 21, 200, 200, 1};
  p.w = w.quantizedView().weights;
  for (const internal::Lowering& row : internal::hostLowerings()) BOOST_TEST((!isInt8(row) || row.refuse(p)));
  p.w.int8Activations = true;
  for (const internal::Lowering& row : internal::hostLowerings()) {
    if (row.refuse(p)) continue;
    const std::string isa = std::string(row.name).substr(0, std::string(row.name).find('.'));
    const bool has = isa != "portable" && isa != "neon";
    BOOST_TEST((!has || isInt8(row)), row.name);
    break;
  }
}

BOOST_AUTO_TEST_CASE(int8ActivationsThatAreNotFinite) {
  const FP4Matrix w(Eigen::MatrixXf::Random(40, 256));
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(256, 9);
  const Eigen::MatrixXf before = w.withInt8Activations() * x;
  x(70, 2) = std::numeric_limits<float>::quiet_NaN();
  x(255, 5) = -std::numeric_limits<float>::infinity();
  x.col(7) *= 1e-38f;  // the rest below 2⁻¹¹⁹ may count as zeros
  const Eigen::MatrixXf y = w.withInt8Activations() * x;
  for (Index j = 0; j < 9; ++j) {
    if (j == 2) {
      BOOST_TEST(y.col(j).array().isNaN().all());
    } else if (j == 5) {
      BOOST_TEST((!y.col(j).array().isFinite()).any());
    } else if (j == 7) {
      BOOST_TEST((y.col(j).array().abs() <= 1e-35f).all());
    } else {
      BOOST_TEST((y.col(j) == before.col(j)));
    }
  }
}

BOOST_AUTO_TEST_CASE(resultsDoNotDependOnTheNumberOfThreads) {
  const NF4Matrix w(Eigen::MatrixXf::Random(257, 515));
  const Int8Matrix w8(Eigen::MatrixXf::Random(40, 2000));
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(515, 61), x1 = x.col(0), g = Eigen::MatrixXf::Random(257, 801);
  const Eigen::MatrixXf x8 = Eigen::MatrixXf::Random(2000, 300);
  const NF4Matrix whole(Eigen::MatrixXf::Random(300, 2016));
  const auto aligned = whole.withInt8Activations();
  const Eigen::MatrixXf g8 = Eigen::MatrixXf::Random(300, 5);
  const NF4Matrix tall(Eigen::MatrixXf::Random(1100, 640));  // of several chains of rows
  const Eigen::MatrixXf gTall = Eigen::MatrixXf::Random(1100, 5);
  const auto all = [&](int threads) {
    setMaxThreads(threads);
    return std::vector<Eigen::MatrixXf>{w * x,
                                        w * x1,
                                        w.transpose() * g,
                                        w8 * x8,
                                        Eigen::MatrixXf(w),
                                        aligned.leftCols(2000) * x8,
                                        whole.transpose() * g8.leftCols(1),
                                        whole.transpose() * g8,
                                        w8.transpose() * g8.topRows(40),
                                        tall.transpose() * gTall.leftCols(1),
                                        tall.transpose() * gTall};
  };
  const auto one = all(1);
  for (const int threads : {2, 3, 16}) {
    const auto several = all(threads);
    for (std::size_t i = 0; i < one.size(); ++i) BOOST_TEST((one[i].array() == several[i].array()).all());
  }
  setMaxThreads(0);
  BOOST_TEST(maxThreads() >= 1);
}

BOOST_AUTO_TEST_CASE(severalThreadsMayMultiplyAtOnce) {
  const NF4Matrix w(Eigen::MatrixXf::Random(300, 640));
  const Eigen::MatrixXf x = Eigen::MatrixXf::Random(640, 40), expected = w * x;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const Eigen::MatrixXf y = w * x;
        if (!(y.array() == expected.array()).all()) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int count : wrong) BOOST_TEST(count == 0);
}

BOOST_AUTO_TEST_CASE(everyDequantizerGivesTheValuesOfTheCodes) {
  const Eigen::MatrixXf random = Eigen::MatrixXf::Random(67, 301);
  std::set<std::string> ran;
  const auto checkWindow = [&](const WeightView& w) {
    for (const internal::DequantizeLowering& row : internal::hostDequantizers()) {
      for (const Layout layout : {Layout::kColMajor, Layout::kRowMajor, Layout::kStrided}) {
        Framed y(w.rows, w.cols, layout);
        if (row.refuse(w, y.view(), Epilogue())) continue;
        ran.insert(row.name);
        row.run(w, y.view(), Epilogue());
        int wrong = 0;
        for (Index i = 0; i < w.rows; ++i) {
          for (Index j = 0; j < w.cols; ++j) wrong += y.at(i, j) != w.coeff(i, j);
        }
        BOOST_TEST(wrong == 0, row.name << ": " << wrong << " values differ from their codes'");
      }
    }
  };
  const auto check = [&](const auto& matrix) {
    const WeightView all = matrix.quantizedView().weights;
    checkWindow(all.window(1, 3, 66, 297));  // from the middle of a byte
    checkWindow(all.window(2, 4, 65, all.cols - 5));
  };
  check(Int8Matrix(random));
  check(NF4Matrix(random.leftCols(300), 32));
  check(NF4Matrix(random));
  check(FP4Matrix(random, 32, Statistics::kNested));
  check(NF4Matrix(random, 4096, Statistics::kNested));
  BOOST_TEST(ran.count("rows.dequantize") == 1);
  BOOST_TEST(ran.count("portable.dequantize") == 1);
}
