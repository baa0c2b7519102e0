// SPDX-License-Identifier: MPL-2.0
// Products with 4-bit weights on the device, against the host's reference: every kernel, at awkward sizes,
// windows, strides, statistics and epilogues; and how accurate their sums are before Y is rounded.
#define BOOST_TEST_MODULE DeviceFourBitProducts
#include <boost/test/unit_test.hpp>

#include <eigen_q/src/gpu/Graph.h>
#include <src/cuda/fourbit_decode.h>
#include <src/cuda/fourbit_rows.h>
#include <src/cuda/wgmma_decode.h>

#include <algorithm>
#include <map>
#include <string>

#include "Device.h"
#include "Mirror.h"
#include "support/Bounds.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using internal::Epilogue;
using internal::QuantizedProduct;
using internal::WeightView;

namespace {

constexpr ScalarType kScalars[] = {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16};

double roundoffOf(ScalarType scalar) {
  return scalar == ScalarType::kFloat  ? unitRoundoff<float>()
         : scalar == ScalarType::kHalf ? unitRoundoff<Eigen::half>()
                                       : unitRoundoff<Eigen::bfloat16>();
}

/** A kernel, and how far its sums may be from the exact ones, in units of Σ|x||w|. */
struct Row {
  gpu::internal::DeviceLowering<QuantizedProduct> lowering;
  double (*error)(ScalarType scalar, Index depth);
};

/** One rounding of the table and one of its scale; tensor cores truncate what they add, which costs up to 2⁻²² a term.
 */
double errorOfMma(ScalarType scalar, Index depth) {
  return roundoffOf(scalar) + static_cast<double>(depth + 64) * 0x1p-22;
}

/** Weights are rounded themselves where absmax multiplies them, after their levels in half. */
double errorOfWgmma(ScalarType scalar, Index depth) {
  return errorOfMma(scalar, depth) + roundoffOf(ScalarType::kHalf);
}

double errorOfSimt(ScalarType, Index depth) { return gammaFloat(depth + 32); }

const Row kRows[] = {
    {{"mma.decode", gpu::internal::refuseFourBitDecodeMma, gpu::internal::runFourBitDecodeMma}, errorOfMma},
    {{"simt.decode", gpu::internal::refuseFourBitDecodeSimt, gpu::internal::runFourBitDecodeSimt}, errorOfSimt},
    {{"stream.decode", gpu::internal::refuseFourBitDecodeStream, gpu::internal::runFourBitDecodeStream}, errorOfMma},
    {{"wgmma.decode", gpu::internal::refuseFourBitWgmma, gpu::internal::runFourBitWgmma}, errorOfWgmma},
    {{"rows.decode", gpu::internal::refuseFourBitRows, gpu::internal::runFourBitRows}, errorOfMma},
};

/** Whether there are rows.decode, stream.decode and wgmma.decode at all: in this build, for this device. */
bool hasSm90(const gpu::Context& context) {
  return EIGENQ_TEST_HAVE_SM90A && context.properties().major == 9 && context.properties().minor == 0;
}

struct Counts {
  std::map<std::string, int> runs, refusals;
  int wrong = 0;
};

/** One product: operands on the host and on the device. */
class Case {
 public:
  Case(const WeightView& hostW, const WeightView& deviceW, Index m, Layout xLayout, Layout yLayout, ScalarType scalar,
       gpu::Context& context)
      : m_context(context),
        m_scalar(scalar),
        m_x(m, hostW.cols, xLayout, scalar, 11),
        m_start(m, hostW.rows, yLayout, scalar, 12),
        m_bias(1, std::max(m, hostW.rows), Layout::kStrided, scalar, 13),
        m_deviceX(m_x.bytes().data(), m_x.bytes().size(), context),
        m_deviceBias(m_bias.bytes().data(), m_bias.bytes().size(), context),
        m_hostW(hostW),
        m_deviceW(deviceW) {
    m_magnitude = MatrixXd::Zero(m, hostW.rows);
    for (Index j = 0; j < hostW.rows; ++j) {
      for (Index k = 0; k < hostW.cols; ++k) {
        const double w = std::abs(static_cast<double>(hostW.coeff(j, k)));
        for (Index i = 0; i < m; ++i) m_magnitude(i, j) += std::abs(m_x.at(i, k)) * w;
      }
    }
  }

