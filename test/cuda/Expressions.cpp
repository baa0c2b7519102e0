// SPDX-License-Identifier: MPL-2.0
// The same statements, written once, on the host in double and on device matrices.
#define BOOST_TEST_MODULE DeviceExpressions
#include <boost/test/unit_test.hpp>

#include <eigen_q/Cuda>

#include "Device.h"
#include "support/Expressions.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::Index;
using Eigen::MatrixXf;
using gpu::DeviceMatrix;

namespace {

/** Operands in device memory, under the names they have on the host. */
template <typename Scalar, int Options>
struct DeviceOperands {
  using Host = Operands<Scalar, Options>;
  using Matrix = DeviceMatrix<Scalar, Options>;
  using Vector = DeviceMatrix<Scalar>;

  Matrix x, g, c, ca, cb, y, z;
  Vector b, bk;
  float s;

  explicit DeviceOperands(const Host& o)
      : x(Matrix::fromHost(o.x)),
        g(Matrix::fromHost(o.g)),
        c(Matrix::fromHost(o.c)),
        ca(Matrix::fromHost(o.ca)),
        cb(Matrix::fromHost(o.cb)),
        y(Matrix::fromHost(o.y)),
        z(Matrix::fromHost(o.z)),
        b(Vector::fromHost(o.b)),
        bk(Vector::fromHost(o.bk)),
        s(static_cast<float>(o.s)) {}
};

gpu::Int8Matrix onDevice(const Int8Matrix& w) { return gpu::Int8Matrix::fromHost(w); }
template <FourBitType kType>
gpu::FourBitMatrix<kType> onDevice(const FourBitMatrix<kType>& w) {
  return gpu::FourBitMatrix<kType>::fromHost(w);
}

/** As expectAgrees, for device operands. W may be rounded to the scalar of X before it is multiplied. */
template <typename Scalar, int Options, typename W, typename Statement>
void agreesOnDevice(const char* what, const W& w, Index m, int kernels, int stores, const Statement& statement) {
  const auto host = Operands<Scalar, Options>::random(m, w.rows(), w.cols());
  DeviceOperands<Scalar, Options> device(host);
  auto exact = host.toDouble();
  const auto deviceW = onDevice(w);
  {
    const KernelLog log;
    statement(device, deviceW);
    BOOST_TEST(log.products() == kernels, what << ": " << log.products() << " kernels instead of " << kernels);
  }
  const Eigen::MatrixXd dense = MatrixXf(w).template cast<double>();
  statement(exact, dense);
  const Index depth = std::max(w.rows(), w.cols()) + 8;
  const double largest = dense.size() ? dense.cwiseAbs().maxCoeff() : 0.0;
  const double size = static_cast<double>(depth) * std::max(1.0, largest);
  const double bound = 4 * (gammaFloat(depth) + unitRoundoff<Scalar>()) * size;
  expectClose(what, device.y.toHost(), exact.y, bound, stores);
  expectClose(what, device.z.toHost(), exact.z, bound, stores);
}

template <typename Scalar, int Options, typename W>
void basicProducts() {
  for (const auto& shape : std::vector<std::pair<Index, Index>>{{1, 1}, {3, 70}, {33, 17}, {40, 129}, {128, 256}}) {
    const W w(MatrixXf::Random(shape.first, shape.second));
    for (const Index m : {1, 5, 13, 40}) {
      agreesOnDevice<Scalar, Options>("y = x w'", w, m, 1, 1, [](auto& o, const auto& W_) { o.y = o.x * W_.transpose(); });
      agreesOnDevice<Scalar, Options>("y' = w x'", w, m, 1, 1,
                                      [](auto& o, const auto& W_) { o.y.transpose() = W_ * o.x.transpose(); });
      agreesOnDevice<Scalar, Options>("z = g w", w, m, 1, 1, [](auto& o, const auto& W_) { o.z.noalias() = o.g * W_; });
      agreesOnDevice<Scalar, Options>("z' = w' g'", w, m, 1, 1, [](auto& o, const auto& W_) {
        o.z.transpose().noalias() = W_.transpose() * o.g.transpose();
      });
      agreesOnDevice<Scalar, Options>("y += x w'", w, m, 1, 2,
                                      [](auto& o, const auto& W_) { o.y.noalias() += o.x * W_.transpose(); });
      agreesOnDevice<Scalar, Options>("z -= g w", w, m, 1, 2, [](auto& o, const auto& W_) { o.z -= o.g * W_; });
    }
  }
}

const NF4Matrix& weights() {
  static const NF4Matrix w(MatrixXf::Random(34, 70), 32, Statistics::kNested);
  return w;
}

template <typename Statement>
void launches(const char* what, const Statement& statement, int kernels = 1) {
  agreesOnDevice<float, Eigen::ColMajor>(what, weights(), 9, kernels, 3, statement);
  agreesOnDevice<Eigen::bfloat16, Eigen::RowMajor>(what, weights(), 9, kernels, 3, statement);
}

}  // namespace

