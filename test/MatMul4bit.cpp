// SPDX-License-Identifier: MPL-2.0
// The 4-bit linear layer's passes as plain functions.
#define BOOST_TEST_MODULE MatMul4bit
#include <boost/test/unit_test.hpp>

#include "support/Bounds.h"
#include "support/KernelLog.h"

#include <eigen_q/Core>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using Eigen::VectorXf;

namespace {

template <typename Y>
void expectProduct(const char* what, const Y& y, const MatrixXd& x, const MatrixXd& w, const VectorXf& bias) {
  using Scalar = typename Y::Scalar;
  MatrixXd exact = x * w, magnitudes = x.cwiseAbs() * w.cwiseAbs();
  if (bias.size() != 0) {
    exact.rowwise() += bias.cast<double>().transpose();
    magnitudes.rowwise() += bias.cwiseAbs().cast<double>().transpose();
  }
  BOOST_TEST_REQUIRE((y.rows() == exact.rows() && y.cols() == exact.cols()));
  const Eigen::ArrayXXd sums = gammaFloat(x.cols() + 2) * magnitudes.array();
  const Eigen::ArrayXXd bound = sums + unitRoundoff<Scalar>() * (exact.array().abs() + sums) + smallestError<Scalar>();
  BOOST_TEST(((y.template cast<double>() - exact).array().abs() <= bound).all(), what);
}

template <typename Scalar, typename W>
void passes(const W& w) {
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
  const MatrixXd dense = MatrixXf(w).template cast<double>();
  const VectorXf bias = VectorXf::Random(w.rows());
  for (const Index m : {1, 2, 23}) {
    const Matrix a = MatrixXf(MatrixXf::Random(m, w.cols())).template cast<Scalar>(),
                 g = MatrixXf(MatrixXf::Random(m, w.rows())).template cast<Scalar>();
    const MatrixXd a64 = a.template cast<double>(), g64 = g.template cast<double>();
    expectProduct("A W'", matMul4bit(a, w), a64, dense.transpose(), VectorXf());
    expectProduct("A W' + b", matMul4bit(a, w, bias), a64, dense.transpose(), bias);  // a bias of another scalar too
    expectProduct("G W", matMul4bitGradA(g, w), g64, dense, VectorXf());
    BOOST_TEST((matmul4bit(a, w, bias) == matMul4bit(a, w.packed(), w.state(), bias)));
    const MatrixXd sums = g64.colwise().sum().transpose();
    BOOST_TEST((biasGradient(g) == sums.template cast<Scalar>()));
  }
}

}  // namespace

// No block size and no width is refused or slower: the original falls back where a block does not divide k.
BOOST_AUTO_TEST_CASE(everyFormatScalarAndBlockSize) {
  const MatrixXf wide = MatrixXf::Random(7, 100), odd = MatrixXf::Random(5, 33);
  passes<float>(NF4Matrix(wide));
  passes<Eigen::half>(NF4Matrix(odd, 32, Statistics::kNested));
  passes<Eigen::bfloat16>(FP4Matrix(wide, 4096));
  passes<float>(FP4Matrix(odd, 64, Statistics::kNested));
}

BOOST_AUTO_TEST_CASE(oneRowIsOneKernelCall) {
  const NF4Matrix w(MatrixXf::Random(40, 130), 128);
  const KernelLog log;
  matmul4bit(MatrixXf::Random(1, 130), w);
  BOOST_TEST((log.products() == 1 && log.dequantizations() == 0));
}

BOOST_AUTO_TEST_CASE(emptyOperandsAndPartsThatDoNotFit) {
  const NF4Matrix w(MatrixXf::Random(4, 64));
  BOOST_TEST(matMul4bit(MatrixXf(0, 64), w).cols() == 4);
  BOOST_TEST(matMul4bitGradA(MatrixXf(0, 4), w).cols() == 64);
  const MatrixXf y = matMul4bit(MatrixXf(3, 0), NF4Matrix(MatrixXf(4, 0)), VectorXf::Constant(4, 2));
  BOOST_TEST((y.rows() == 3 && (y.array() == 2).all()));
  const ByteVector tooShort = w.packed().head(100);
  BOOST_CHECK_THROW(matMul4bit(MatrixXf::Random(2, 64), tooShort, w.state()), FormatError);
  const QuantState cube(FourBitType::kNF4, 64, ScalarType::kFloat, {2, 2, 64}, VectorXf::Ones(4));
  BOOST_CHECK_THROW(matMul4bit(MatrixXf::Random(2, 64), w.packed(), cube), FormatError);
}