  Frame& x() { return m_x; }

  /** Runs every kernel that takes it, twice. There is always memory for a bias: the axis alone says whether it counts.
   * \a epilogue  the residual says only whether there is one */
  void check(const std::string& what, Epilogue epilogue, Counts& counts) {
    const bool hasResidual = epilogue.residual.data != nullptr;
    Frame expected = m_start;
    QuantizedProduct p;
    p.x = constant(m_x.view());
    p.w = m_hostW;
    p.y = expected.view();
    epilogue.biasStride = m_bias.view().colStride;
    epilogue.bias = m_bias.view().data;
    if (hasResidual) epilogue.residual = constant(p.y);
    p.epilogue = epilogue;
    const internal::Lowering* const reference = internal::hostLowerings().end() - 1;
    BOOST_REQUIRE_EQUAL(std::string(reference->name), "reference");
    if (m_start.rows() > 0 && m_start.cols() > 0) reference->run(p);

    p.x = constant(m_x.viewAt(m_deviceX.data()));
    p.w = m_deviceW;
    for (const Row& row : kRows) {
      const DeviceBytes first(m_start.bytes().data(), m_start.bytes().size(), m_context);
      const DeviceBytes second(m_start.bytes().data(), m_start.bytes().size(), m_context);
      bool refused = false;
      for (const DeviceBytes* result : {&first, &second}) {
        p.y = m_start.viewAt(result->data());
        p.epilogue.bias = m_bias.viewAt(m_deviceBias.data()).data;
        if (hasResidual) p.epilogue.residual = constant(p.y);
        refused = row.lowering.refuse(p, m_context) != nullptr;
        if (!refused) row.lowering.run(p, m_context);
      }
      if (refused) {
        ++counts.refusals[row.lowering.name];
        continue;
      }
      ++counts.runs[row.lowering.name];
      const Frame found = m_start.with(first.toHost());
      std::string error = compare(row, epilogue, expected, found);
      if (error.empty() && !found.sameOutside(m_start)) error = "writes outside of its result";
      if (error.empty() && second.toHost() != found.bytes()) error = "two runs differ";
      if (error.empty()) continue;
      if (++counts.wrong <= 20)
        BOOST_ERROR(row.lowering.name << ", " << what << ", m = " << m_x.rows() << ", n = " << m_hostW.rows
                                      << ", k = " << m_hostW.cols << ", scalar " << int(m_scalar) << ": " << error);
    }
  }

 private:
  std::string compare(const Row& row, const Epilogue& epilogue, const Frame& expected, const Frame& found) const {
    const double u = roundoffOf(m_scalar), relative = row.error(m_scalar, m_x.cols());
    int wrong = 0;
    std::string first;
    for (Index i = 0; i < expected.rows(); ++i) {
      for (Index j = 0; j < expected.cols(); ++j) {
        const double e = expected.at(i, j), f = found.at(i, j);
        // Activations have slopes of at most 1.13; the epilogue's few float operations are on values of this size.
        const double sum = std::abs(static_cast<double>(epilogue.alpha)) * m_magnitude(i, j);
        const double bound = 1.2 * relative * sum + 32 * unitRoundoff<float>() * (sum + 8);
        if (std::abs(e - f) <= bound + 2 * u * (std::abs(e) + bound) + 0x1p-24) continue;
        if (++wrong == 1)
          first = "(" + std::to_string(i) + ", " + std::to_string(j) + "): expected " + std::to_string(e) + ", found " +
                  std::to_string(f) + ", bound " + std::to_string(bound);
      }
    }
    return wrong == 0 ? "" : first + "; " + std::to_string(wrong) + " entries are wrong";
  }

