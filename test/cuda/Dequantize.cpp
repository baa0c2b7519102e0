// SPDX-License-Identifier: MPL-2.0
// Every way of dequantising on the device against the host: the same bits where no transcendental function is involved.
#define BOOST_TEST_MODULE DeviceDequantize
#include <boost/test/unit_test.hpp>

#include <src/cuda/dequantize.h>

#include <map>
#include <string>

#include "Device.h"
#include "Mirror.h"
#include "support/Bounds.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXf;
using gpu::internal::Dequantization;
using internal::DenseView;
using internal::Epilogue;
using internal::WeightView;

namespace {

constexpr ScalarType kScalars[] = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16};

struct Window {
  Index row, col, rows, cols;
};

/** Whole matrices, rows that begin inside bytes, words and blocks, aligned slices, single rows and columns. */
std::vector<Window> windowsOf(const WeightView& w) {
  const Index r = w.rows, c = w.cols;
  std::vector<Window> windows = {{0, 0, r, c}, {0, 0, 0, c}, {0, 0, 1, 1}, {r - 1, 0, 1, c}, {0, c - 1, r, 1}};
  if (r > 2 && c > 3) windows.push_back({1, 3, r - 2, c - 3});
  if (r > 2 && c > 16) {
    windows.push_back({1, 8, r - 2, (c - 8) / 8 * 8});
    windows.push_back({1, 8, r - 2, 5});
    windows.push_back({r / 2, 0, r - r / 2, c});
  }
  return windows;
}

struct Counts {
  std::map<std::string, int> runs;
  int refusals = 0, wrong = 0;
};

bool isTranscendental(Activation a) { return a != Activation::kNone && a != Activation::kRelu; }

/** \a expected and \a found agree in every entry: bit for bit, or within the rounding of an activation. */
bool agree(const Frame& expected, const Frame& found, ScalarType scalar, bool exact, std::string& where) {
  const double u = scalar == ScalarType::kFloat  ? unitRoundoff<float>()
                   : scalar == ScalarType::kHalf ? unitRoundoff<Eigen::half>()
                                                 : unitRoundoff<Eigen::bfloat16>();
  for (Index i = 0; i < expected.rows(); ++i) {
    for (Index j = 0; j < expected.cols(); ++j) {
      const double e = expected.at(i, j), f = found.at(i, j);
      // Functions of the two libraries differ by a few float roundings, their results by one of the scalar.
      const double bound = exact ? 0 : 16 * unitRoundoff<float>() * (std::abs(e) + 4) + 2 * u * std::abs(e) + 0x1p-24;
      if ((e == f || std::abs(e - f) <= bound) && (!exact || std::signbit(e) == std::signbit(f))) continue;
      where = "(" + std::to_string(i) + ", " + std::to_string(j) + "): expected " + std::to_string(e) + ", found " +
              std::to_string(f);
      return false;
    }
  }
  return true;
}

/** Runs every row that takes it. \a hostW and \a deviceW are the same window. */
void compare(const std::string& what, const WeightView& hostW, const WeightView& deviceW, bool transposed,
             Layout layout, ScalarType scalar, Epilogue epilogue, gpu::Context& context, Counts& counts) {
  const Index rows = transposed ? hostW.cols : hostW.rows, cols = transposed ? hostW.rows : hostW.cols;
  const Frame start(rows, cols, layout, scalar, 7);
  const Frame bias(1, std::max(rows, cols), Layout::kStrided, scalar, 8);
  const DeviceBytes deviceBias(bias.bytes().data(), bias.bytes().size(), context);
  const bool hasBias = epilogue.biasAxis != internal::BiasAxis::kNone, hasResidual = epilogue.residual.data != nullptr;

  Frame expected = start;
  Frame hostBias = bias;
  epilogue.biasStride = hostBias.view().colStride;
  epilogue.bias = hasBias ? hostBias.view().data : nullptr;
  if (hasResidual) epilogue.residual = constant(expected.view());
  internal::dequantize(hostW, transposed, expected.view(), epilogue);

  for (const auto& row : gpu::internal::deviceDequantizers()) {
    const DeviceBytes deviceY(start.bytes().data(), start.bytes().size(), context);
    const DenseView y = start.viewAt(deviceY.data());
    if (hasBias) epilogue.bias = bias.viewAt(deviceBias.data()).data;
    if (hasResidual) epilogue.residual = constant(y);
    const Dequantization d{deviceW, transposed ? y.transpose() : y, transposed ? epilogue.transpose() : epilogue};
    if (row.refuse(d, context)) {
      ++counts.refusals;
      continue;
    }
    row.run(d, context);
    const Frame found = start.with(deviceY.toHost());
    ++counts.runs[row.name];
    std::string where;
    const bool same = agree(expected, found, scalar, !isTranscendental(epilogue.activation), where);
    const bool inside = found.sameOutside(start);
    if (same && inside) continue;
    if (++counts.wrong <= 20)
      BOOST_ERROR(row.name << ", " << what << ", " << rows << "x" << cols << ", layout " << int(layout) << ", scalar "
                           << int(scalar) << ": " << (same ? "writes outside of its result" : where));
  }
}

