// SPDX-License-Identifier: MPL-2.0
// The seven quantisation types of MatMul8bit on the device against the host: codes, statistics and products.
#define BOOST_TEST_MODULE cuda_ParityVectorwise
#include "Parity.h"

#include <boost/mpl/list.hpp>

#include <array>

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using Scalars = boost::mpl::list<float, Eigen::half, Eigen::bfloat16>;
constexpr const char* kTypes[] = {"vector",           "row",          "linear", "truncated-vector", "zeropoint",
                                  "vector-zeropoint", "row-zeropoint"};

using Shape = std::array<Index, 2>;
/** Around a tile (32), a strip (2048 columns) and nothing at all. */
constexpr Shape kShapes[] = {{1, 1}, {3, 5}, {32, 33}, {65, 31}, {2, 2049}, {35, 4100}, {0, 4}, {4, 0}};

enum class Special { kNone, kZeros, kTiny, kHuge, kNaN, kInfinity };
constexpr Special kSpecials[] = {Special::kNone, Special::kZeros, Special::kTiny,
                                 Special::kHuge, Special::kNaN,   Special::kInfinity};

/** Normal values; a zero row and a constant column; and in the first row what \a special says. */
template <typename Scalar>
ColMatrix<Scalar> sample(Index rows, Index cols, Special special) {
  Eigen::MatrixXf x = Eigen::MatrixXf::Random(rows, cols);
  if (x.size() > 0) {
    const bool half = std::is_same<Scalar, Eigen::half>::value;
    if (special == Special::kZeros) x.setZero();
    if (special == Special::kTiny) x *= half ? 1e-6f : 1e-39f;
    if (special == Special::kHuge) x *= half ? 6.5e4f : 3.3e38f;
    if (special == Special::kNaN) x(0, cols / 2) = kNaN;
    if (special == Special::kInfinity) x(0, cols - 1) = -kInfinity;
    if (rows > 2) x.row(rows / 2).setZero();
    if (cols > 2) x.col(1).setConstant(x(0, 0));
  }
  return x.cast<Scalar>();
}

void expectSameQuantised(const std::string& what, const gpu::VectorwiseQuantized& onDevice,
                         const VectorwiseQuantized& expected) {
  const VectorwiseQuantized found = onDevice.toHost();
  expectSame(what + ", codes", found.codes.cast<int>(), expected.codes.cast<int>());
  expectSame(what + ", statistics", found.stats, expected.stats);
  expectSame(what + ", zero points", found.zeroPoints, expected.zeroPoints);
  BOOST_TEST((found.type == expected.type && found.axis == expected.axis), what);
}

