// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Embedding
#include <boost/test/unit_test.hpp>

#include <boost/mpl/list.hpp>

#include <eigen_q/Core>

#include "support/Bounds.h"
#include "support/KernelLog.h"

using namespace EigenQ;
using Eigen::MatrixXf;
using Eigen::VectorXi;

namespace {

using Formats = boost::mpl::list<Int8Matrix, NF4Matrix, FP4Matrix>;

const VectorXi kIds = (VectorXi(7) << 3, 0, 10, 3, 7, 1, 10).finished();

/** Rows of different sizes, so that one row's absmax is wrong for another. */
MatrixXf table(Index dim) {
  std::srand(7);
  const Eigen::VectorXf scales = Eigen::VectorXf::NullaryExpr(11, [](Index i) { return std::ldexp(1.0f, int(i) - 5); });
  // A product, not a loop over rows: row(1) of an 11×0 matrix of Eigen 3.4 steps from a null pointer.
  return scales.asDiagonal() * MatrixXf::Random(11, dim);
}

template <typename Scalar>
bool sameBits(const RowMajorMatrix<Scalar>& a, const RowMajorMatrix<Scalar>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), sizeof(Scalar) * static_cast<std::size_t>(a.size())) == 0);
}

template <typename Scalar, typename W>
void expectRowsOf(const W& w) {
  const RowMajorMatrix<Scalar> whole = w.template cast<Scalar>(), found = embedding<Scalar>(w, kIds);
  RowMajorMatrix<Scalar> expected(kIds.size(), w.cols());
  for (Index t = 0; t < kIds.size(); ++t) expected.row(t) = whole.row(kIds(t));
  BOOST_TEST(sameBits(found, expected));
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(rowsOfTheDequantizedTable, W, Formats) {
  for (Index dim : {0, 1, 7, 63, 64, 65, 96, 200}) {
    BOOST_TEST_CONTEXT("dim " << dim) {
      const W w(table(dim));
      expectRowsOf<float>(w);
      expectRowsOf<Eigen::half>(w);
      expectRowsOf<Eigen::bfloat16>(w);
      expectRowsOf<double>(w);
    }
  }
}

BOOST_AUTO_TEST_CASE(everyBlockSizeAndNestedStatistics) {
  for (Index blockSize : {32, 128, 4096}) {
    expectRowsOf<float>(NF4Matrix(table(77), blockSize));
    expectRowsOf<float>(FP4Matrix(table(77), blockSize, Statistics::kNested));
  }
}

BOOST_AUTO_TEST_CASE(expressionsOfATable) {
  const Int8Matrix w(table(20));
  const MatrixXf whole = w;
  const VectorXi ids = (VectorXi(3) << 2, 0, 2).finished();
  const RowMajorMatrix<float> columns = embedding(w.transpose(), ids), scaled = embedding(0.5f * w, ids),
                              window = embedding(w.block(3, 4, 5, 6), ids);
  for (Index t = 0; t < 3; ++t) {
    BOOST_TEST((columns.row(t) == whole.col(ids(t)).transpose()));
    BOOST_TEST((scaled.row(t) == 0.5f * whole.row(ids(t))));
    BOOST_TEST((window.row(t) == whole.block(3 + ids(t), 4, 1, 6)));
  }
}

BOOST_AUTO_TEST_CASE(bothFormulasOfInt8AreWithinTheirBound) {
  const Int8Matrix w(table(200));
  const RowMajorMatrix<float> found = embedding(w, kIds);
  for (Index t = 0; t < kIds.size(); ++t) {
    const float scb = w.rowAbsmax()[kIds(t)];
    for (Index j = 0; j < w.cols(); ++j) {
      const float code = w.codes()(kIds(t), j);
      const double exact = double(code) * double(scb) / 127, bound = 2.1 * 0x1p-24 * std::fabs(exact);
      BOOST_TEST(std::fabs(double(found(t, j)) - exact) <= bound);
      BOOST_TEST(std::fabs(double(code * (scb / 127)) - exact) <= bound);  // the original's
    }
  }
}

BOOST_AUTO_TEST_CASE(decodesTheRowsAskedForAndNoOther) {
  const NF4Matrix w(table(70));
  test::KernelLog log;
  embedding(w, kIds);
  BOOST_TEST(log.dequantizations() == kIds.size());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(idsOutsideTheTableAreRefused, W, Formats) {
  const W w(table(5));
  BOOST_TEST(embedding(w, VectorXi()).rows() == 0);
  for (int bad : {-1, 11}) {
    const VectorXi ids = (VectorXi(2) << 4, bad).finished();
    BOOST_CHECK_EXCEPTION(embedding(w, ids), std::out_of_range, [bad](const auto& e) {
      return std::string(e.what()) == "embedding: id 1: expected 0 to 10, found " + std::to_string(bad);
    });
  }
}