  gpu::Context& m_context;
  ScalarType m_scalar;
  Frame m_x, m_start, m_bias;
  DeviceBytes m_deviceX, m_deviceBias;
  WeightView m_hostW, m_deviceW;
  MatrixXd m_magnitude;
};

Epilogue everything(int round) {
  Epilogue e;
  e.alpha = -1.5f;
  e.biasAxis = round % 2 ? internal::BiasAxis::kPerCol : internal::BiasAxis::kPerRow;
  e.activation = static_cast<Activation>(round % 5);
  e.lower = -0.75f;
  e.upper = 4;
  e.sign = -1;
  e.residual.data = &e;  // replaced by Y
  e.residualSign = round % 2 ? 1.0f : -1.0f;
  return e;
}

int g_round = 0;

void check(const std::string& what, const WeightView& hostW, const WeightView& deviceW, Index m, gpu::Context& context,
           Counts& counts) {
  for (const ScalarType scalar : kScalars) {
    const int round = g_round++;
    Case c(hostW, deviceW, m, kLayouts[round % 5], kLayouts[round / 5 % 5], scalar, context);
    c.check(what, Epilogue(), counts);
    if (round % 2 == 0) c.check(what + ", with an epilogue", everything(round / 2), counts);
  }
}

/** Of a 4-bit matrix, each (row, col, rows, cols) with the next m. */
struct Window {
  Index row, col, rows, cols;
};

template <typename Matrix>
void sweep(const Matrix& matrix, const std::vector<Window>& windows, const std::vector<Index>& ms,
           gpu::Context& context, Counts& counts) {
  const std::string what = std::string(Matrix::name()) + ", blocks of " + std::to_string(matrix.blockSize()) +
                           (matrix.state().isNested() ? ", nested" : "");
  const WeightView host = matrix.quantizedView().weights;
  const DeviceWeights device(host, context, matrix.state().isNested() && matrix.blockSize() == 64);
  for (const Window& at : windows) {
    for (const Index m : ms) {
      check(what, host.window(at.row, at.col, at.rows, at.cols), device.view().window(at.row, at.col, at.rows, at.cols),
            m, context, counts);
    }
  }
}

void report(const Counts& counts) {
  for (const auto& entry : counts.runs) BOOST_TEST_MESSAGE(entry.first << ": " << entry.second << " runs");
  for (const auto& entry : counts.refusals) BOOST_TEST_MESSAGE(entry.first << ": " << entry.second << " refusals");
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyNumberOfRowsOfX, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const std::vector<Window> windows = {{0, 0, 49, 320}};
  const MatrixXf w = MatrixXf::Random(49, 320);
  std::vector<Index> ms;
  for (Index m = 1; m <= 17; ++m) ms.push_back(m);
  sweep(NF4Matrix(w), windows, ms, context, counts);
  sweep(FP4Matrix(w, 32, Statistics::kNested), windows, ms, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  // 16 rows of X in three scalars, with or without an epilogue; 17 are too many, and float is for the other kernel.
  BOOST_TEST(counts.runs["mma.decode"] > 2 * 2 * 16);
  BOOST_TEST(counts.runs["simt.decode"] > 2 * 3 * 16);
  BOOST_TEST(counts.refusals["simt.decode"] > 0);
}

BOOST_AUTO_TEST_CASE(everyBlockSizeAndStatistics, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(37, 1088);  // 8.5 units of 128
  const std::vector<Window> windows = {{0, 0, 37, 1088}};
  for (Index block = 32; block <= 4096; block *= 2) {
    for (const Statistics statistics : {Statistics::kPlain, Statistics::kNested}) {
      sweep(NF4Matrix(w, block, statistics), windows, {1, 9}, context, counts);
      sweep(FP4Matrix(w, block, statistics), windows, {8, 16}, context, counts);
    }
  }
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["mma.decode"] >= 8 * 2 * 2 * 2 * 2);
}

// Around tiles of 16 rows, chunks of 64, units of 128 and the warps' shares; several tiles a block; slices of K.
BOOST_AUTO_TEST_CASE(awkwardShapes, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  for (const auto& [n, k] : {std::pair<Index, Index>{1, 64},
                             {15, 128},
                             {16, 192},
                             {17, 2048},
                             {33, 2112},
                             {5, 4096},
                             {20, 4160},
                             {31, 8192},
                             {18, 8256},
                             {3, 16448},
                             {7, 33000 / 64 * 64},
                             {5000, 64},
                             {2500, 192},
                             {2200, 640}}) {
    const NF4Matrix w(MatrixXf::Random(n, k), 64, n % 2 ? Statistics::kNested : Statistics::kPlain);
    sweep(w, {{0, 0, n, k}}, {1, 3, 8, 16}, context, counts);
  }
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["mma.decode"] >= 14 * 4 * 2);
}

