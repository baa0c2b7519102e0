// SPDX-License-Identifier: MPL-2.0
// Integer products, the vector-wise quantisation types and the products and gradients made of them.
#define BOOST_TEST_MODULE MatMul8bit
#include <boost/test/unit_test.hpp>
#include <boost/test/data/test_case.hpp>

#include "support/Bounds.h"

#include <eigen_q/Core>

#include <limits>

using namespace EigenQ;
using Eigen::MatrixXd;
using Eigen::MatrixXf;

namespace EigenQ {
std::ostream& operator<<(std::ostream& out, VectorwiseType type) { return out << "type " << int(type); }
}  // namespace EigenQ

namespace {

namespace data = boost::unit_test::data;

constexpr VectorwiseType kTypes[] = {VectorwiseType::kVector,      VectorwiseType::kRow,
                                     VectorwiseType::kLinear,      VectorwiseType::kTruncatedVector,
                                     VectorwiseType::kZeropoint,   VectorwiseType::kVectorZeropoint,
                                     VectorwiseType::kRowZeropoint};
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

Int8Codes codes(Index rows, Index cols, int seed) {
  return Int8Codes::NullaryExpr(rows, cols, [=](Index i, Index j) {
    return static_cast<std::int8_t>((i * 89 + j * 57 + seed * 31 + i * j % 7) % 256 - 128);
  });
}

/** Columns of different sizes and offsets, so that statistics and zero points differ. */
MatrixXf sample(Index rows, Index cols, float offset = 0) {
  MatrixXf x = MatrixXf::Random(rows, cols);
  for (Index j = 0; j < cols; ++j) x.col(j).array() = x.col(j).array() * float(1 + j % 3) + offset;
  return x;
}

/** The largest step between two codes: what decoding may be off by half of. */
double step(const VectorwiseQuantized& q, Index vector) {
  const double stat = double(q.stats[isWholeMatrix(q.type) ? 0 : vector]);
  return isZeropoint(q.type) ? 1 / stat : stat / 127;
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyIntegerKernelIsExact) {
  int runs = 0;
  for (const internal::Int8Lowering& row : internal::hostInt8Lowerings()) {
    for (const auto& [m, n, k] : {std::array<Index, 3>{1, 1, 1},
                                  {2, 3, 0},
                                  {5, 7, 31},
                                  {4, 33, 32},
                                  {9, 65, 33},
                                  {3, 4, 100},
                                  {64, 70, 129},
                                  {1, 40, 1000},
                                  {8, 19, 1030},
                                  {13, 9, 2100},
                                  {131, 67, 65},
                                  {7, 19, 130},     // one block of rows with some instruction sets, two with others
                                  {16, 33, 2100},   // stored codes, several visits to them
                                  {32, 11, 129},    // the most rows without a panel
                                  {33, 21, 2049},   // the fewest with one
                                  {8, 5, 8300}}) {  // deeper than a stream
      const Int8Codes a = codes(m + 1, k + 3, 1), b = codes(n + 1, k + 5, 2);
      const RowMajorMatrix<int> expected =
          a.block(1, 2, m, k).cast<int>() * b.block(0, 4, n, k).cast<int>().transpose();
      RowMajorMatrix<std::int32_t> c = RowMajorMatrix<std::int32_t>::Constant(m, 2 * n, -7);
      internal::Int8Product p;
      p.a = a.data() + a.cols() + 2;
      p.aStride = a.cols();
      p.b = b.data() + 4;
      p.bStride = b.cols();
      p.c = c.data();
      p.cRowStride = 2 * n;
      p.cColStride = 2;
      p.m = m;
      p.n = n;
      p.k = k;
      if (row.refuse(p)) continue;
      ++runs;
      internal::run(row, p);
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) {
          BOOST_REQUIRE_MESSAGE(c(i, 2 * j) == expected(i, j), row.name << " at " << m << "x" << n << "x" << k);
          BOOST_REQUIRE_MESSAGE(c(i, 2 * j + 1) == -7, row.name << " writes between its results");
        }
      }
    }
  }
  BOOST_TEST(runs >= 2 * 16);  // the portable row and the reference refuse nothing
}

