// SPDX-License-Identifier: MPL-2.0
// Tile layouts, 4-bit products by their plain functions and rows of quantised tables, on the device against the host.
#define BOOST_TEST_MODULE cuda_ParityTiles
#include "Parity.h"

#include <boost/mpl/list.hpp>

#include <array>

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using Scalars = boost::mpl::list<float, Eigen::half, Eigen::bfloat16>;
constexpr TileOrder kOrders[] = {TileOrder::kRow, TileOrder::kCol, TileOrder::kCol32, TileOrder::kColTuring,
                                 TileOrder::kColAmpere};

template <typename Scalar>
RowMajorMatrix<Scalar> counting(Index rows, Index cols) {
  return RowMajorMatrix<Scalar>::NullaryExpr(
      rows, cols, [cols](Index i, Index j) { return static_cast<Scalar>((i * cols + j) % 127 + 1); });
}

template <typename Scalar>
void everyOrder() {
  for (const auto& [rows, cols] : {std::array<Index, 2>{1, 1}, {7, 31}, {8, 32}, {33, 65}, {40, 70}, {0, 5}, {5, 0}}) {
    const RowMajorMatrix<Scalar> x = counting<Scalar>(rows, cols);
    const auto d = gpu::DeviceMatrix<Scalar, Eigen::RowMajor>::fromHost(x);
    for (const TileOrder order : kOrders) {
      const std::string what = shapeOf(rows, cols) + ", order " + std::to_string(static_cast<int>(order));
      const gpu::TiledBuffer<Scalar> tiled = gpu::toTiles(d, order);
      expectSame(what, tiled.toHost().buffer.template cast<int>(), toTiles(x, order).buffer.template cast<int>());
      expectSame(what + ", and back", gpu::fromTiles(tiled).toHost().template cast<int>(), x.template cast<int>());
      const auto uploaded = gpu::TiledBuffer<Scalar>::fromHost(toTiles(x, order));
      expectSame(what + ", the host's", gpu::fromTiles(uploaded).toHost().template cast<int>(), x.template cast<int>());
      expectSame(what + ", transposed", gpu::toTiles(d.transpose(), order).toHost().buffer.template cast<int>(),
                 toTiles(x.transpose(), order).buffer.template cast<int>());
    }
  }
}

/** Of decoded weights, W n×k, in float sums of any order: γ(k + 4)·Σ|a||w|, and where products go by way of weights of
 * Scalar on tensor cores, their rounding and truncated sums. */
