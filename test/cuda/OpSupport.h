// SPDX-License-Identifier: MPL-2.0
// Ops of the device against those of the host tape, which runs them in double on the very same inputs.
#ifndef EIGENQ_TEST_CUDA_OPSUPPORT_H
#define EIGENQ_TEST_CUDA_OPSUPPORT_H

#include <unsupported/eigen_q/Autodiff>

#include <eigen_q/src/EigenViews.h>
#include <eigen_q/src/ScalarConvert.h>
#include <eigen_q/src/gpu/OpKernels.h>

#include <boost/test/unit_test.hpp>

#include <cmath>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

#include "Device.h"
#include "Upload.h"
#include "autodiff/Support.h"
#include "support/Bounds.h"

namespace EigenQ {
namespace test {

using Eigen::MatrixXd;
using internal::ConstDenseView;
using internal::DenseView;
using OpScalars = std::tuple<float, Eigen::half, Eigen::bfloat16>;

/** Where a matrix lies in its memory. */
struct Place {
  Index gap;    // elements between columns
  Index shift;  // elements before the first
};
/** Without gaps; in aligned columns; misaligned in both ways. */
constexpr Place kPlaces[] = {{0, 0}, {8, 0}, {3, 1}};

struct Shape {
  Index rows, cols;
};
inline std::ostream& operator<<(std::ostream& out, const Shape& s) { return out << s.rows << "x" << s.cols; }
/** Empty, single, odd, around a warp and a block, columns longer than a block has threads. */
constexpr Shape kShapes[] = {{0, 3},   {3, 0},    {1, 1},    {1, 40},  {7, 3},    {8, 300},
                             {33, 65}, {255, 31}, {256, 33}, {300, 5}, {2049, 2}, {5000, 3}};

/** A column-major matrix on the device, in the middle of noise. */
template <typename Scalar>
class Mat {
 public:
  using Matrix = Eigen::MatrixX<Scalar>;

  /** Entries are noise. */
  Mat(Index rows, Index cols, Place place = {0, 0})
      : m_rows(rows), m_cols(cols), m_place(place), m_memory(memoryOf(nullptr)) {}
  explicit Mat(const Matrix& m, Place place = {0, 0})
      : m_rows(m.rows()), m_cols(m.cols()), m_place(place), m_memory(memoryOf(&m)) {}

  ConstDenseView in() {
    const DenseView v = out();
    return {v.data, v.scalar, v.rows, v.cols, v.rowStride, v.colStride};
  }
  DenseView out() { return {data(), internal::ScalarTypeOf<Scalar>::value, m_rows, m_cols, 1, stride()}; }
  Scalar* data() { return reinterpret_cast<Scalar*>(m_memory.data()) + m_place.shift; }

  /** Throws where anything beside the entries has changed. */
  Matrix toHost(gpu::Context& context) const {
    const std::vector<Storage> found = m_memory.toHost(context);
    Matrix m(m_rows, m_cols);
    std::vector<Storage> rest = found;
    for (Index j = 0; j < m_cols; ++j)
      for (Index i = 0; i < m_rows; ++i) {
        m(i, j) = scalarOf(found[position(i, j)]);
        rest[position(i, j)] = kNoise;
      }
    for (const Storage& s : rest)
      if (bitsOf(s) != bitsOf(kNoise)) throw std::runtime_error("written between the columns");
    return m;
  }

 private:
  using Storage = typename internal::ScalarTraits<internal::ScalarTypeOf<Scalar>::value>::Storage;
  static constexpr Storage kNoise = Storage(77);

  static Scalar scalarOf(Storage s) {
    Scalar v;
    std::memcpy(static_cast<void*>(&v), &s, sizeof v);
    return v;
  }
  static std::uint32_t bitsOf(Storage s) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &s, sizeof s);
    return bits;
  }
  Index stride() const { return m_rows + m_place.gap; }
  std::size_t position(Index i, Index j) const { return static_cast<std::size_t>(m_place.shift + i + j * stride()); }
  std::vector<Storage> memoryOf(const Matrix* m) const {
    std::vector<Storage> all(static_cast<std::size_t>(m_place.shift + m_cols * stride()), kNoise);
    for (Index j = 0; m && j < m_cols; ++j)
      for (Index i = 0; i < m_rows; ++i) std::memcpy(&all[position(i, j)], &(*m)(i, j), sizeof(Storage));
    return all;
  }

  Index m_rows, m_cols;
  Place m_place;
  DeviceArray<Storage> m_memory;
};

