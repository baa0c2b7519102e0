// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE EigenViews
#include <boost/test/unit_test.hpp>

#include <type_traits>

#include <Eigen/Core>

#include <eigen_q/src/EigenViews.h>
#include <eigen_q/src/ScalarConvert.h>

using namespace EigenQ;
using Eigen::MatrixXf;

namespace {

/** Every coefficient through the view. */
template <typename Derived>
bool agrees(const Eigen::DenseBase<Derived>& m) {
  const internal::ConstDenseView view = internal::viewOf(m);
  if (view.rows != m.rows() || view.cols != m.cols()) return false;
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j) {
      const double seen = internal::readScalar(view.data, view.scalar, i * view.rowStride + j * view.colStride);
      const internal::ConstDenseView t = view.transpose();
      if (seen != internal::readScalar(t.data, t.scalar, j * t.rowStride + i * t.colStride)) return false;
      if (seen != static_cast<double>(m.derived().coeff(i, j))) return false;
    }
  }
  return true;
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyKindOfDirectAccess) {
  const MatrixXf m = MatrixXf::Random(6, 5);
  const Eigen::Matrix<float, 6, 5, Eigen::RowMajor> fixed = m;
  BOOST_TEST(agrees(m));
  BOOST_TEST(agrees(fixed));
  BOOST_TEST(agrees(m.transpose()));
  BOOST_TEST(agrees(m.row(2)));
  BOOST_TEST(agrees(m.col(3)));
  BOOST_TEST(agrees(fixed.row(2).transpose()));
  BOOST_TEST(agrees(m.block(1, 2, 3, 2)));
  BOOST_TEST(agrees(m.block(1, 2, 3, 2).transpose().row(1)));
  BOOST_TEST(agrees(m.diagonal()));
  BOOST_TEST(agrees(m.array()));
  BOOST_TEST(agrees(Eigen::Ref<const MatrixXf>(m.topRows(3))));
  BOOST_TEST(agrees(Eigen::Map<const Eigen::VectorXf, 0, Eigen::InnerStride<3>>(m.data(), 9)));
  BOOST_TEST(agrees(MatrixXf(0, 4)));
}

BOOST_AUTO_TEST_CASE(everyScalar) {
  const MatrixXf m = MatrixXf::Random(4, 3);
  BOOST_TEST(agrees(m.cast<double>().eval()));
  BOOST_TEST(agrees(m.cast<Eigen::half>().eval()));
  BOOST_TEST(agrees(m.cast<Eigen::bfloat16>().eval()));
}

BOOST_AUTO_TEST_CASE(writingThroughATemporaryBlock) {
  MatrixXf m = MatrixXf::Zero(4, 4);
  const internal::DenseView view = internal::mutableViewOf(m.block(1, 1, 2, 2));
  internal::writeScalar(view.data, view.scalar, view.rowStride + view.colStride, 7);
  BOOST_TEST(m(2, 2) == 7);
  BOOST_TEST(m.sum() == 7);
}

BOOST_AUTO_TEST_CASE(whatHasNoMemoryIsEvaluatedAndWhatHasIsNot) {
  using Sum = decltype(MatrixXf() + MatrixXf());
  static_assert(std::is_same<internal::DirectOrPlain<MatrixXf>, const MatrixXf&>::value, "no copy");
  static_assert(std::is_same<internal::DirectOrPlain<Sum>, const MatrixXf>::value, "evaluated once");
  const MatrixXf m = MatrixXf::Random(3, 3);
  internal::DirectOrPlain<MatrixXf> direct(m);
  BOOST_TEST(direct.data() == m.data());
}