template <typename Scalar>
Eigen::ArrayXXd productSlack(const ColMatrix<Scalar>& a, const Eigen::MatrixXf& w) {
  const double weights = std::is_same<Scalar, float>::value ? 0 : unitRoundoff<Scalar>();
  const double sums = 4 * gammaFloat(a.cols() + 4);
  return (sums + weights) * (a.template cast<double>().cwiseAbs() * w.cast<double>().cwiseAbs().transpose()).array();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(parity, *needsDevice())

BOOST_AUTO_TEST_CASE(tilesOfCodes) { everyOrder<std::int8_t>(); }
BOOST_AUTO_TEST_CASE(tilesOfSums) { everyOrder<std::int32_t>(); }

BOOST_AUTO_TEST_CASE(layoutsAreUndone) {
  const Int8Codes x = counting<std::int8_t>(40, 70);
  for (const TileOrder order : {TileOrder::kColTuring, TileOrder::kColAmpere, TileOrder::kCol32}) {
    const TiledBuffer<std::int8_t> tiled = toTiles(x, order);
    const auto [rows, cols] = tileBufferShape(order, 40, 70);
    const Int8Codes buffer = Eigen::Map<const Int8Codes>(tiled.buffer.data(), rows, cols);
    const auto d = gpu::DeviceCodes::fromHost(buffer);
    const std::string what = "order " + std::to_string(static_cast<int>(order));
    expectSame(what, gpu::undoLayout(d, tileIndices(order), 40, 70).toHost().cast<int>(),
               undoLayout(buffer, tileIndices(order), 40, 70).cast<int>());
    expectSame(what + ", padded", gpu::undoLayout(d, tileIndices(order)).toHost().cast<int>(),
               undoLayout(buffer, tileIndices(order)).cast<int>());
    BOOST_CHECK_THROW(gpu::undoLayout(d, tileIndices(order), rows + 1, 70), FormatError);
  }
  gpu::TiledBuffer<std::int8_t> damaged = gpu::toTiles(gpu::DeviceCodes::fromHost(x), TileOrder::kCol32);
  damaged.rows = 41;
  BOOST_CHECK_THROW(gpu::fromTiles(damaged), FormatError);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(fourBitProducts, Scalar, Scalars) {
  int layout = 0;
  for (const auto& [m, n, k] : {std::array<Index, 3>{1, 7, 33}, {5, 64, 128}, {40, 33, 66}, {0, 3, 8}}) {
    const Eigen::MatrixXf values = Eigen::MatrixXf::Random(n, k);
    const NF4Matrix w(values);
    const auto dw = gpu::NF4Matrix::fromHost(w);
    const Eigen::MatrixXf decoded = w.cast<float>();
    const Mirrored<Scalar> a(Eigen::MatrixXf(Eigen::MatrixXf::Random(m, k)).cast<Scalar>(), layout++),
        g(Eigen::MatrixXf(Eigen::MatrixXf::Random(m, n)).cast<Scalar>(), layout++);
    const Eigen::VectorXf bias = Eigen::VectorXf::Random(n);
    const auto dBias = gpu::DeviceMatrix<float>::fromHost(bias);
    const std::string what = std::string(nameOf<Scalar>()) + " " + shapeOf(m, k) + " times " + shapeOf(k, n);
    const auto y = matMul4bit(a.host(), w), yb = matMul4bit(a.host(), w, bias);
    const Eigen::ArrayXXd slack = productSlack<Scalar>(a.host(), decoded);
    expectWithin(what, gpu::matMul4bit(a.device(), dw).toHost(), y, twoRoundings<Scalar>(y, slack));
    expectWithin(what + " + bias", gpu::matmul4bit(a.device(), dw, dBias).toHost(), yb,
                 twoRoundings<Scalar>(yb, slack + 4 * unitRoundoff<float>()));
    const auto dx = matMul4bitGradA(g.host(), w);
    expectWithin(what + ", gradient", gpu::matMul4bitGradA(g.device(), dw).toHost(), dx,
                 twoRoundings<Scalar>(dx, productSlack<Scalar>(g.host(), decoded.transpose())));
    BOOST_CHECK_THROW(gpu::matMul4bit(a.device(), dw.transpose()), std::invalid_argument);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(rowsOfTables, Scalar, Scalars) {
  const Eigen::MatrixXf values = Eigen::MatrixXf::Random(11, 45);
  Eigen::VectorXi ids(6);
  ids << 3, 10, 0, 3, 7, 1;
  const Int8Matrix int8(values);
  const FP4Matrix fp4(values, 32, Statistics::kNested);
  const auto deviceInt8 = gpu::Int8Matrix::fromHost(int8);
  const auto deviceFp4 = gpu::FP4Matrix::fromHost(fp4);
  expectSame("int8", gpu::embedding<Scalar>(deviceInt8, ids).toHost(), embedding<Scalar>(int8, ids));
  expectSame("fp4, nested", gpu::embedding<Scalar>(deviceFp4, ids).toHost(), embedding<Scalar>(fp4, ids));
  expectSame("a window", gpu::embedding<Scalar>(deviceFp4.middleCols(5, 21), ids).toHost(),
             embedding<Scalar>(fp4.middleCols(5, 21), ids));
  BOOST_TEST(gpu::embedding<Scalar>(deviceInt8, Eigen::VectorXi()).toHost().rows() == 0);
  ids[2] = 11;
  BOOST_CHECK_THROW(gpu::embedding<Scalar>(deviceInt8, ids), std::out_of_range);
  const auto onDevice = gpu::DeviceMatrix<int>::fromHost(ids);
  const RowMajorMatrix<Scalar> unchecked =
      gpu::embedding<Scalar>(deviceInt8, gpu::DeviceView<const int>(onDevice.view())).toHost();
  BOOST_TEST(unchecked.row(2).template cast<float>().array().isNaN().all());
  ids[2] = 0;
  expectSame("beside it", unchecked.row(5), embedding<Scalar>(int8, ids).row(5));
}

BOOST_AUTO_TEST_SUITE_END()