/** Integers on the device. */
class Ints : public DeviceArray<std::int32_t> {
 public:
  explicit Ints(const Eigen::VectorXi& v) : DeviceArray(std::vector<std::int32_t>(v.data(), v.data() + v.size())) {}
};

/** Entries in [-2, 2) that are exact in \a Scalar. */
template <typename Scalar>
Eigen::MatrixX<Scalar> sample(Index rows, Index cols, std::uint64_t seed) {
  return (2 * randomMatrix<double>(rows, cols, seed)).template cast<Scalar>();
}
template <typename Derived>
MatrixXd inDouble(const Eigen::MatrixBase<Derived>& m) {
  return m.template cast<double>();
}

/** What the host tape makes of an op: its value, and the gradients of its inputs for a given dy. */
struct HostRun {
  MatrixXd y;
  std::vector<MatrixXd> grads;
};
inline HostRun hostRun(const std::function<ad::Var<double>(ad::Tape<double>&, const Vars&)>& op,
                       const std::vector<MatrixXd>& inputs, const MatrixXd& dy) {
  ad::Tape<double> tape;
  Vars vars;
  for (const MatrixXd& x : inputs) vars.push_back(tape.variable(x));
  const ad::Var<double> y = op(tape, vars);
  tape.backward(y, dy);
  HostRun run;
  run.y = y.value();
  for (const auto& v : vars) run.grads.push_back(v.grad());
  return run;
}

/** Entry by entry: |found - expected| ≤ bound, and the rounding of what lies within that bound to Scalar. */
template <typename Scalar>
void expectWithin(const Eigen::MatrixX<Scalar>& found, const MatrixXd& expected, const MatrixXd& bound,
                  const std::string& what) {
  BOOST_TEST_REQUIRE(found.rows() == expected.rows(), what);
  BOOST_TEST_REQUIRE(found.cols() == expected.cols(), what);
  Index wrong = 0, firstRow = -1, firstCol = -1;
  for (Index j = found.cols(); j-- > 0;)
    for (Index i = found.rows(); i-- > 0;) {
      const double a = static_cast<double>(found(i, j)), b = expected(i, j);
      const double most = bound(i, j) + unitRoundoff<Scalar>() * (std::abs(b) + bound(i, j)) + smallestError<Scalar>();
      if (std::abs(a - b) <= most) continue;
      ++wrong, firstRow = i, firstCol = j;
    }
  if (wrong > 0)
    BOOST_ERROR(what << ": " << wrong << " of " << found.size() << " entries, the first at (" << firstRow << ", "
                     << firstCol << "): found " << static_cast<double>(found(firstRow, firstCol)) << ", expected "
                     << expected(firstRow, firstCol) << ", bound " << bound(firstRow, firstCol));
}

/** Checks a target that `run(view, accumulate)` writes: assigned twice with the same bits, then added to what is there.
 */
template <typename Scalar>
void expectTarget(const std::function<void(const DenseView&, bool)>& run, const MatrixXd& expected,
                  const MatrixXd& bound, Place place, const std::string& what, gpu::Context& context) {
  using Matrix = Eigen::MatrixX<Scalar>;
  Mat<Scalar> first(expected.rows(), expected.cols(), place), again(expected.rows(), expected.cols(), place);
  run(first.out(), false);
  run(again.out(), false);
  const Matrix found = first.toHost(context);
  expectWithin<Scalar>(found, expected, bound, what);
  BOOST_TEST(sameBits<Scalar>(found, again.toHost(context)), what << ": two runs differ");

  const Matrix before = sample<Scalar>(expected.rows(), expected.cols(), 99);
  Mat<Scalar> sum(before, place);
  run(sum.out(), true);
  const MatrixXd total = inDouble(before) + expected;
  // The sum is rounded once in float and once to Scalar.
  const MatrixXd slack = bound + unitRoundoff<float>() * (total.cwiseAbs() + bound);
  expectWithin<Scalar>(sum.toHost(context), total, slack, what + ", accumulated");
}

/** Roundings that reach a term of a sum over \a n entries of a column: one thread's part of it, then the tree. */
inline double gammaColumn(Index n) { return gammaFloat(n / 128 + 64); }

inline std::string name(const char* op, Index rows, Index cols, Place place) {
  return std::string(op) + " " + std::to_string(rows) + "x" + std::to_string(cols) + ", gap " +
         std::to_string(place.gap) + ", shift " + std::to_string(place.shift);
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_OPSUPPORT_H
