// SPDX-License-Identifier: MPL-2.0
// Products of quantised matrices with every kind of dense operand.
#define BOOST_TEST_MODULE QuantProduct
#include <boost/test/unit_test.hpp>

#include "support/Expressions.h"

#include <vector>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::Index;

namespace {

template <typename W>
std::vector<W> matrices() {
  std::vector<W> all;
  for (const auto& shape : std::vector<std::pair<Index, Index>>{{1, 1}, {3, 70}, {33, 17}, {40, 129}, {21, 96}}) {
    all.emplace_back(Eigen::MatrixXf::Random(shape.first, shape.second));
  }
  return all;
}

template <typename Scalar, int Options, typename W>
void basicProducts() {
  for (const W& w : matrices<W>()) {
    for (const Index m : {1, 5, 13}) {
      expectAgrees<Scalar, Options>("y = x w'", w, m, 1, 1,
                                    [](auto& o, const auto& W_) { o.y = o.x * W_.transpose(); });
      expectAgrees<Scalar, Options>("y' = w x'", w, m, 1, 1,
                                    [](auto& o, const auto& W_) { o.y.transpose() = W_ * o.x.transpose(); });
      expectAgrees<Scalar, Options>("z = g w", w, m, 1, 1, [](auto& o, const auto& W_) { o.z.noalias() = o.g * W_; });
      expectAgrees<Scalar, Options>("z' = w' g'", w, m, 1, 1, [](auto& o, const auto& W_) {
        o.z.transpose().noalias() = W_.transpose() * o.g.transpose();
      });
      expectAgrees<Scalar, Options>("y += x w'", w, m, 1, 2,
                                    [](auto& o, const auto& W_) { o.y.noalias() += o.x * W_.transpose(); });
      expectAgrees<Scalar, Options>("z -= g w", w, m, 1, 2, [](auto& o, const auto& W_) { o.z -= o.g * W_; });
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(nf4Float) { basicProducts<float, Eigen::ColMajor, NF4Matrix>(); }
BOOST_AUTO_TEST_CASE(nf4FloatRowMajor) { basicProducts<float, Eigen::RowMajor, NF4Matrix>(); }
BOOST_AUTO_TEST_CASE(fp4Half) { basicProducts<Eigen::half, Eigen::ColMajor, FP4Matrix>(); }
BOOST_AUTO_TEST_CASE(int8BFloat16) { basicProducts<Eigen::bfloat16, Eigen::RowMajor, Int8Matrix>(); }
BOOST_AUTO_TEST_CASE(int8Float) { basicProducts<float, Eigen::ColMajor, Int8Matrix>(); }

BOOST_AUTO_TEST_CASE(operandsOfEveryKind) {
  const NF4Matrix w(Eigen::MatrixXf::Random(24, 66), 32, Statistics::kNested);
  const auto check = [&](const char* what, const auto& statement) {
    expectAgrees<float, Eigen::ColMajor>(what, w, 7, 1, 1, statement);
  };
  check("block of X", [](auto& o, const auto& W) { o.y.topRows(3) = o.x.middleRows(2, 3) * W.transpose(); });
  check("block of W",
        [](auto& o, const auto& W) { o.y.leftCols(5) = o.x.leftCols(9) * W.block(3, 7, 5, 9).transpose(); });
  check("rows of W", [](auto& o, const auto& W) { o.z.noalias() = o.g.middleCols(4, 11) * W.middleRows(4, 11); });
  check("columns of W'",
        [](auto& o, const auto& W) { o.z.middleCols(5, 40) = o.g * W.transpose().middleRows(5, 40).transpose(); });
  check("block of a block", [](auto& o, const auto& W) {
    o.y.leftCols(4) = o.x.leftCols(8) * W.bottomRows(10).rightCols(20).block(1, 3, 4, 8).transpose();
  });
  check("column vector", [](auto& o, const auto& W) { o.y.row(2).transpose() = W * o.x.row(1).transpose(); });
  check("row vector", [](auto& o, const auto& W) { o.y.row(2) = o.x.row(1) * W.transpose(); });
  check("reversed rows", [](auto& o, const auto& W) { o.y = o.x.colwise().reverse() * W.transpose(); });
  check("reversed result", [](auto& o, const auto& W) { o.y.colwise().reverse() = o.x * W.transpose(); });
  check("sum of X", [](auto& o, const auto& W) { o.y = (o.x + o.x) * W.transpose(); });
  check("scaled X", [](auto& o, const auto& W) { o.y = (o.s * o.x) * W.transpose(); });
  check("negative X", [](auto& o, const auto& W) { o.y = -o.x * W.transpose(); });
  check("scaled W", [](auto& o, const auto& W) { o.y = o.x * (o.s * W).transpose(); });
  check("W scaled behind", [](auto& o, const auto& W) { o.z = o.g * (W * o.s); });
  check("W divided", [](auto& o, const auto& W) { o.z = o.g * (W / o.s); });
  check("negative W", [](auto& o, const auto& W) { o.z = o.g * -W; });
  check("scale, W, X in a row", [](auto& o, const auto& W) { o.y.transpose() = o.s * W * o.x.transpose(); });
  check("adjoint", [](auto& o, const auto& W) { o.y = o.x * W.adjoint(); });
  check("outer product", [](auto& o, const auto& W) { o.z.noalias() = o.g.leftCols(1) * W.topRows(1); });
  check("map with strides", [](auto& o, const auto& W) {
    using M = std::decay_t<decltype(o.x)>;
    Eigen::Map<const M, 0, Eigen::OuterStride<>> x(o.x.data(), 3, o.x.cols(), Eigen::OuterStride<>(o.x.outerStride()));
    o.y.topRows(3).noalias() = x * W.transpose();
  });
  check("inner stride", [](auto& o, const auto& W) {
    using M = std::decay_t<decltype(o.x)>;
    using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    Eigen::Map<const M, 0, Stride> x(o.x.data(), 3, o.x.cols(), Stride(o.x.outerStride(), 2));
    Eigen::Map<M, 0, Stride> y(o.y.data(), 3, o.y.cols(), Stride(o.y.outerStride(), 2));
    y.noalias() = x * W.transpose();
  });
  check("Ref", [](auto& o, const auto& W) {
    using M = std::decay_t<decltype(o.x)>;
    const Eigen::Ref<const M> x(o.x);
    Eigen::Ref<M> y(o.y);
    y.noalias() = x * W.transpose();
  });
  check("coefficient-wise X", [](auto& o, const auto& W) { o.y = o.x.cwiseProduct(o.x) * W.transpose(); });
  check("array as matrix", [](auto& o, const auto& W) { o.y = (o.x.array() * o.x.array()).matrix() * W.transpose(); });
  check("product of X", [](auto& o, const auto& W) { o.z.topRows(2) = (o.cb * W) / 2; });
}

BOOST_AUTO_TEST_CASE(fixedSizes) {
  const Int8Matrix w(Eigen::MatrixXf::Random(4, 8));
  const Eigen::MatrixXf d = w;
  const Eigen::Matrix<float, 8, 1> x = Eigen::Matrix<float, 8, 1>::Random();
  const Eigen::Matrix<float, 8, 3> x3 = Eigen::Matrix<float, 8, 3>::Random();
  Eigen::Vector4f y = w * x;
  BOOST_TEST((y - d * x).norm() <= gammaFloat(16) * d.norm() * x.norm());
  Eigen::Matrix<float, 4, 3> y3;
  y3.noalias() = w * x3;
  BOOST_TEST((y3 - d * x3).norm() <= gammaFloat(16) * d.norm() * x3.norm());
  const float inner = Eigen::RowVector4f::Ones() * w * x;
  BOOST_TEST(std::abs(inner - (d * x).sum()) <= gammaFloat(16) * 4 * d.norm() * x.norm());
}

BOOST_AUTO_TEST_CASE(aliasingIsSafeWithoutNoalias) {
  const NF4Matrix w(Eigen::MatrixXf::Random(32, 32));
  const auto check = [&](const char* what, int kernels, const auto& statement) {
    expectAgrees<float, Eigen::ColMajor>(what, w, 32, kernels, 1, statement);
  };
  check("x = x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y * W.transpose(); });
  check("x = x + x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y + o.y * W.transpose(); });
  check("x += x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y += o.y * W.transpose(); });
  check("x = relu(x w' + b)", 1,
        [](auto& o, const auto& W) { o.y = o.x, o.y = relu((o.y * W.transpose()).rowwise() + o.b.transpose()); });
  check("x = x' w", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y.transpose() * W; });
  check("c = c' - x w'", 1, [](auto& o, const auto& W) { o.y = o.c, o.y = o.y.transpose() - o.x * W.transpose(); });
  const NF4Matrix wide(Eigen::MatrixXf::Random(3, 32));
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(5, 32);
  const Eigen::MatrixXd exact = x.cast<double>() * Eigen::MatrixXf(wide).cast<double>().transpose();
  x = x * wide.transpose();
  expectClose("shrinking x", x, exact, 32 * gammaFloat(40), 1);
}

BOOST_AUTO_TEST_CASE(emptyProducts) {
  const Int8Matrix none(Eigen::MatrixXf(0, 5)), thin(Eigen::MatrixXf(5, 0));
  Eigen::MatrixXf y =
      Eigen::MatrixXf::Random(3, 4) * Int8Matrix(Eigen::MatrixXf(4, 0)).transpose().transpose().topRows(4);
  BOOST_TEST(y.size() == 0);
  y = Eigen::MatrixXf::Random(3, 5) * none.transpose();
  BOOST_TEST((y.rows() == 3 && y.cols() == 0));
  y = Eigen::MatrixXf(3, 0) * thin.transpose();
  BOOST_TEST((y.rows() == 3 && y.cols() == 5));
  BOOST_TEST((y.array() == 0).all(), "a sum of nothing is zero");
  y = relu((Eigen::MatrixXf(3, 0) * thin.transpose()).rowwise() + Eigen::RowVectorXf::Constant(5, 2));
  BOOST_TEST((y.array() == 2).all());
  y = Eigen::MatrixXf(0, 5) * thin;
  BOOST_TEST((y.rows() == 0 && y.cols() == 0));
}

BOOST_AUTO_TEST_CASE(expressionsAreLazyAsEigens) {
  Int8Matrix w(Eigen::MatrixXf::Random(3, 4));
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(2, 4);
  const auto product = x * w.transpose();
  x.setOnes();
  w = Int8Matrix(Eigen::MatrixXf::Ones(3, 4));
  const Eigen::MatrixXf y = product;
  BOOST_TEST((y - Eigen::MatrixXf::Constant(2, 3, 4)).norm() < 1e-5f);
}

BOOST_AUTO_TEST_CASE(nanAndInfinityPropagate) {
  const NF4Matrix w(Eigen::MatrixXf::Ones(3, 40));
  for (const Index m : {1, 20}) {
    Eigen::MatrixXf x = Eigen::MatrixXf::Ones(m, 40);
    x(0, 7) = std::numeric_limits<float>::quiet_NaN();
    const Eigen::MatrixXf y = relu((x * w.transpose()).cwiseMax(0.0f));
    BOOST_TEST(y.row(0).array().isNaN().all());
    BOOST_TEST(y.bottomRows(m - 1).allFinite());
    x(0, 7) = std::numeric_limits<float>::infinity();
    const Eigen::MatrixXf z = x * w.transpose();
    BOOST_TEST(z.row(0).array().isInf().all());
  }
}
