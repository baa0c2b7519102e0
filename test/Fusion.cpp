// SPDX-License-Identifier: MPL-2.0
// What joins a product's kernel, what does not, and that both are right.
#define EIGEN_RUNTIME_NO_MALLOC  // asked for by temporariesAreAbsentWithNoalias
#define BOOST_TEST_MODULE Fusion
#include <boost/test/unit_test.hpp>

#include "support/Expressions.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::Index;
using Eigen::MatrixXf;

namespace {

const NF4Matrix& weights() {
  static const NF4Matrix w(MatrixXf::Random(34, 70), 32, Statistics::kNested);
  return w;
}

/** One kernel per product, no Eigen temporary. */
template <typename Statement>
void fused(const char* what, const Statement& statement, int kernels = 1) {
  expectAgrees<float, Eigen::ColMajor>(what, weights(), 9, kernels, 3, statement);
  auto o = Operands<float, Eigen::ColMajor>::random(9, 34, 70);
  statement(o, weights());  // kernels keep their scratch memory
  Eigen::internal::set_is_malloc_allowed(false);
  statement(o, weights());
  Eigen::internal::set_is_malloc_allowed(true);
}

/** Right all the same, by way of Eigen's own temporaries. */
template <typename Statement>
void correct(const char* what, const Statement& statement, int kernels = 1) {
  expectAgrees<float, Eigen::ColMajor>(what, weights(), 9, kernels, 3, statement);
}

}  // namespace

#define STATEMENT(text) \
#text, [](auto& o, const auto& W) { \
  auto P = o.x * W.transpose();                            \
  auto Q = o.g * W;                                        \
  (void)P, (void)Q;                                        \
  text;                                                    \
}

BOOST_AUTO_TEST_CASE(temporariesAreAbsentWithNoalias) {
  fused(STATEMENT(o.y.noalias() = P));
  fused(STATEMENT(o.y.noalias() += P));
  fused(STATEMENT(o.y.noalias() -= P));
  fused(STATEMENT(o.z.noalias() = Q));
  fused(STATEMENT(o.z.noalias() += o.s * Q));
  fused(STATEMENT(o.y.noalias() = o.s * P));
  fused(STATEMENT(o.y.noalias() = P * o.s));
  fused(STATEMENT(o.y.noalias() = P / o.s));
  fused(STATEMENT(o.y.noalias() -= -P));
  fused(STATEMENT(o.y.noalias() = o.s * (o.s * P)));
}

BOOST_AUTO_TEST_CASE(bias) {
  fused(STATEMENT(o.y.noalias() = P.rowwise() + o.b.transpose()));
  fused(STATEMENT(o.y.noalias() += (o.s * P).rowwise() + o.b.transpose()));
  fused(STATEMENT(o.y.noalias() -= P.rowwise() + o.b.transpose()));
  fused(STATEMENT(o.y.noalias() = P + o.b.transpose().replicate(9, 1)));
  fused(STATEMENT(o.y.transpose().noalias() = (W * o.x.transpose()).colwise() + o.b));
  fused(STATEMENT(o.z.noalias() = Q.rowwise() + o.bk.transpose()));
  fused(STATEMENT(o.y.noalias() = P.rowwise() + o.c.row(3)));  // a bias with a stride
  fused(STATEMENT(o.y.row(1).transpose().noalias() = W * o.x.row(2).transpose() + o.b));
  fused(STATEMENT(o.y.row(1).noalias() = o.x.row(2) * W.transpose() + o.b.transpose()));
  correct(STATEMENT(o.y.noalias() = P.rowwise() + (o.b + o.b).transpose()));
  correct(STATEMENT(o.y.noalias() = P.colwise() + o.c.col(0)));
}

BOOST_AUTO_TEST_CASE(activations) {
  fused(STATEMENT(o.y.noalias() = relu(P)));
  fused(STATEMENT(o.y.noalias() = gelu(o.s * P)));
  fused(STATEMENT(o.y.noalias() += silu(P.rowwise() + o.b.transpose())));
  fused(STATEMENT(o.y.noalias() -= EigenQ::tanh(P)));
  fused(STATEMENT(o.y.noalias() = P.cwiseMax(0)));
  fused(STATEMENT(o.y.noalias() = P.cwiseMax(-o.s).cwiseMin(o.s)));
  fused(STATEMENT(o.y.noalias() = gelu(P).cwiseMin(o.s)));
  fused(STATEMENT(o.y.noalias() -= P.cwiseMin(o.s)));
  fused(STATEMENT(o.y.row(1).transpose().noalias() = relu(W * o.x.row(2).transpose() + o.b)));
  correct(STATEMENT(o.y.noalias() = P.cwiseMin(o.s).cwiseMax(-o.s)));
  correct(STATEMENT(o.y.noalias() = o.s * relu(P)));
  correct(STATEMENT(o.y.noalias() = relu(P + o.c)));
  correct(STATEMENT(o.y.noalias() = relu(P).rowwise() + o.b.transpose()));
}