// What consumer devices give a block: mma.decode with its shortest rings, more units of K than these hold, several
// tiles a block, both kinds of scales.
BOOST_AUTO_TEST_CASE(littleSharedMemory, *needsDevice()) {
  gpu::Context context;
  context.state().sharedMemoryPerBlock = std::min<std::size_t>(context.state().sharedMemoryPerBlock, 99 << 10);
  Counts counts;
  for (const auto& [n, k] : {std::pair<Index, Index>{1, 64}, {17, 2048}, {33, 2112}, {20, 8256}, {5000, 192}}) {
    sweep(NF4Matrix(MatrixXf::Random(n, k)), {{0, 0, n, k}}, {1, 8, 16}, context, counts);
    sweep(FP4Matrix(MatrixXf::Random(n, k), 32, Statistics::kNested), {{0, 0, n, k}}, {7, 9}, context, counts);
  }
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["mma.decode"] >= 5 * 5 * 2);
  BOOST_TEST(counts.runs["stream.decode"] + counts.runs["rows.decode"] == 0);
}

// What stream.decode takes: around its tiles of 16 rows, lines of 256, stages of 2048 and the tiles whose sums wait
// together; more stages than fit at once; several tiles a block; slices of K; windows of rows and columns.
BOOST_AUTO_TEST_CASE(streamedShapes, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  int expected = 0;
  for (const auto& [n, k] : {std::pair<Index, Index>{1, 256},
                             {15, 512},
                             {17, 2048},
                             {33, 2304},
                             {100, 4352},
                             {40, 20480},
                             {3, 32768},
                             {2200, 1280},
                             {40000, 256}}) {
    const NF4Matrix w(MatrixXf::Random(n, k));
    sweep(w, {{0, 0, n, k}}, {1, 2}, context, counts);
    expected += k <= 16384 ? 2 : 1;
  }
  for (const auto& [n, k] : {std::pair<Index, Index>{1, 1024}, {35, 3072}, {18, 11264}, {2500, 1024}}) {
    const FP4Matrix w(MatrixXf::Random(n, k), 64, Statistics::kNested);
    sweep(w, {{0, 0, n, k}}, {1, 2}, context, counts);
    expected += 2;
  }
  const MatrixXf w = MatrixXf::Random(50, 4096);
  sweep(NF4Matrix(w), {{0, 256, 50, 3840}, {3, 512, 17, 256}, {49, 3840, 1, 256}}, {1, 3, 4, 7, 8}, context, counts);
  sweep(NF4Matrix(w, 64, Statistics::kNested), {{7, 1024, 40, 2048}, {1, 0, 20, 4096}}, {1, 4, 5, 8}, context, counts);
  expected += 3 * 5 + 2 * 4;
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  // half and bfloat16, each with an epilogue or without
  if (hasSm90(context)) BOOST_TEST(counts.runs["stream.decode"] >= 2 * expected);
}

// A stored dictionary may have levels of any size: 16 bits hold them relative to the largest.
BOOST_AUTO_TEST_CASE(levelsOfAnySize, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const NF4Matrix plain(MatrixXf::Random(48, 256));
  for (const float size : {3e6f, 0.7f, 1e-6f, 0x1p-40f}) {
    const QuantState state(FourBitType::kNF4, 64, ScalarType::kFloat, {48, 256}, plain.state().absmax() / size,
                           plain.state().codeTable() * size);
    sweep(NF4Matrix(plain.packed(), state), {{0, 0, 48, 256}}, {1, 8, 20, 60, 130}, context, counts);
  }
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  for (const Row& row : kRows) BOOST_TEST((counts.runs[row.lowering.name] > 0 || !hasSm90(context)));
}