BOOST_AUTO_TEST_CASE(sumsAreExactUpToTheirLargestDepth) {
  const Index depth = internal::kInt8MaxDepth;
  const Int8Codes a = Int8Codes::Constant(1, depth, 127), b = Int8Codes::Constant(1, depth, -127);
  BOOST_TEST(igemm(a, b.transpose())(0, 0) == -127 * 127 * int(depth));
  BOOST_TEST(igemm(a, a.transpose())(0, 0) == 127 * 127 * int(depth));
  const Int8Codes deep = Int8Codes::Zero(1, depth + 1);
  BOOST_CHECK_THROW(igemm(deep, deep.transpose()), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(igemmTakesEveryStorageOrder) {
  const Int8Codes a = codes(9, 20, 1), b = codes(20, 11, 2);
  const RowMajorMatrix<int> expected = a.cast<int>() * b.cast<int>();
  const Eigen::Matrix<std::int8_t, -1, -1> aCols = a, bCols = b;
  BOOST_TEST((igemm(a, b) == expected));
  BOOST_TEST((igemm(aCols, bCols) == expected));
  BOOST_TEST((igemm(a, bCols) == expected));
  BOOST_TEST((igemm(aCols.transpose().transpose(), b.block(0, 0, 20, 11)) == expected));
  BOOST_TEST((igemm(a.middleRows(2, 3), b.rightCols(4)) == expected.block(2, 7, 3, 4)));
  BOOST_TEST((igemm(a.transpose(), a) == (a.cast<int>().transpose() * a.cast<int>())));  // over the tokens
  const Int32Matrix batched = batchedIgemm(codes(6, 5, 1), codes(15, 4, 2), 3);
  for (Index i = 0; i < 3; ++i) {
    BOOST_TEST((batched.middleRows(2 * i, 2) ==
                igemm(codes(6, 5, 1).middleRows(2 * i, 2), codes(15, 4, 2).middleRows(5 * i, 5))));
  }
  BOOST_CHECK_THROW(batchedIgemm(codes(6, 5, 1), codes(15, 4, 2), 4), FormatError);
}

BOOST_DATA_TEST_CASE(decodingIsWithinHalfAStep, data::make(kTypes), type) {
  for (const float offset : {0.0f, 3.0f, -50.0f}) {
    const MatrixXf x = sample(9, 31, offset);
    for (const VectorAxis axis : {VectorAxis::kRows, VectorAxis::kCols}) {
      const VectorwiseQuantized q = vectorwiseQuant(x, type, axis);
      const MatrixXd decoded = vectorwiseDequant<double>(q);
      for (Index i = 0; i < x.rows(); ++i) {
        for (Index j = 0; j < x.cols(); ++j) {
          const Index vector = axis == VectorAxis::kRows ? i : j;
          const double limit = type == VectorwiseType::kTruncatedVector ? double(q.stats[vector]) : 1e9;
          const double expected = std::clamp(double(x(i, j)), -limit, limit);
          // Beside half a step: the quotient is rounded in float, in units of a step.
          const double bound = step(q, vector) * (0.5 + 0x1p-22 * (256 + std::abs(expected) / step(q, vector)));
          BOOST_TEST(std::abs(decoded(i, j) - expected) <= bound);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(zeroPointsUseTheRangeThatIsThere) {
  const MatrixXf x = sample(4, 40, 100);  // far from zero: 255 steps for a range of 6, where absmax has 127 for 106
  const auto error = [&](VectorwiseType type) -> float {
    return (vectorwiseDequant(vectorwiseQuant(x, type)) - x).norm();
  };
  BOOST_TEST(error(VectorwiseType::kVectorZeropoint) < 0.1f * error(VectorwiseType::kVector));
}

BOOST_AUTO_TEST_CASE(statisticsOfSpecialValues) {
  MatrixXf x = MatrixXf::Ones(5, 4);
  x.row(0).setZero();
  x(1, 2) = kNaN;
  x(2, 2) = kInfinity;
  x.row(3).setConstant(1e-42f);
  x.row(4) << 3e38f, -3e38f, 0, 1;
  for (const VectorwiseType type : {VectorwiseType::kVector, VectorwiseType::kTruncatedVector}) {
    const VectorwiseQuantized q = vectorwiseQuant(x, type);
    BOOST_TEST(q.stats[0] == 0);
    BOOST_TEST(std::isnan(q.stats[1]));
    BOOST_TEST(std::isinf(q.stats[2]));
    const MatrixXf decoded = vectorwiseDequant(q);
    BOOST_TEST((decoded.row(0).array() == 0).all());
    BOOST_TEST(decoded.row(1).array().isNaN().all());
    BOOST_TEST(decoded.row(2).array().isNaN().all());
    BOOST_TEST(decoded.row(4).allFinite());
    BOOST_TEST(std::abs(decoded(4, 0) / q.stats[4] - 1) < 1e-6f);
  }
  const VectorwiseQuantized q = vectorwiseQuant(x, VectorwiseType::kVectorZeropoint);
  BOOST_TEST(q.stats[0] == 255);  // no range counts as 1
  BOOST_TEST(q.stats[3] == 255);
  const MatrixXd decoded = vectorwiseDequant<double>(q);
  BOOST_TEST((decoded.row(0).array() == 0).all());
  BOOST_TEST(decoded.row(1).array().isNaN().all());
  BOOST_TEST(decoded.row(2).array().isNaN().all());
  BOOST_TEST(std::abs(decoded(4, 0) - 3e38) <= 0.51 * 6e38 / 255);
}

BOOST_AUTO_TEST_CASE(bfloat16DoesNotWrap) {
  using MatrixXbf = Eigen::Matrix<Eigen::bfloat16, -1, -1>;
  for (int mantissa = 0; mantissa < 128; ++mantissa) {
    MatrixXbf x = MatrixXbf::Constant(1, 3, Eigen::bfloat16(1.0f + float(mantissa) / 128));
    x(0, 1) = -x(0, 1);
    const VectorwiseQuantized q = vectorwiseQuant(x, VectorwiseType::kVector);
    BOOST_TEST((q.codes(0, 0) == 127 && q.codes(0, 1) == -127));
  }
}

// The product of the decoded factors, entry by entry: integer sums are exact and the result is rounded once.
BOOST_DATA_TEST_CASE(productsAreThoseOfTheDecodedFactors, data::make(kTypes), type) {
  for (const auto& [m, n, k] : {std::array<Index, 3>{1, 1, 1}, {7, 5, 33}, {12, 20, 48}, {3, 4, 301}}) {
    for (const float offset : {0.0f, 3.0f}) {
      const MatrixXf a = sample(m, k, offset), b = sample(k, n, -offset);
      MatMul8bitOptions options;
      options.type = type;
      const VectorwiseQuantized qa = vectorwiseQuant(a, type), qb = vectorwiseQuant(b, type, VectorAxis::kCols);
      const MatrixXd da = vectorwiseDequant<double>(qa), db = vectorwiseDequant<double>(qb), exact = da * db;
      const MatrixXf y = matMul8bit(a, b, options);
      const MatrixXd bound = 0x1p-24 * exact.cwiseAbs() + 1e-13 * da.cwiseAbs() * db.cwiseAbs();
      BOOST_TEST(((y.cast<double>() - exact).array().abs() <= bound.array()).all());
      BOOST_TEST((MatrixXf(vectorwiseMmDequant(igemm(qa.codes, qb.codes), qa, qb)) == y));
    }
  }
}

BOOST_DATA_TEST_CASE(gradientsQuantiseOverTheSummedDimension, data::make(kTypes), type) {
  MatMul8bitOptions options;
  options.type = type;
  const MatrixXf a = sample(13, 9), b = sample(9, 6), g = sample(13, 6, 0.5f);
  const auto found = matMul8bitBackward(a, b, g, options);
  const MatrixXd gradA = vectorwiseDequant<double>(vectorwiseQuant(g, type)) *
                         vectorwiseDequant<double>(vectorwiseQuant(b, type)).transpose();
  const MatrixXd gradB = vectorwiseDequant<double>(vectorwiseQuant(a, type, VectorAxis::kCols)).transpose() *
                         vectorwiseDequant<double>(vectorwiseQuant(g, type, VectorAxis::kCols));
  BOOST_TEST((found.a.cast<double>() - gradA).norm() <= 0x1p-23 * gradA.norm());
  BOOST_TEST((found.b.cast<double>() - gradB).norm() <= 0x1p-23 * gradB.norm());
  // Against the gradient itself: 8 bits of the matrices' own spread; truncation clips uniform values beyond 0.7 of
  // their largest.
  const double tolerance = type == VectorwiseType::kTruncatedVector ? 0.5 : 0.02;
  const MatrixXd exact = a.cast<double>().transpose() * g.cast<double>();
  BOOST_TEST((found.b.cast<double>() - exact).norm() <= tolerance * exact.norm());
}

BOOST_AUTO_TEST_CASE(precisionChoosesEachProduct) {
  const MatrixXf a = sample(5, 8), b = sample(8, 6), g = sample(5, 6);
  const MatrixXd exact = a.cast<double>() * b.cast<double>();
  MatMul8bitOptions options;
  options.precision = {16, 8, 8};
  BOOST_TEST((matMul8bit(a, b, options).cast<double>() - exact).norm() <= 0x1p-24 * exact.norm());
  BOOST_TEST((matMul8bit(a, b).cast<double>() - exact).norm() > 1e-4 * exact.norm());
  const auto all = matMul8bitBackward(a, b, g);
  options.precision = {8, 16, 8};
  const auto plainB = matMul8bitBackward(a, b, g, options);
  BOOST_TEST((plainB.a == all.a));
  BOOST_TEST((plainB.b == (a.cast<double>().transpose() * g.cast<double>()).cast<float>()));
  options.precision = {8, 8, 32};
  const auto plainA = matMul8bitBackward(a, b, g, options);
  BOOST_TEST((plainA.b == all.b));
  BOOST_TEST((plainA.a == (g.cast<double>() * b.cast<double>().transpose()).cast<float>()));
}

BOOST_DATA_TEST_CASE(batchesAreStackedProducts, data::make(kTypes), type) {
  const Index batch = 3, m = 4, k = 7, n = 5;
  MatMul8bitOptions options, one;
  options.type = one.type = type;
  options.batch = batch;
  const MatrixXf a = sample(batch * m, k), b = sample(batch * k, n), g = sample(batch * m, n);
  for (const int bits : {8, 16}) {
    options.precision = one.precision = {bits, bits, bits};
    const MatrixXf y = matMul8bit(a, b, options);
    const auto gradients = matMul8bitBackward(a, b, g, options);
    BOOST_TEST((gradients.a.rows() == batch * m && gradients.b.rows() == batch * k));
    MatrixXd exactB(batch * k, n);
    for (Index i = 0; i < batch; ++i) {
      const auto ai = a.middleRows(i * m, m), gi = g.middleRows(i * m, m);
      exactB.middleRows(i * k, k) = ai.cast<double>().transpose() * gi.cast<double>();
      if (isWholeMatrix(type) && bits == 8) continue;  // one statistic for the whole batch
      const auto bi = b.middleRows(i * k, k);
      BOOST_TEST((y.middleRows(i * m, m) == matMul8bit(ai, bi, one)));
      BOOST_TEST((gradients.a.middleRows(i * m, m) == matMul8bitBackward(ai, bi, gi, one).a));
    }
    const double tolerance = bits == 16 ? 1e-7 : type == VectorwiseType::kTruncatedVector ? 0.5 : 0.03;
    BOOST_TEST((gradients.b.cast<double>() - exactB).norm() <= tolerance * exactB.norm());
  }
  options.batch = 5;
  BOOST_CHECK_THROW(matMul8bit(a, b, options), FormatError);
}

BOOST_AUTO_TEST_CASE(emptyOperandsAndNarrowScalars) {
  for (const VectorwiseType type : kTypes) {
    MatMul8bitOptions options;
    options.type = type;
    const MatrixXf y = matMul8bit(MatrixXf(3, 0), MatrixXf(0, 2), options);
    BOOST_TEST((y.rows() == 3 && y.cols() == 2 && (y.array() == 0).all()));
    BOOST_TEST(matMul8bit(MatrixXf(0, 4), sample(4, 2), options).rows() == 0);
    const auto gradients = matMul8bitBackward(MatrixXf(0, 4), sample(4, 2), MatrixXf(0, 2), options);
    BOOST_TEST((gradients.b.rows() == 4 && (gradients.b.array() == 0).all()));
    using MatrixXh = Eigen::Matrix<Eigen::half, -1, -1>;
    const MatrixXh a = sample(4, 6).cast<Eigen::half>(), b = sample(6, 3).cast<Eigen::half>();
    const MatrixXf narrow = matMul8bit(a, b, options).cast<float>();
    const MatrixXf wide = matMul8bit(MatrixXf(a.cast<float>()), MatrixXf(b.cast<float>()), options);
    BOOST_TEST((narrow == wide.cast<Eigen::half>().cast<float>()));
  }
}

BOOST_AUTO_TEST_CASE(namesOfTheOriginal) {
  BOOST_TEST(vectorwiseType("truncated-vector") == VectorwiseType::kTruncatedVector);
  BOOST_TEST(vectorwiseType("row-zeropoint") == VectorwiseType::kRowZeropoint);
  BOOST_CHECK_THROW(vectorwiseType("vektor"), std::invalid_argument);
}