#define STATEMENT(text)               \
#text, [](auto& o, const auto& W) { \
    auto P = o.x * W.transpose();     \
    auto Q = o.g * W;                 \
    (void)P, (void)Q;                 \
    text;                             \
  }

BOOST_AUTO_TEST_SUITE(expressions, *needsDevice())

BOOST_AUTO_TEST_CASE(nf4Float) { basicProducts<float, Eigen::ColMajor, NF4Matrix>(); }
BOOST_AUTO_TEST_CASE(nf4FloatRowMajor) { basicProducts<float, Eigen::RowMajor, NF4Matrix>(); }
BOOST_AUTO_TEST_CASE(fp4Half) { basicProducts<Eigen::half, Eigen::ColMajor, FP4Matrix>(); }
BOOST_AUTO_TEST_CASE(int8BFloat16) { basicProducts<Eigen::bfloat16, Eigen::RowMajor, Int8Matrix>(); }
BOOST_AUTO_TEST_CASE(int8Float) { basicProducts<float, Eigen::ColMajor, Int8Matrix>(); }

BOOST_AUTO_TEST_CASE(oneLaunchAProduct) {
  launches(STATEMENT(o.y.noalias() = P));
  launches(STATEMENT(o.y.noalias() += P));
  launches(STATEMENT(o.y.noalias() -= P));
  launches(STATEMENT(o.z.noalias() += o.s * Q));
  launches(STATEMENT(o.y.noalias() = P * o.s));
  launches(STATEMENT(o.y.noalias() = P / o.s));
  launches(STATEMENT(o.y.noalias() -= -P));
  launches(STATEMENT(o.y.noalias() = o.s * (o.s * P)));
  launches(STATEMENT(o.y.noalias() = o.x * (o.s * W).transpose()));
  launches(STATEMENT(o.z.noalias() = o.g * -W));
}

BOOST_AUTO_TEST_CASE(bias) {
  launches(STATEMENT(o.y.noalias() = P.rowwise() + o.b.transpose()));
  launches(STATEMENT(o.y.noalias() += (o.s * P).rowwise() + o.b.transpose()));
  launches(STATEMENT(o.y.noalias() -= P.rowwise() + o.b.transpose()));
  launches(STATEMENT(o.y.transpose().noalias() = (W * o.x.transpose()).colwise() + o.b));
  launches(STATEMENT(o.z.noalias() = Q.rowwise() + o.bk.transpose()));
  launches(STATEMENT(o.y.noalias() = P.rowwise() + o.c.row(3)));  // a bias with a stride
  launches(STATEMENT(o.y.row(1).noalias() = o.x.row(2) * W.transpose() + o.b.transpose()));
}

BOOST_AUTO_TEST_CASE(activations) {
  launches(STATEMENT(o.y.noalias() = relu(P)));
  launches(STATEMENT(o.y.noalias() = gelu(o.s * P)));
  launches(STATEMENT(o.y.noalias() += silu(P.rowwise() + o.b.transpose())));
  launches(STATEMENT(o.y.noalias() -= tanh(P)));
  launches(STATEMENT(o.y.noalias() = P.cwiseMax(0)));
  launches(STATEMENT(o.y.noalias() = P.cwiseMax(-o.s).cwiseMin(o.s)));
  launches(STATEMENT(o.y.noalias() = gelu(P).cwiseMin(o.s)));
  launches(STATEMENT(o.y = gelu(o.c)), 0);
}