// What rows.decode takes: around its tiles of 16 rows of W and 8 of X, lines of 256 k and stages of 256, 512 and 1024;
// one, two and four groups of warps, whose last ones have fewer tiles or none; more rows than blocks own at once;
// absmax that is used as it lies and absmax that is packed; windows.
BOOST_AUTO_TEST_CASE(fewRowsOfX, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(50, 4160);
  sweep(NF4Matrix(w), {{0, 0, 50, 4160}, {3, 64, 17, 1024}, {49, 4096, 1, 64}}, {1, 8, 9, 16, 17, 32}, context, counts);
  sweep(FP4Matrix(w, 128, Statistics::kNested), {{1, 128, 16, 2304}}, {2, 12, 24}, context, counts);
  sweep(NF4Matrix(MatrixXf::Random(40, 2560)), {{0, 0, 40, 2560}, {7, 256, 33, 1280}}, {4, 11, 31}, context, counts);
  for (const Index n : {4300, 9000, 16800}) {
    const NF4Matrix tall(MatrixXf::Random(n, 320));
    sweep(tall, {{0, 0, n, 320}}, {1, 10}, context, counts);
  }
  sweep(NF4Matrix(MatrixXf::Random(8600, 192)), {{0, 0, 8600, 192}}, {18}, context, counts);
  sweep(FP4Matrix(MatrixXf::Random(34500, 64), 64, Statistics::kNested), {{0, 0, 34500, 64}}, {6}, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  // half and bfloat16, each with an epilogue or without
  if (hasSm90(context)) BOOST_TEST(counts.runs["rows.decode"] >= 2 * (3 * 6 + 3 + 2 * 3 + 3 * 2 + 1 + 1));
}

// What wgmma.decode takes: around its tiles of 32, 64, 128 and 256 rows of X and of 128 rows of W, chunks of 256;
// shares of K; absmax that is used as it lies and absmax that is packed; windows.
BOOST_AUTO_TEST_CASE(manyRowsOfX, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(140, 832), wide = MatrixXf::Random(130, 1536);
  sweep(NF4Matrix(w), {{0, 0, 140, 832}}, {17, 32, 33, 64, 65, 128, 129, 257}, context, counts);
  sweep(FP4Matrix(w, 256, Statistics::kNested), {{3, 64, 129, 192}, {0, 0, 1, 64}}, {18, 50, 127, 300}, context,
        counts);
  sweep(NF4Matrix(wide), {{0, 0, 130, 1536}, {1, 256, 128, 512}}, {24, 48, 100}, context, counts);
  sweep(NF4Matrix(MatrixXf::Random(20, 64)), {{0, 0, 20, 64}}, {1024}, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  // half and bfloat16, each with an epilogue or without
  if (hasSm90(context)) BOOST_TEST(counts.runs["wgmma.decode"] >= 2 * (8 + 2 * 4 + 2 * 3 + 1));
}

// wgmma.decode, where blocks share a tile's chunks of 256: few tiles among many blocks, whose parts a second kernel
// adds, and 34 tiles among clusters of two (four chunks) and three (five); tiles of which only the first tokens are
// there.
BOOST_AUTO_TEST_CASE(sharedDepth, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(70, 2880);  // 11.25 chunks
  sweep(NF4Matrix(w), {{0, 0, 70, 2880}, {3, 64, 65, 512}}, {33, 57, 64, 65, 130, 200}, context, counts);
  sweep(FP4Matrix(w, 64, Statistics::kNested), {{1, 0, 64, 2880}, {0, 320, 70, 768}}, {34, 96, 129}, context, counts);
  const NF4Matrix many(MatrixXf::Random(4300, 1088));
  sweep(many, {{0, 0, 4300, 832}, {0, 0, 4300, 1088}}, {40}, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  // half and bfloat16, each with an epilogue or without
  if (hasSm90(context)) BOOST_TEST(counts.runs["wgmma.decode"] >= 2 * (2 * 6 + 2 * 3 + 2));
}

// Products whose blocks wait for one another, in two streams at once and replayed from a graph: bits stay the same.
BOOST_AUTO_TEST_CASE(sharedDepthInStreamsAndGraphs, *needsDevice()) {
  gpu::Context contexts[2];
  const Index n = 4096, k = 1600;
  const NF4Matrix w(MatrixXf::Random(n, k));
  for (const Index m : {48, 128, 256}) {
    std::vector<std::unique_ptr<DeviceWeights>> weights;
    std::vector<std::unique_ptr<DeviceBytes>> xs, ys;
    std::vector<QuantizedProduct> products;
    std::vector<unsigned char> expected[2];
    const std::vector<unsigned char> none(static_cast<std::size_t>(m * n) * 2, 0xff);
    for (unsigned i = 0; i < 2; ++i) {
      gpu::Context& context = contexts[i];
      Frame x(m, k, Layout::kRowMajor, ScalarType::kBFloat16, i + 1), y(m, n, Layout::kRowMajor, ScalarType::kBFloat16);
      weights.push_back(std::make_unique<DeviceWeights>(w.quantizedView().weights, context));
      xs.push_back(std::make_unique<DeviceBytes>(x.bytes().data(), x.bytes().size(), context));
      ys.push_back(std::make_unique<DeviceBytes>(none.data(), none.size(), context));
      QuantizedProduct p;
      p.x = constant(x.viewAt(xs[i]->data()));
      p.w = weights[i]->view();
      p.y = y.viewAt(ys[i]->data());
      products.push_back(p);
      if (gpu::internal::refuseFourBitWgmma(p, context)) return;
      gpu::internal::runFourBitWgmma(p, context);
      expected[i] = ys[i]->toHost();
      BOOST_TEST((expected[i] != none));
      ys[i]->set(none);
    }
    for (int round = 0; round < 50; ++round) {
      for (unsigned i = 0; i < 2; ++i) gpu::internal::runFourBitWgmma(products[i], contexts[i]);
    }
    for (unsigned i = 0; i < 2; ++i) {
      BOOST_TEST((ys[i]->toHost() == expected[i]));
      ys[i]->set(none);
    }
    std::vector<gpu::Graph> graphs;
    for (unsigned i = 0; i < 2; ++i) {
      graphs.emplace_back(contexts[i], [&] {
        for (int call = 0; call < 5; ++call) gpu::internal::runFourBitWgmma(products[i], contexts[i]);
      });
    }
    for (int round = 0; round < 10; ++round) {
      for (unsigned i = 0; i < 2; ++i) graphs[i].launch();
    }
    for (unsigned i = 0; i < 2; ++i) BOOST_TEST((ys[i]->toHost() == expected[i]));
  }
}

// Rounds of whole tiles with tiles of 128 and of 256 rows of W, and what is left of them.
BOOST_AUTO_TEST_CASE(moreTilesThanMultiprocessors, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const NF4Matrix w(MatrixXf::Random(34500, 64), 64, Statistics::kNested);
  sweep(w, {{0, 0, 17000, 64}, {0, 0, 34500, 64}}, {17}, context, counts);
  sweep(w, {{0, 0, 17000, 64}}, {33}, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  if (hasSm90(context)) BOOST_TEST(counts.runs["wgmma.decode"] >= 2 * 3);
}

// Rows that begin inside bytes, words and blocks; depths that are no multiple of anything.
BOOST_AUTO_TEST_CASE(windowsAndOddDepths, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(50, 1009), even = MatrixXf::Random(50, 1024);
  const std::vector<Window> odd = {{0, 0, 50, 1009}, {1, 3, 40, 900},  {2, 5, 7, 1},    {0, 0, 1, 31},
                                   {3, 1, 9, 64},    {49, 1008, 1, 1}, {7, 0, 43, 257}, {0, 8, 5, 512}};
  sweep(NF4Matrix(w), odd, {1, 2, 5, 13}, context, counts);
  sweep(FP4Matrix(w, 32, Statistics::kNested), odd, {1, 4, 16}, context, counts);
  const std::vector<Window> aligned = {{0, 64, 50, 960},  {3, 192, 17, 64}, {49, 960, 1, 64},
                                       {1, 128, 40, 640}, {0, 8, 50, 1000}, {5, 32, 11, 96}};
  const int before = counts.runs["mma.decode"];
  sweep(NF4Matrix(even), aligned, {1, 6, 12}, context, counts);
  sweep(FP4Matrix(even, 4096, Statistics::kNested), aligned, {2, 16}, context, counts);
  report(counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["mma.decode"] - before >= 4 * 5 * 2);  // four of the windows
  BOOST_TEST(counts.runs["simt.decode"] > 8 * 7 * 3);
}

BOOST_AUTO_TEST_CASE(emptyOperands, *needsDevice()) {
  gpu::Context context;
  Counts counts;
  const NF4Matrix w(MatrixXf::Random(16, 128));
  sweep(w, {{0, 0, 16, 0}, {0, 0, 0, 128}}, {0, 1, 5}, context, counts);
  sweep(w, {{0, 0, 16, 128}}, {0}, context, counts);
  BOOST_TEST(counts.wrong == 0);
  BOOST_TEST(counts.runs["mma.decode"] > 0);
}

// The residual takes the rounded result away, so that Y shows what float sums still hold of it.
BOOST_AUTO_TEST_CASE(sumsAreMoreAccurateThanDequantisedWeights, *needsDevice()) {
  gpu::Context context;
  const Index n = 96, k = 4096;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  MatrixXf w(n, k);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = normal(random);
  const NF4Matrix nf4(w);
  const FP4Matrix fp4(w);
  struct Goal {
    const char* name;
    WeightView weights;
    ScalarType scalar;
    double limit;
  };
  // Emulated, with the table's rounding alone: NF4 7.8e-4 and 8.0e-5, FP4 2e-8. A product rounded to bfloat16 for each
  // weight gives 1.65e-3, to half 2.1e-4.
  const Goal goals[] = {{"nf4, bfloat16", nf4.quantizedView().weights, ScalarType::kBFloat16, 1.1e-3},
                        {"nf4, half", nf4.quantizedView().weights, ScalarType::kHalf, 1.2e-4},
                        {"fp4, bfloat16", fp4.quantizedView().weights, ScalarType::kBFloat16, 1e-5},
                        {"fp4, half", fp4.quantizedView().weights, ScalarType::kHalf, 1e-5}};
  const auto check = [&](const Goal& goal, Index m, double limit) {
    int runs = 0;
    const DeviceWeights device(goal.weights, context);
    Frame x(m, k, Layout::kRowMajor, goal.scalar, 5), y(m, n, Layout::kRowMajor, goal.scalar, 6);
    MatrixXd exact(m, n), rest(m, n);
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        double sum = 0;
        for (Index l = 0; l < k; ++l) sum += x.at(i, l) * static_cast<double>(goal.weights.coeff(j, l));
        exact(i, j) = sum;
        y.set(i, j, sum);
        rest(i, j) = sum - y.at(i, j);
      }
    }
    const DeviceBytes deviceX(x.bytes().data(), x.bytes().size(), context);
    for (const Row& row : kRows) {
      const DeviceBytes deviceY(y.bytes().data(), y.bytes().size(), context);
      QuantizedProduct p;
      p.x = constant(x.viewAt(deviceX.data()));
      p.w = device.view();
      p.y = y.viewAt(deviceY.data());
      p.epilogue.residual = constant(p.y);
      p.epilogue.residualSign = -1;
      if (row.lowering.refuse(p, context)) continue;
      ++runs;
      row.lowering.run(p, context);
      const Frame found = y.with(deviceY.toHost());
      double error = 0;
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) error += std::pow(found.at(i, j) - rest(i, j), 2);
      }
      error = std::sqrt(error) / exact.norm();
      BOOST_TEST_MESSAGE(row.lowering.name << ", " << goal.name << ", m = " << m << ": relative rms error " << error);
      // What is left over is rounded to the scalar once more: u/√3 of about u/√3.
      const double u = roundoffOf(goal.scalar);
      BOOST_TEST(error < (row.error == errorOfSimt ? 1e-5 : limit) + u * u);
    }
    return runs;
  };
  const int sm90 = hasSm90(context) ? 1 : 0;
  for (const Goal& goal : goals) {
    BOOST_TEST(check(goal, 8, goal.limit) == 2 + 2 * sm90);
    BOOST_TEST(check(goal, 24, goal.limit) == 2 * sm90);
    // wgmma.decode. Its wide tiles round weights once, as dequantising does.
    BOOST_TEST(check(goal, 136, goal.scalar == ScalarType::kBFloat16 ? 1.7e-3 : 2.2e-4) == sm90);
  }
}

