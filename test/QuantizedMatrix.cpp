// SPDX-License-Identifier: MPL-2.0
// Making, moving, reading, printing and dequantising quantised matrices, and what they refuse.
#define BOOST_TEST_MODULE QuantizedMatrix
#include <boost/test/unit_test.hpp>

#include "support/KernelLog.h"

#include <eigen_q/Core>

#include <limits>
#include <sstream>
#include <vector>

using namespace EigenQ;
using EigenQ::test::KernelLog;
using Eigen::Index;
using Eigen::MatrixXf;

namespace {

template <typename Exception, typename Make>
void expectError(const std::string& text, const Make& make) {
  BOOST_CHECK_EXCEPTION(make(), Exception, [&](const Exception& e) {
    const bool found = std::string(e.what()).find(text) != std::string::npos;
    if (!found) BOOST_TEST_MESSAGE("message: " << e.what());
    return found;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(valuesAreThoseOfTheCodes) {
  const MatrixXf w = MatrixXf::Random(5, 70);
  const Int8Matrix w8(w);
  const NF4Matrix w4(w, 32);
  for (Index i = 0; i < w.rows(); ++i) {
    for (Index j = 0; j < w.cols(); ++j) {
      const float v8 = static_cast<float>(w8.codes()(i, j)) * w8.rowAbsmax()[i] * (1.0f / 127);
      BOOST_TEST(w8(i, j) == v8);
      const Index flat = i * 70 + j;
      const int code = flat % 2 ? w4.packed()[flat / 2] & 15 : w4.packed()[flat / 2] >> 4;
      const float v4 = w4.state().codeTable()[code] * w4.state().absmax()[flat / 32];
      BOOST_TEST(w4(i, j) == v4);
    }
  }
}

BOOST_AUTO_TEST_CASE(anyExpressionCanBeQuantised) {
  const MatrixXf w = MatrixXf::Random(6, 40);
  const auto same = [](const NF4Matrix& a, const NF4Matrix& b) {
    return a.rows() == b.rows() && a.cols() == b.cols() && (a.packed().array() == b.packed().array()).all() &&
           (a.state().absmax().array() == b.state().absmax().array()).all();
  };
  const NF4Matrix expected(w);
  const RowMajorMatrix<float> rowMajor = w;
  BOOST_TEST(same(NF4Matrix(rowMajor), expected));
  BOOST_TEST(same(NF4Matrix(w.transpose().eval().transpose()), expected));
  BOOST_TEST(same(NF4Matrix(w.cast<double>()), expected));
  BOOST_TEST(same(NF4Matrix(2 * w - w), expected));
  BOOST_TEST(same(NF4Matrix(Eigen::Map<const MatrixXf>(w.data(), 6, 40)), expected));
  MatrixXf frame = MatrixXf::Random(9, 50);
  frame.block(2, 3, 6, 40) = w;
  BOOST_TEST(same(NF4Matrix(frame.block(2, 3, 6, 40)), expected));
  const Eigen::MatrixX<Eigen::half> half = w.cast<Eigen::half>();
  BOOST_TEST(same(NF4Matrix(half), NF4Matrix(half.cast<float>())));
  const Eigen::Matrix<float, 2, 3> fixed = Eigen::Matrix<float, 2, 3>::Ones();
  BOOST_TEST((MatrixXf(Int8Matrix(fixed)).array() == 1).all());
  const Eigen::VectorXf vector = Eigen::VectorXf::Random(37);
  BOOST_TEST(Int8Matrix(vector).cols() == 1);
}

BOOST_AUTO_TEST_CASE(storedPartsGiveTheSameMatrix) {
  const MatrixXf w = MatrixXf::Random(8, 33);
  const Int8Matrix w8(w);
  const Int8Matrix again8(w8.codes(), w8.rowAbsmax());
  BOOST_TEST((MatrixXf(w8).array() == MatrixXf(again8).array()).all());
  for (const Statistics statistics : {Statistics::kPlain, Statistics::kNested}) {
    const FP4Matrix w4(w, 128, statistics);
    const FP4Matrix again4(w4.packed(), w4.state());
    BOOST_TEST((MatrixXf(w4).array() == MatrixXf(again4).array()).all());
    BOOST_TEST(w4.state().isNested() == (statistics == Statistics::kNested));
  }
}

BOOST_AUTO_TEST_CASE(movingTakesTheBuffers) {
  NF4Matrix w(MatrixXf::Random(64, 64));
  const std::uint8_t* codes = w.packed().data();
  const float* absmax = w.state().absmax().data();
  const NF4Matrix moved = std::move(w);
  BOOST_TEST(moved.packed().data() == codes);
  BOOST_TEST(moved.state().absmax().data() == absmax);
  std::ostringstream printed;
  printed << w;
  BOOST_TEST(printed.str().find("NF4Matrix 0x0") == 0);
  BOOST_TEST((w * MatrixXf(0, 3)).rows() == 0);
  w = moved;
  BOOST_TEST(w.rows() == 64);
  Int8Matrix w8(MatrixXf::Random(64, 64));
  const std::int8_t* codes8 = w8.codes().data();
  std::vector<Int8Matrix> layers;
  layers.push_back(std::move(w8));
  layers.reserve(10);
  BOOST_TEST(layers[0].codes().data() == codes8);
}

BOOST_AUTO_TEST_CASE(assignmentDequantisesByOneKernel) {
  const NF4Matrix w(MatrixXf::Random(20, 50), 32, Statistics::kNested);
  const auto one = [](const char* what, const auto& statement) {
    const KernelLog log;
    statement();
    BOOST_TEST(log.dequantizations() == 1, what);
    BOOST_TEST(log.products() == 0, what);
  };
  MatrixXf d, t, e;
  RowMajorMatrix<float> r;
  one("D = W", [&] { d = w; });
  one("row-major D = W", [&] { r = w; });
  one("D = W'", [&] { t = w.transpose(); });
  BOOST_TEST((d.array() == r.array()).all());
  BOOST_TEST((d.transpose().array() == t.array()).all());
  for (Index i = 0; i < 20; ++i) {
    for (Index j = 0; j < 50; ++j) BOOST_REQUIRE_EQUAL(d(i, j), w(i, j));
  }
  e = d;
  one("D += W", [&] { e += w; });
  BOOST_TEST((e.array() == 2 * d.array()).all());
  one("D -= 2 W", [&] { e -= 2 * w; });
  BOOST_TEST((e.array() == 0).all());
  one("D = W.block", [&] { e = w.block(3, 5, 7, 11); });
  BOOST_TEST((e.array() == d.block(3, 5, 7, 11).array()).all());
  one("D = W'.block'", [&] { e = w.transpose().block(5, 3, 11, 7).transpose(); });
  BOOST_TEST((e.array() == d.block(3, 5, 7, 11).array()).all());
  e = w.topLeftCorner(3, 4);
  BOOST_TEST((e.array() == d.topLeftCorner(3, 4).array()).all());
  e = w.topRightCorner(3, 4);
  BOOST_TEST((e.array() == d.topRightCorner(3, 4).array()).all());
  e = w.bottomLeftCorner(3, 4);
  BOOST_TEST((e.array() == d.bottomLeftCorner(3, 4).array()).all());
  e = w.bottomRightCorner(3, 4);
  BOOST_TEST((e.array() == d.bottomRightCorner(3, 4).array()).all());
  e.setZero(30, 60);
  one("D.block = W", [&] { e.block(1, 2, 20, 50) = w; });
  BOOST_TEST((e.block(1, 2, 20, 50).array() == d.array()).all());
  e.block(1, 2, 20, 50).setZero();
  BOOST_TEST((e.array() == 0).all());
  one("D = -W/2", [&] { e = -w / 2; });
  BOOST_TEST((e.array() == -d.array() / 2).all());
  one("D = W.asDense()", [&] { e = w.asDense(); });
  BOOST_TEST((e.array() == d.array()).all());
  Eigen::MatrixX<Eigen::bfloat16> b;
  one("bfloat16 D = W.cast()", [&] { b = w.cast<Eigen::bfloat16>(); });
  BOOST_TEST((b.cast<float>().array() == d.cast<Eigen::bfloat16>().cast<float>().array()).all());
  Eigen::Matrix<float, 20, 50> fixed = w;
  BOOST_TEST((fixed.array() == d.array()).all());
}

BOOST_AUTO_TEST_CASE(rowsColumnsAndCoefficientsAreDense) {
  const Int8Matrix w(MatrixXf::Random(12, 30));
  const MatrixXf d = w;
  const Eigen::RowVectorXf row = w.row(4);
  const Eigen::VectorXf col = w.col(7), rowAsColumn = w.row(4);
  BOOST_TEST((row.array() == d.row(4).array()).all());
  BOOST_TEST((col.array() == d.col(7).array()).all());
  BOOST_TEST((rowAsColumn.transpose().array() == row.array()).all());
  BOOST_TEST(w.row(2).dot(w.row(3)) == d.row(2).dot(d.row(3)), boost::test_tools::tolerance(1e-5f));
  BOOST_TEST(w.transpose()(7, 4) == d(4, 7));
  BOOST_TEST(w.block(1, 2, 3, 4)(2, 3) == d(3, 5));
  BOOST_TEST((2 * w)(3, 3) == 2 * d(3, 3));
  const std::vector<int> tokens{3, 0, 3, 11};
  const MatrixXf rows = w(tokens, Eigen::seqN(0, 30));
  BOOST_TEST((rows.array() == d(tokens, Eigen::seqN(0, 30)).array()).all());
  BOOST_TEST((w.asDense() - d).norm() == 0);
  BOOST_TEST((w.toDenseMatrix() - d).norm() == 0);
}

BOOST_AUTO_TEST_CASE(printing) {
  std::ostringstream small, large, empty;
  MatrixXf w(2, 2);
  w << 1, -1, 0, 2;
  small << Int8Matrix(w);
  BOOST_TEST(small.str() == "Int8Matrix 2x2, one absmax a row, 24.00 bits a weight:\n 1 -1\n 0  2");
  large << NF4Matrix(MatrixXf::Ones(512, 256), 64, Statistics::kNested);
  BOOST_TEST(large.str().find("NF4Matrix 512x256, blocks of 64, nested absmax, 4.19 bits a weight, top left corner 6x6:\n") ==
             0);
  empty << FP4Matrix();
  BOOST_TEST(empty.str() == "FP4Matrix 0x0, blocks of 64");
}

BOOST_AUTO_TEST_CASE(whatIsNotFiniteIsRefused) {
  MatrixXf w = MatrixXf::Ones(3, 40);
  w(1, 7) = std::numeric_limits<float>::quiet_NaN();
  expectError<std::invalid_argument>("NF4Matrix: coefficient (1, 7)", [&] { NF4Matrix q(w); });
  w(1, 7) = -std::numeric_limits<float>::infinity();
  expectError<std::invalid_argument>("Int8Matrix: coefficient (1, 7)", [&] { Int8Matrix q(w); });
  Eigen::MatrixXd d = Eigen::MatrixXd::Constant(2, 2, 1e300);
  expectError<std::invalid_argument>("FP4Matrix: coefficient (0, 0)", [&] { FP4Matrix q(d); });
}

BOOST_AUTO_TEST_CASE(extremesAreKept) {
  for (const float size : {std::numeric_limits<float>::max(), 1e30f, 1e-30f}) {
    const MatrixXf w = size * MatrixXf::Random(4, 64);
    const MatrixXf d8 = Int8Matrix(w), d4 = NF4Matrix(w);
    BOOST_TEST(((d8 - w).array().abs() <= size / 250).all());
    BOOST_TEST(((d4 - w).array().abs() <= size / 6).all());
    BOOST_TEST(d4.allFinite());
  }
  const MatrixXf zero = MatrixXf::Zero(3, 50);
  BOOST_TEST((MatrixXf(Int8Matrix(zero)).array() == 0).all());
  BOOST_TEST((MatrixXf(NF4Matrix(zero)).array() == 0).all());
  BOOST_TEST((MatrixXf(FP4Matrix(zero, 32, Statistics::kNested)).array() == 0).all());
}

BOOST_AUTO_TEST_CASE(storedPartsMustFit) {
  const NF4Matrix w(MatrixXf::Random(4, 64));
  expectError<FormatError>("SCB: expected 4 rows, found 3", [] { Int8Matrix(Int8Codes(4, 2), Eigen::VectorXf::Ones(3)); });
  expectError<FormatError>("model.safetensors: SCB: expected finite values >= 0",
                           [] { Int8Matrix(Int8Codes(2, 2), Eigen::Vector2f(1, -1), "model.safetensors"); });
  expectError<FormatError>("quant_type: expected fp4, found nf4", [&] { FP4Matrix(w.packed(), w.state()); });
  expectError<FormatError>("weight: expected 128 bytes for 4x64 codes, found 127",
                           [&] { NF4Matrix(w.packed().head(127), w.state()); });
  expectError<FormatError>("shape: expected a matrix, found rank 1", [&] {
    NF4Matrix(w.packed(), QuantState(FourBitType::kNF4, 64, ScalarType::kFloat, {256}, w.state().absmax()));
  });
  expectError<FormatError>("blockSize: expected a power of two from 32 to 4096, found 48",
                           [] { NF4Matrix(MatrixXf::Ones(2, 2), 48); });
}