Int8Codes randomCodes(Index rows, Index cols) {
  return Int8Codes::NullaryExpr(
      rows, cols, [](Index i, Index j) { return static_cast<std::int8_t>((i * 131 + j * 71 + i * j) % 256 - 128); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(parity, *needsDevice())

BOOST_AUTO_TEST_CASE_TEMPLATE(codesAndStatistics, Scalar, Scalars) {
  int layout = 0;
  for (const Shape& shape : kShapes) {
    for (const Special special : kSpecials) {
      const Mirrored<Scalar> x(sample<Scalar>(shape[0], shape[1], special), layout++);
      for (const char* name : kTypes) {
        for (const VectorAxis axis : {VectorAxis::kRows, VectorAxis::kCols}) {
          const VectorwiseType type = vectorwiseType(name);
          const std::string what = std::string(nameOf<Scalar>()) + " " + shapeOf(shape[0], shape[1]) + ", " +
                                   x.layout() + ", special " + std::to_string(static_cast<int>(special)) + ", " + name +
                                   (axis == VectorAxis::kRows ? " by rows" : " by columns");
          const VectorwiseQuantized expected = vectorwiseQuant(x.host(), type, axis);
          const gpu::VectorwiseQuantized found = gpu::vectorwiseQuant(x.device(), type, axis);
          expectSameQuantised(what, found, expected);
          expectSame(what + ", decoded", gpu::vectorwiseDequant<Scalar>(found).toHost(),
                     vectorwiseDequant<Scalar>(expected));
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rowsAndColumnsWithOutliers, Scalar, Scalars) {
  int layout = 0;
  for (const Shape& shape : kShapes) {
    for (const Special special : kSpecials) {
      const Mirrored<Scalar> x(sample<Scalar>(shape[0], shape[1], special), layout++);
      for (const float threshold : {0.0f, 0.9f}) {
        const std::string what = std::string(nameOf<Scalar>()) + " " + shapeOf(shape[0], shape[1]) + ", " + x.layout() +
                                 ", special " + std::to_string(static_cast<int>(special)) + ", threshold " +
                                 std::to_string(threshold);
        const auto found = gpu::int8DoubleQuant(x.device(), threshold);
        const Int8DoubleQuantized expected = int8DoubleQuant(x.host(), threshold);
        expectSame(what + ", row codes", found.rowCodes.toHost().template cast<int>(),
                   expected.rowCodes.template cast<int>());
        expectSame(what + ", column codes", found.colCodes.toHost().template cast<int>(),
                   expected.colCodes.template cast<int>());
        expectSame(what + ", row statistics", found.rowStats.toHost(), expected.rowStats);
        expectSame(what + ", column statistics", found.colStats.toHost(), expected.colStats);
        expectSame(what + ", outlier columns", found.outlierColumns.toHost(), expected.outlierColumns);
        expectSame(what + ", rows alone", gpu::int8VectorwiseQuant(x.device(), threshold).outlierColumns.toHost(),
                   expected.outlierColumns);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(integerProductsAreExact) {
  using Sizes = std::array<Index, 3>;
  for (const auto& [m, n, k] : {Sizes{1, 1, 1},
                                {3, 5, 2},
                                {17, 9, 33},
                                {64, 32, 48},
                                {5, 130, 257},
                                {4, 4, 0},
                                {0, 3, 5},
                                {2, 3, (Index{1} << 17) - 1}}) {
    const Int8Codes a = randomCodes(m, k), b = randomCodes(k, n);
    const auto da = gpu::DeviceCodes::fromHost(a), db = gpu::DeviceCodes::fromHost(b);
    const Int8Codes bt = b.transpose(), at = a.transpose();
    const auto dbt = gpu::DeviceCodes::fromHost(bt), dat = gpu::DeviceCodes::fromHost(at);
    const std::string what = shapeOf(m, k) + " times " + shapeOf(k, n);
    const Int32Matrix expected = igemm(a, b);
    expectSame(what, gpu::igemm(da, db).toHost(), expected);
    expectSame(what + ", B by columns", gpu::igemm(da, dbt.transpose()).toHost(), expected);
    expectSame(what + ", both transposed", gpu::igemm(dat.transpose(), dbt.transpose()).toHost(), expected);
  }
  const gpu::DeviceCodes deep(1, (Index{1} << 17) + 1);
  BOOST_CHECK_THROW(gpu::igemm(deep, deep.transpose()), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(batchesOfIntegerProducts) {
  const Int8Codes a = randomCodes(3 * 7, 13), b = randomCodes(3 * 13, 6);
  const auto da = gpu::DeviceCodes::fromHost(a), db = gpu::DeviceCodes::fromHost(b);
  expectSame("batch of 3", gpu::batchedIgemm(da, db, 3).toHost(), batchedIgemm(a, b, 3));
  BOOST_CHECK_THROW(gpu::batchedIgemm(da, db, 2), FormatError);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(productsOfQuantisedMatrices, Scalar, Scalars) {
  for (const char* name : kTypes) {
    const VectorwiseType type = vectorwiseType(name);
    const Mirrored<Scalar> a(sample<Scalar>(9, 37, Special::kNone), 1), b(sample<Scalar>(37, 14, Special::kNone), 0);
    const auto qa = gpu::vectorwiseQuant(a.device(), type),
               qb = gpu::vectorwiseQuant(b.device(), type, VectorAxis::kCols);
    const VectorwiseQuantized ha = qa.toHost(), hb = qb.toHost();
    const gpu::DeviceSums sums = gpu::igemm(qa.codes, qb.codes);
    expectSame(name, gpu::vectorwiseMmDequant<Scalar>(sums, qa, qb).toHost(),
               vectorwiseMmDequant<Scalar>(igemm(ha.codes, hb.codes), ha, hb));
    BOOST_CHECK_THROW(gpu::vectorwiseMmDequant(sums, qa, qa), FormatError);
    BOOST_CHECK_THROW(gpu::vectorwiseMmDequant(sums, qb, qb), FormatError);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(forwardAndBackward, Scalar, Scalars) {
  struct Case {
    Index m, n, k, batch;
    Special special;
  };
  int layout = 0;
  for (const Case& c : {Case{1, 1, 1, 1, Special::kNone},
                        {7, 5, 33, 1, Special::kNone},
                        {13, 70, 129, 1, Special::kHuge},
                        {6, 4, 10, 3, Special::kNone},
                        {5, 8, 30, 2, Special::kNaN},
                        {4, 3, 12, 1, Special::kInfinity},
                        {0, 3, 5, 1, Special::kNone},
                        {3, 4, 0, 1, Special::kNone},
                        {3, 0, 4, 1, Special::kNone}}) {
    const Mirrored<Scalar> a(sample<Scalar>(c.batch * c.m, c.k, c.special), layout++),
        b(sample<Scalar>(c.batch * c.k, c.n, Special::kNone), layout++),
        g(sample<Scalar>(c.batch * c.m, c.n, Special::kNone), layout++);
    for (const char* name : kTypes) {
      MatMul8bitOptions options;
      options.type = vectorwiseType(name);
      options.batch = c.batch;
      const std::string what = std::string(nameOf<Scalar>()) + " " + shapeOf(c.m, c.k) + " times " + shapeOf(c.k, c.n) +
                               ", batch of " + std::to_string(c.batch) + ", " + name;
      expectSame(what, gpu::matMul8bit(a.device(), b.device(), options).toHost(),
                 matMul8bit(a.host(), b.host(), options));
      const auto found = gpu::matMul8bitBackward(a.device(), b.device(), g.device(), options);
      const auto expected = matMul8bitBackward(a.host(), b.host(), g.host(), options);
      expectSame(what + ", gradient of A", found.a.toHost(), expected.a);
      expectSame(what + ", gradient of B", found.b.toHost(), expected.b);
    }
  }
}

// Sums in double whose order may differ: by less than a rounding of the result, which each side makes once.
BOOST_AUTO_TEST_CASE_TEMPLATE(otherPrecisionsDoNotQuantise, Scalar, Scalars) {
  const Index m = 6, n = 9, k = 50, batch = 2;
  const Mirrored<Scalar> a(sample<Scalar>(batch * m, k, Special::kNone), 0),
      b(sample<Scalar>(batch * k, n, Special::kNone), 1), g(sample<Scalar>(batch * m, n, Special::kNone), 2);
  MatMul8bitOptions options;
  options.batch = batch;
  options.precision = {16, 32, 16};
  const auto compare = [](const char* what, const auto& found, const auto& expected) {
    const Eigen::ArrayXXd slack = Eigen::ArrayXXd::Constant(expected.rows(), expected.cols(), 200 * 0x1p-53 * 50);
    expectWithin(what, found.toHost(), expected, twoRoundings<Scalar>(expected, slack));
  };
  compare("forward", gpu::matMul8bit(a.device(), b.device(), options), matMul8bit(a.host(), b.host(), options));
  const auto found = gpu::matMul8bitBackward(a.device(), b.device(), g.device(), options);
  const auto expected = matMul8bitBackward(a.host(), b.host(), g.host(), options);
  compare("gradient of A", found.a, expected.a);
  compare("gradient of B", found.b, expected.b);
  options.batch = 5;
  BOOST_CHECK_THROW(gpu::matMul8bit(a.device(), b.device(), options), FormatError);
}

BOOST_AUTO_TEST_SUITE_END()