BOOST_AUTO_TEST_CASE(refusalsAreInWords, *needsDevice()) {
  gpu::Context context;
  const NF4Matrix w(MatrixXf::Random(64, 128));
  const Int8Matrix w8(MatrixXf::Random(64, 128));
  const auto asked = [&](const Row& row, const WeightView& weights, Index m, ScalarType scalar, bool transposed) {
    Frame x(m, transposed ? 128 : 64, Layout::kRowMajor, scalar),
        y(m, transposed ? 64 : 128, Layout::kRowMajor, scalar);
    QuantizedProduct p;
    p.x = constant(x.view());
    p.w = weights;
    p.transposed = transposed;
    p.y = y.view();
    const char* const why = row.lowering.refuse(p, context);
    return std::string(why ? why : "");
  };
  const WeightView view = w.quantizedView().weights;
  for (const Row& row : {kRows[0], kRows[1]}) {
    BOOST_TEST(asked(row, view, 16, ScalarType::kHalf, true) == "");
    BOOST_TEST(asked(row, view, 17, ScalarType::kHalf, true) == "more than 16 rows of X");
    BOOST_TEST(asked(row, view, 1, ScalarType::kHalf, false) == "W is not used transposed");
    BOOST_TEST(asked(row, w8.quantizedView().weights, 1, ScalarType::kHalf, true) == "W is not in 4 bits");
  }
  BOOST_TEST(asked(kRows[0], view, 1, ScalarType::kFloat, true) == "X is neither half nor bfloat16");
  BOOST_TEST(asked(kRows[0], view.window(0, 1, 64, 64), 1, ScalarType::kHalf, true) ==
             "rows of W do not begin and end at multiples of 64 codes");
  if (!hasSm90(context)) return;
  BOOST_TEST(asked(kRows[3], view, 17, ScalarType::kHalf, true) == "");
  BOOST_TEST(asked(kRows[3], view, 16, ScalarType::kHalf, true) == "fewer than 17 rows of X");
  BOOST_TEST(asked(kRows[3], view, 1024, ScalarType::kHalf, true) == "");
  BOOST_TEST(asked(kRows[3], view, 1025, ScalarType::kHalf, true) ==
             "more than 1024 rows of X for fewer than 8192 of W");
  BOOST_TEST(asked(kRows[3], view, 17, ScalarType::kFloat, true) == "X is neither half nor bfloat16");
  BOOST_TEST(asked(kRows[3], view, 17, ScalarType::kHalf, false) == "W is not used transposed");
  BOOST_TEST(asked(kRows[4], view, 3, ScalarType::kHalf, true) == "");
  BOOST_TEST(asked(kRows[4], view, 32, ScalarType::kBFloat16, true) == "");
  BOOST_TEST(asked(kRows[4], view, 1, ScalarType::kHalf, true) == "");
  BOOST_TEST(asked(kRows[4], view, 33, ScalarType::kHalf, true) == "more than 32 rows of X");
  BOOST_TEST(asked(kRows[4], view.window(0, 0, 0, 128), 32, ScalarType::kHalf, true) == "");  // no row to share out
  BOOST_TEST(asked(kRows[4], view.window(0, 1, 64, 64), 3, ScalarType::kHalf, true) ==
             "rows of W do not begin and end at multiples of 64 codes");
  const NF4Matrix large(MatrixXf::Random(64, 256)), coarse(MatrixXf::Random(64, 256), 128);
  const auto stream = [&](const WeightView& weights, Index m) {
    Frame x(m, weights.cols, Layout::kRowMajor, ScalarType::kHalf), y(m, 64, Layout::kRowMajor, ScalarType::kHalf);
    QuantizedProduct p;
    p.x = constant(x.view());
    p.w = weights;
    p.transposed = true;
    p.y = y.view();
    const char* const why = gpu::internal::refuseFourBitDecodeStream(p, context);
    return std::string(why ? why : "");
  };
  BOOST_TEST(stream(large.quantizedView().weights, 9) == "more than 8 rows of X");
  BOOST_TEST(stream(coarse.quantizedView().weights, 1) == "blocks of other than 64");
  BOOST_TEST(stream(view, 1) ==
             "rows of W do not begin and end at multiples of 256 codes, or 1024 where absmax is nested");
}