BOOST_AUTO_TEST_CASE(furtherTerms) {
  launches(STATEMENT(o.y.noalias() = o.c + P));
  launches(STATEMENT(o.y.noalias() = P - o.c));
  launches(STATEMENT(o.y.noalias() = o.c - P));
  launches(STATEMENT(o.y.noalias() += P - o.c));
  launches(STATEMENT(o.y.noalias() -= o.c + o.s * P));
  launches(STATEMENT(o.y.noalias() -= o.c - relu(P)));
  launches(STATEMENT(o.y.noalias() = gelu(P.rowwise() + o.b.transpose()) + o.c));
  launches(STATEMENT(o.y.noalias() = o.c + P + o.c));
  launches(STATEMENT(o.y.noalias() = 2 * o.c + P));
  launches(STATEMENT(o.y.noalias() = P + o.s * P), 2);
  launches(STATEMENT(o.y.noalias() = relu(P) - o.c - silu(P)), 2);
  launches(STATEMENT(o.y = 2 * o.c - o.c / 3 + o.y), 0);
}

// It is read by the first launch, wherever it stands.
BOOST_AUTO_TEST_CASE(oneTermMayBeTheResultItself) {
  launches(STATEMENT(o.y.noalias() = P + o.y + o.c));
  launches(STATEMENT(o.y.noalias() = o.c - P - o.y));
  launches(STATEMENT(o.y.noalias() = P + relu(P) - o.s * o.y), 2);
}

BOOST_AUTO_TEST_CASE(windows) {
  launches(STATEMENT(o.y.topRows(3) = o.x.middleRows(2, 3) * W.transpose()));
  launches(STATEMENT(o.y.leftCols(5) = o.x.leftCols(9) * W.block(3, 7, 5, 9).transpose()));
  launches(STATEMENT(o.z.noalias() = o.g.middleCols(4, 11) * W.middleRows(4, 11)));
  launches(STATEMENT(o.z.middleCols(5, 40) = o.g * W.transpose().middleRows(5, 40).transpose()));
  launches(STATEMENT(o.y.row(2).transpose() = W * o.x.row(1).transpose()));
}

BOOST_AUTO_TEST_CASE(denseProducts) {
  launches(STATEMENT(o.y.leftCols(2) = o.x * o.ca), 0);
  launches(STATEMENT(o.y.noalias() += o.x.leftCols(2) * o.cb + o.c), 0);
  launches(STATEMENT(o.y = gelu((o.s * (o.x.leftCols(2) * o.cb)).rowwise() + o.b.transpose())), 0);
  launches(STATEMENT(o.y.transpose() = o.cb.transpose() * o.x.leftCols(2).transpose() - o.c.transpose()), 0);
}

BOOST_AUTO_TEST_CASE(dequantization) {
  const NF4Matrix& w = weights();
  const MatrixXf dense = w;
  const auto d = onDevice(w);
  BOOST_TEST((DeviceMatrix<float>(d).toHost() == dense));
  BOOST_TEST((DeviceMatrix<float, Eigen::RowMajor>(d.transpose()).toHost() == dense.transpose()));
  BOOST_TEST((DeviceMatrix<float>(d.block(3, 5, 20, 31)).toHost() == dense.block(3, 5, 20, 31)));
  DeviceMatrix<float> sum = DeviceMatrix<float>::fromHost(dense);
  sum += d;
  BOOST_TEST((sum.toHost() == 2 * dense));
  sum = d.cast<float>() - sum;
  BOOST_TEST((sum.toHost() == -dense));
}

