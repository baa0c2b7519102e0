// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE QuantizeInt8
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/src/Int8Codec.h>
#include <eigen_q/src/Quantize.h>

using namespace EigenQ;
using Eigen::MatrixXf;

namespace {

/** Values in [-2, 2], and outliers of magnitude 8 and more at (1, 2), (3, 2) and (3, 7). */
MatrixXf sampleWithOutliers() {
  MatrixXf x = MatrixXf::NullaryExpr(
      5, 11, [](Index i, Index j) { return static_cast<float>((i * 37 + j * 23) % 41 - 20) * 0.1f; });
  x(1, 2) = 8;
  x(3, 2) = -9;
  x(3, 7) = 100;
  return x;
}

std::vector<Index> indices(const IndexVector& v) { return {v.begin(), v.end()}; }

}  // namespace

BOOST_AUTO_TEST_CASE(selfCheckVector) {
  const Eigen::RowVectorXf x = (Eigen::RowVectorXf(8) << 0.5f, -1.25f, 0, 2, -0.03f, 0.875f, -2, 0.003f).finished();
  const Int8Quantized q = int8VectorwiseQuant(x);
  const int expected[] = {32, -79, 0, 127, -2, 56, -127, 0};
  for (Index i = 0; i < 8; ++i) BOOST_TEST(int(q.codes(0, i)) == expected[i]);
  BOOST_TEST(q.rowStats[0] == 2);
  BOOST_TEST(q.outlierColumns.size() == 0);
}

BOOST_AUTO_TEST_CASE(rowsFollowTheScalarDefinition) {
  const MatrixXf x = sampleWithOutliers();
  const Int8Quantized q = int8VectorwiseQuant(x);
  for (Index i = 0; i < x.rows(); ++i) {
    const float absmax = x.row(i).cwiseAbs().maxCoeff();
    BOOST_TEST(q.rowStats[i] == absmax);
    for (Index j = 0; j < x.cols(); ++j) BOOST_TEST(q.codes(i, j) == internal::encodeInt8(x(i, j), 127 / absmax));
  }
  const RowMajorMatrix<float> decoded = int8VectorwiseDequant(q.codes, q.rowStats);
  const Eigen::ArrayXXf halfStep = q.rowStats.array().replicate(1, x.cols()) / 254;
  BOOST_TEST(((decoded - x).array().abs() <= halfStep * 1.00001f).all());
}

BOOST_AUTO_TEST_CASE(outliersLeaveTheStatisticsAndEmptyTheirColumns) {
  const MatrixXf x = sampleWithOutliers();
  const Int8Quantized q = int8VectorwiseQuant(x, 6);
  BOOST_TEST(indices(q.outlierColumns) == (std::vector<Index>{2, 7}), boost::test_tools::per_element());
  const MatrixXf inliers = (x.array().abs() >= 6).select(0.0f, x);
  for (Index i = 0; i < x.rows(); ++i) {
    // What is no outlier counts, in an outlier column too.
    BOOST_TEST(q.rowStats[i] == inliers.row(i).cwiseAbs().maxCoeff());
    for (Index j = 0; j < x.cols(); ++j) {
      const int expected = j == 2 || j == 7 ? 0 : internal::encodeInt8(x(i, j), 127 / q.rowStats[i]);
      BOOST_TEST(int(q.codes(i, j)) == expected);
    }
  }
}

BOOST_AUTO_TEST_CASE(theThresholdItselfIsAnOutlier) {
  const Eigen::RowVector3f x(6, std::nextafter(6.0f, 0.0f), -6);
  BOOST_TEST(indices(int8VectorwiseQuant(x, 6).outlierColumns) == (std::vector<Index>{0, 2}),
             boost::test_tools::per_element());
  BOOST_TEST(int8VectorwiseQuant(x, 7).outlierColumns.size() == 0);
  BOOST_TEST(int8VectorwiseQuant(x, 0).outlierColumns.size() == 0);
}