Epilogue everything(Activation activation, bool perRow) {
  Epilogue e;
  e.alpha = -1.5f;
  e.biasAxis = perRow ? internal::BiasAxis::kPerRow : internal::BiasAxis::kPerCol;
  e.activation = activation;
  e.lower = -0.25f;
  e.upper = 0.5f;
  e.sign = -1;
  e.residual.data = &e;  // replaced by Y
  e.residualSign = perRow ? 1.0f : -1.0f;
  return e;
}

void sweep(const std::string& what, const WeightView& whole, gpu::Context& context, Counts& counts) {
  for (const bool offsetOnDevice : {false, true}) {
    if (offsetOnDevice && (whole.format == internal::WeightFormat::kInt8 || whole.absmax.plain)) continue;
    const DeviceWeights device(whole, context, offsetOnDevice);
    int round = 0;
    for (const Window& at : windowsOf(whole)) {
      const WeightView hostW = whole.window(at.row, at.col, at.rows, at.cols);
      const WeightView deviceW = device.view().window(at.row, at.col, at.rows, at.cols);
      for (const Layout layout : kLayouts) {
        for (const ScalarType scalar : kScalars) {
          ++round;
          compare(what, hostW, deviceW, round % 2 == 0, layout, scalar, Epilogue(), context, counts);
          if (round % 3 == 0)
            compare(what + " with an epilogue", hostW, deviceW, round % 2 == 0, layout, scalar,
                    everything(static_cast<Activation>(round % 5), round % 4 < 2), context, counts);
        }
      }
    }
  }
}

/** "nf4 67x301 64 nested" */
template <typename Matrix>
std::string nameOf(const Matrix& m) {
  return std::string(Matrix::name()) + " " + std::to_string(m.rows()) + "x" + std::to_string(m.cols()) + " blocks of " +
         std::to_string(m.blockSize()) + (m.state().isNested() ? " nested" : "");
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyRowGivesTheValuesOfTheHost, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const auto fourBit = [&](const auto& m) { sweep(nameOf(m), m.quantizedView().weights, context, counts); };
  for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {67, 301}, {33, 256}, {5, 2056}, {40, 1096}}) {
    const MatrixXf w = MatrixXf::Random(rows, cols);
    fourBit(NF4Matrix(w));
    fourBit(FP4Matrix(w, 32, Statistics::kNested));
    fourBit(NF4Matrix(w, 4096, Statistics::kNested));
    fourBit(FP4Matrix(w, 512));
    sweep("int8 " + std::to_string(rows) + "x" + std::to_string(cols), Int8Matrix(w).quantizedView().weights, context,
          counts);
  }
  for (const auto& entry : counts.runs) BOOST_TEST_MESSAGE(entry.first << ": " << entry.second << " runs");
  BOOST_TEST_MESSAGE(counts.refusals << " refusals");
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["dequantize.rows"] > 200);  // nobody passes by declining
  BOOST_TEST(counts.runs["dequantize.tiles"] > 2000);
}

// More rows of tiles than a grid has, and several segments of many warps.
BOOST_AUTO_TEST_CASE(tallAndLongMatrices, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const auto check = [&](const std::string& what, const WeightView& w, Layout layout) {
    const DeviceWeights device(w, context);
    compare(what, w, device.view(), false, layout, ScalarType::kBFloat16, Epilogue(), context, counts);
  };
  const NF4Matrix tall(MatrixXf::Random(65535 * 32 + 70, 1)), long_(MatrixXf::Random(3, 300000));
  check("tall", tall.quantizedView().weights, Layout::kStrided);
  check("long", long_.quantizedView().weights, Layout::kRowMajor);
  check("long int8", Int8Matrix(MatrixXf::Random(3, 300000)).quantizedView().weights, Layout::kRowMajor);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["dequantize.rows"] == 2);
}

BOOST_AUTO_TEST_CASE(extremeScalesOfInt8, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  MatrixXf w = MatrixXf::Random(6, 64);
  w.row(0) *= 3e38f;
  w.row(1) *= 1e-38f;
  w.row(2) *= 1e-44f;
  w.row(3).setZero();
  const Int8Matrix m(w);
  const DeviceWeights device(m.quantizedView().weights, context);
  for (const ScalarType scalar : kScalars)
    compare("extreme", m.quantizedView().weights, device.view(), false, Layout::kRowMajor, scalar, Epilogue(), context,
            counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["dequantize.rows"] == 3);
}

BOOST_AUTO_TEST_CASE(theTableIsAskedAndTellsItsObserver, *needsDevice()) {
  gpu::Context context;
  const NF4Matrix m(MatrixXf::Random(32, 128));
  const DeviceWeights device(m.quantizedView().weights, context);
  const Frame start(128, 32, Layout::kColMajor, ScalarType::kHalf);
  const DeviceBytes y(start.bytes().data(), start.bytes().size(), context);
  std::string kernel;
  internal::setLoweringObserver(
      [](const internal::LoweringEvent& event, void* name) { *static_cast<std::string*>(name) = event.kernel; },
      &kernel);
  gpu::internal::dequantize(device.view(), true, start.viewAt(y.data()), Epilogue(), context);
  internal::setLoweringObserver(nullptr, nullptr);
  BOOST_TEST(kernel == "dequantize.rows");  // Wᵀ in a column-major matrix lies as W does
  Frame expected = start;
  internal::dequantize(m.quantizedView().weights, true, expected.view(), Epilogue());
  BOOST_TEST((start.with(y.toHost()).bytes() == expected.bytes()));
}