BOOST_AUTO_TEST_CASE(furtherTerms) {
  fused(STATEMENT(o.y.noalias() = o.c + P));
  fused(STATEMENT(o.y.noalias() = P + o.c));
  fused(STATEMENT(o.y.noalias() = o.c - P));
  fused(STATEMENT(o.y.noalias() = P - o.c));
  fused(STATEMENT(o.y.noalias() += P - o.c));
  fused(STATEMENT(o.y.noalias() -= o.c + o.s * P));
  fused(STATEMENT(o.y.noalias() -= o.c - relu(P)));
  fused(STATEMENT(o.y.noalias() = gelu(P.rowwise() + o.b.transpose()) + o.c));
  fused(STATEMENT(o.y.noalias() = o.c + P + o.c));
  fused(STATEMENT(o.y.noalias() = o.c.cwiseProduct(o.c) - P));
  fused(STATEMENT(o.y.noalias() -= o.c.cwiseProduct(o.c) - P));
  fused(STATEMENT(o.y.noalias() = 2 * o.c + P));
  fused(STATEMENT(o.y.noalias() = P.rowwise() + o.b.transpose() + o.c));
  fused(STATEMENT(o.y.noalias() = P + o.s * P), 2);
  fused(STATEMENT(o.y.noalias() -= P - 2 * P), 2);
  fused(STATEMENT(o.y.noalias() = relu(P) - o.c - silu(P)), 2);
  fused(STATEMENT(o.y.row(1).noalias() = o.x.row(2) * W.transpose() - o.c.row(1)));
}

// Wherever it stands: it is read before anything is written to it.
BOOST_AUTO_TEST_CASE(anyTermMayBeTheResultItself) {
  fused(STATEMENT(o.y.noalias() = P + o.y));
  fused(STATEMENT(o.y.noalias() = P + o.y + o.c));
  fused(STATEMENT(o.y.noalias() = o.c - P - o.y));
  fused(STATEMENT(o.y.noalias() = o.y - P - o.c));
  fused(STATEMENT(o.y.noalias() = o.c - (P - o.y)));
  fused(STATEMENT(o.y.noalias() = P - o.s * o.y + o.c));
  fused(STATEMENT(o.y.noalias() = relu(P.rowwise() + o.b.transpose()) + o.y + o.c));
  fused(STATEMENT(o.y.noalias() = P + (relu(P) - o.y)), 2);
  fused(STATEMENT(o.y.noalias() = (P + o.c) - (relu(P) + o.y)), 2);
  fused(STATEMENT(o.y.noalias() = (P - o.y) - (relu(P) - o.s * o.y)), 2);
  fused(STATEMENT(o.y.noalias() = o.s * P + o.y - relu(P) + P), 3);
  fused(STATEMENT(o.y.noalias() += P + o.y + o.c));
  fused(STATEMENT(o.y.noalias() -= o.c - (P + o.y)));
}

BOOST_AUTO_TEST_CASE(lora) {
  correct(STATEMENT(o.y.noalias() = P + (o.x * o.ca) * o.cb));
  correct(STATEMENT(o.y.noalias() = (o.x * o.ca) * o.cb + P));
  correct(STATEMENT(o.y.noalias() += P + o.s * ((o.x * o.ca) * o.cb)));
  correct(STATEMENT(o.y = P + (o.x * o.ca) * o.cb));
}

BOOST_AUTO_TEST_CASE(whatIsNotFusedIsRight) {
  correct(STATEMENT(o.y = P.cwiseProduct(P)), 2);
  correct(STATEMENT(o.y = P.array().square().matrix() + o.c));
  correct(STATEMENT(o.y = P.unaryExpr([](auto v) { return v * v; })));
  correct(STATEMENT(o.y.transpose() = P.transpose()));
  correct(STATEMENT(o.y.topRows(2) = P.topRows(2)));
  correct(STATEMENT(o.y.setConstant(P.sum() / 64)));
  correct(STATEMENT(o.y = (P.rowwise() + o.b.transpose()) * o.s));
  correct(STATEMENT(o.y.row(0) = P.colwise().sum() / 8));
  correct(STATEMENT(o.y = P * o.cb.transpose() * o.cb));
}