BOOST_AUTO_TEST_CASE(columnsFollowTheScalarDefinition) {
  const MatrixXf x = sampleWithOutliers();
  for (const float threshold : {0.0f, 6.0f}) {
    const Int8DoubleQuantized q = int8DoubleQuant(x, threshold);
    const Int8Quantized rows = int8VectorwiseQuant(x, threshold);
    BOOST_TEST((q.rowCodes == rows.codes));
    BOOST_TEST((q.rowStats == rows.rowStats));
    BOOST_TEST((q.outlierColumns == rows.outlierColumns));
    const MatrixXf counted = threshold > 0 ? MatrixXf((x.array().abs() >= threshold).select(0.0f, x)) : x;
    for (Index j = 0; j < x.cols(); ++j) {
      BOOST_TEST(q.colStats[j] == counted.col(j).cwiseAbs().maxCoeff());
      const bool cleared = threshold > 0 && (j == 2 || j == 7);
      for (Index i = 0; i < x.rows(); ++i) {
        const int expected = cleared ? 0 : internal::encodeInt8(x(i, j), internal::int8Scale(q.colStats[j]));
        BOOST_TEST(int(q.colCodes(i, j)) == expected);
      }
    }
  }
}

// The original forms 127·x in half, which overflows from 516 on and turns the code into -1.
BOOST_AUTO_TEST_CASE(largeHalvesKeepTheirColumnCodes) {
  Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic> x(2, 2);
  x << Eigen::half(516.0f), Eigen::half(-60000.0f), Eigen::half(258.0f), Eigen::half(30000.0f);
  const Int8DoubleQuantized q = int8DoubleQuant(x);
  BOOST_TEST(int(q.colCodes(0, 0)) == 127);
  BOOST_TEST(int(q.colCodes(0, 1)) == -127);
  BOOST_TEST(int(q.colCodes(1, 0)) == 64);
  BOOST_TEST(int(q.colCodes(1, 1)) == 64);
}

BOOST_AUTO_TEST_CASE(stridesAndTypesDoNotMatter) {
  const MatrixXf x = sampleWithOutliers();
  const Int8Quantized expected = int8VectorwiseQuant(x, 6);
  const RowMajorMatrix<float> rowMajor = x;
  BOOST_TEST((int8VectorwiseQuant(rowMajor, 6).codes == expected.codes));
  MatrixXf frame = MatrixXf::Constant(9, 20, 50);
  frame.block(2, 3, 5, 11) = x;
  BOOST_TEST((int8VectorwiseQuant(frame.block(2, 3, 5, 11), 6).codes == expected.codes));
  BOOST_TEST((int8VectorwiseQuant(x.cast<double>(), 6).codes == expected.codes));
  const Eigen::Matrix<Eigen::bfloat16, Eigen::Dynamic, Eigen::Dynamic> narrow = x.cast<Eigen::bfloat16>();
  BOOST_TEST((int8VectorwiseQuant(narrow, 6).codes == int8VectorwiseQuant(MatrixXf(narrow.cast<float>()), 6).codes));
}

BOOST_AUTO_TEST_CASE(zeroNanInfinityAndEmpty) {
  MatrixXf x = MatrixXf::Ones(4, 3);
  x.row(0).setZero();
  x(1, 1) = std::numeric_limits<float>::quiet_NaN();
  x(2, 2) = std::numeric_limits<float>::infinity();
  x.row(3).setConstant(1e-37f);  // 127/absmax would overflow
  const Int8Quantized q = int8VectorwiseQuant(x);
  BOOST_TEST((q.codes.row(0).array() == 0).all());
  BOOST_TEST(q.rowStats[0] == 0);
  BOOST_TEST(int(q.codes(1, 0)) == 127);
  BOOST_TEST(int(q.codes(1, 1)) == 0);
  BOOST_TEST((q.codes.row(2).array() == 0).all());
  BOOST_TEST((q.codes.row(3).array() == 0).all());

  BOOST_TEST(int8VectorwiseQuant(MatrixXf(0, 3)).rowStats.size() == 0);
  BOOST_TEST(int8DoubleQuant(MatrixXf(0, 3)).colStats == Eigen::VectorXf::Zero(3));
  BOOST_TEST(int8VectorwiseQuant(MatrixXf(3, 0), 6).rowStats == Eigen::VectorXf::Zero(3));
}

BOOST_AUTO_TEST_CASE(decodingPartsAndTheirSizes) {
  const Int8Quantized q = int8VectorwiseQuant(sampleWithOutliers());
  const MatrixXf decoded = int8VectorwiseDequant(q.codes, q.rowStats);
  BOOST_TEST((int8VectorwiseDequant(q.codes.leftCols(4), q.rowStats) == decoded.leftCols(4)));
  BOOST_CHECK_THROW(int8VectorwiseDequant(q.codes, q.rowStats.head(4)), FormatError);
}
