// SPDX-License-Identifier: MPL-2.0
// Statements as users write them, each run twice: on a quantised W, and in double on its dequantised values. The
// results are compared entry by entry.
#ifndef EIGENQ_TEST_SUPPORT_EXPRESSIONS_H
#define EIGENQ_TEST_SUPPORT_EXPRESSIONS_H

#include "Bounds.h"
#include "KernelLog.h"

#include <eigen_q/Core>

#include <boost/test/unit_test.hpp>

namespace EigenQ {
namespace test {

/** Operands around W (n×k) with m tokens. Tokens are rows in x, g, y, z and columns in their transposed twins. */
template <typename Scalar, int Options>
struct Operands {
  using Matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Options>;
  using Vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;

  Matrix x;   // m×k
  Matrix g;   // m×n
  Matrix c;   // m×n
  Matrix ca;  // k×r
  Matrix cb;  // r×n
  Vector b;   // n
  Vector bk;  // k
  Scalar s;
  Matrix y;  // m×n, the result of X·Wᵀ
  Matrix z;  // m×k, the result of G·W

  static Operands random(Eigen::Index m, Eigen::Index n, Eigen::Index k) {
    Operands o;
    o.x = Matrix::Random(m, k);
    o.g = Matrix::Random(m, n);
    o.c = Matrix::Random(m, n);
    o.ca = Matrix::Random(k, 2);
    o.cb = Matrix::Random(2, n);
    o.b = Vector::Random(n);
    o.bk = Vector::Random(k);
    o.s = Scalar(0.75f);
    o.y = Matrix::Random(m, n);
    o.z = Matrix::Random(m, k);
    return o;
  }

  Operands<double, Options> toDouble() const {
    Operands<double, Options> d;
    d.x = x.template cast<double>();
    d.g = g.template cast<double>();
    d.c = c.template cast<double>();
    d.ca = ca.template cast<double>();
    d.cb = cb.template cast<double>();
    d.b = b.template cast<double>();
    d.bk = bk.template cast<double>();
    d.s = static_cast<double>(s);
    d.y = y.template cast<double>();
    d.z = z.template cast<double>();
    return d;
  }
};

/** |found - exact| ≤ \a sumBound, for the roundings in float, and \a stores roundings to the scalar: one of the result,
 * the others of temporaries, which exceed it by at most the 1 that a further operand may have. */
template <typename Found, typename Exact>
void expectClose(const char* what, const Found& found, const Exact& exact, double sumBound, int stores) {
  using Scalar = typename Found::Scalar;
  BOOST_REQUIRE_EQUAL(found.rows(), exact.rows());
  BOOST_REQUIRE_EQUAL(found.cols(), exact.cols());
  int wrong = 0;
  for (Eigen::Index i = 0; i < found.rows(); ++i) {
    for (Eigen::Index j = 0; j < found.cols(); ++j) {
      const double f = static_cast<double>(found(i, j)), e = exact(i, j);
      const double rounded = stores * (std::abs(e) + sumBound) + (stores - 1);
      const double bound = sumBound + unitRoundoff<Scalar>() * rounded + stores * smallestError<Scalar>();
      if (std::abs(f - e) <= bound) continue;
      if (wrong++ == 0) {
        BOOST_ERROR(what << " (" << i << ", " << j << "): expected " << e << " within " << bound << ", found " << f);
      }
    }
  }
  BOOST_TEST_REQUIRE(wrong == 0, what << ": " << wrong << " of " << found.size() << " entries are wrong");
}

/** Runs \a statement(operands, w) on \a w and on its dequantised values. \a kernels: the products that it must run. */
template <typename Scalar, int Options, typename W, typename Statement>
void expectAgrees(const char* what, const W& w, Eigen::Index m, int kernels, int stores, const Statement& statement) {
  using Ops = Operands<Scalar, Options>;
  Ops quantised = Ops::random(m, w.rows(), w.cols());
  auto exact = quantised.toDouble();
  const Eigen::MatrixXd dense = Eigen::MatrixXf(w).template cast<double>();
  {
    const KernelLog log;
    statement(quantised, w);
    BOOST_TEST(log.products() == kernels, what << ": " << log.products() << " kernels instead of " << kernels);
    BOOST_TEST(log.dequantizations() == 0, what << ": dequantises W");
  }
  statement(exact, dense);
  // Every operand is at most 1 in magnitude; a statement chains at most two products and six more terms.
  const Eigen::Index depth = std::max(w.rows(), w.cols()) + 8;
  const double size = static_cast<double>(depth) * std::max(1.0, dense.size() ? dense.cwiseAbs().maxCoeff() : 0.0);
  const double bound = 4 * gammaFloat(depth) * size;
  expectClose(what, quantised.y, exact.y, bound, stores);
  expectClose(what, quantised.z, exact.z, bound, stores);
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_EXPRESSIONS_H