BOOST_AUTO_TEST_CASE(aliasing) {
  const NF4Matrix w(MatrixXf::Random(32, 32));
  const auto check = [&](const char* what, int kernels, const auto& statement) {
    agreesOnDevice<float, Eigen::ColMajor>(what, w, 32, kernels, 1, statement);
  };
  check("x = x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y * W.transpose(); });
  check("x = x + x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y + o.y * W.transpose(); });
  check("x += x w'", 1, [](auto& o, const auto& W) { o.y = o.x, o.y += o.y * W.transpose(); });
  check("x = relu(x w' + b)", 1,
        [](auto& o, const auto& W) { o.y = o.x, o.y = relu((o.y * W.transpose()).rowwise() + o.b.transpose()); });
  check("x = x' w", 1, [](auto& o, const auto& W) { o.y = o.x, o.y = o.y.transpose() * W; });
  check("c = c' - x w'", 1, [](auto& o, const auto& W) { o.y = o.c, o.y = o.y.transpose() - o.x * W.transpose(); });
  check("y = y + x w' + y", 1, [](auto& o, const auto& W) { o.y = o.c, o.y = o.y + o.x * W.transpose() + o.y; });
  check("y = x w' + relu(y)", 1, [](auto& o, const auto& W) { o.y = o.c, o.y = o.x * W.transpose() + relu(o.y); });
  check("y = gelu(c) - relu(y + b)", 0,
        [](auto& o, const auto&) { o.y = o.c, o.y = gelu(o.c) - relu(o.y.rowwise() + o.b.transpose()); });
  check("y += y + x w'", 1, [](auto& o, const auto& W) { o.y = o.c, o.y += o.y + o.x * W.transpose(); });
  const NF4Matrix wide(MatrixXf::Random(3, 32));
  MatrixXf x = MatrixXf::Random(5, 32);
  auto d = DeviceMatrix<float>::fromHost(x);
  d = d * onDevice(wide).transpose();
  const Eigen::MatrixXd exact = x.cast<double>() * MatrixXf(wide).cast<double>().transpose();
  expectClose("shrinking x", d.toHost(), exact, 32 * gammaFloat(40), 1);
}

BOOST_AUTO_TEST_CASE(emptyOperands) {
  const auto thin = onDevice(NF4Matrix(MatrixXf(5, 0)));
  DeviceMatrix<float> y(3, 5);
  y = DeviceMatrix<float>(3, 0) * thin.transpose();
  BOOST_TEST((y.toHost().array() == 0).all(), "a sum of nothing is zero");
  const auto two = DeviceMatrix<float>::fromHost(Eigen::RowVectorXf::Constant(5, 2));
  y = relu((DeviceMatrix<float>(3, 0) * thin.transpose()).rowwise() + two.row(0));
  BOOST_TEST((y.toHost().array() == 2).all());
  y = DeviceMatrix<float>(0, 5) * onDevice(Int8Matrix(MatrixXf::Random(4, 5))).transpose();
  BOOST_TEST(y.rows() == 0);
  BOOST_TEST(y.cols() == 4);
}

BOOST_AUTO_TEST_CASE(aHostActivationTakesOneExplicitLine) {
  const NF4Matrix w(MatrixXf::Random(24, 64));
  const auto d = onDevice(w);
  const MatrixXf x = MatrixXf::Random(6, 64);
  const MatrixXf y = (DeviceMatrix<float>::fromHost(x) * d.transpose()).toHost();
  const Eigen::MatrixXd exact = x.cast<double>() * MatrixXf(w).cast<double>().transpose();
  expectClose("y", y, exact, 64 * gammaFloat(70), 1);
}

BOOST_AUTO_TEST_CASE(matricesMadeOnTheDeviceAreThoseOfTheHost) {
  for (const Index cols : {1, 63, 64, 200}) {
    const MatrixXf dense = MatrixXf::Random(37, cols);
    const auto d = DeviceMatrix<float>::fromHost(dense);
    const Int8Matrix int8(dense), found8 = gpu::Int8Matrix(d).toHost();
    BOOST_TEST((found8.codes() == int8.codes()));
    BOOST_TEST((found8.rowAbsmax() == int8.rowAbsmax()));
    for (const Statistics statistics : {Statistics::kPlain, Statistics::kNested}) {
      const NF4Matrix host(dense, 64, statistics), found = gpu::NF4Matrix(d, 64, statistics).toHost();
      BOOST_TEST((found.packed() == host.packed()));
      BOOST_TEST((MatrixXf(found) - MatrixXf(host)).norm() <= 1e-6f * MatrixXf(host).norm());
      BOOST_TEST(found.state().toPackedJson().size() > 0);
      const NF4Matrix back = onDevice(host).toHost();
      BOOST_TEST((back.packed() == host.packed()));
      BOOST_TEST(back.state().toPackedJson() == host.state().toPackedJson());
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()
