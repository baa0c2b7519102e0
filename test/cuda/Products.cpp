// SPDX-License-Identifier: MPL-2.0
// Every row of the device's tables against exact sums in double: awkward shapes, layouts, scalars and epilogues, twice
// each for the same bits; graphs. The plans of cuBLASLt have a test of their own, Plans.cpp.
#define BOOST_TEST_MODULE DeviceProducts
#include <boost/test/unit_test.hpp>

#include <map>

#include <eigen_q/src/gpu/Graph.h>
#include <src/cuda/context_state.h>
#include <src/cuda/dense_update.h>
#include <src/cuda/device_lowering.h>
#include <src/cuda/fourbit_gemm.h>
#include <src/cuda/plan_cache.h>

#include "Device.h"
#include "Operand.h"
#include "support/KernelLog.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using gpu::Context;
using gpu::internal::DenseProduct;
using gpu::internal::deviceDenseLowerings;
using gpu::internal::DeviceLowering;
using gpu::internal::deviceLowerings;
using gpu::internal::lower;
using internal::DenseView;
using internal::LoweringTable;
using internal::QuantizedProduct;
using internal::WeightView;

namespace {

struct Shape {
  Index m, n, k;
};

using Counts = std::map<std::string, std::pair<int, int>>;  // runs, refusals

/** Exact sums and Σ|x||w|. */
struct Exact {
  MatrixXd sum, magnitude;
};

/** Runs every row that takes the product, twice. \a productOn gives it for a result and its epilogue. */
template <typename Product, typename ProductOn>
void checkTable(const LoweringTable<DeviceLowering<Product>>& table, const ProductOn& productOn, const Exact& exact,
                const ResultOperands& r, const EpilogueCase& c, ScalarType scalar, Index depth, Context& context,
                const std::string& what, Counts& counts) {
  for (const DeviceLowering<Product>& row : table) {
    const std::vector<unsigned char>& start = r.y.frame().bytes();
    const DeviceBytes first(start.data(), start.size(), context), second(start.data(), start.size(), context);
    const char* why = nullptr;
    for (const DeviceBytes* copy : {&first, &second}) {
      const DenseView y = r.y.deviceAt(*copy);
      const Product p = productOn(y, r.on(y, c));
      why = row.refuse(p, context);
      if (!why) row.run(p, context);
    }
    ++(why ? counts[row.name].second : counts[row.name].first);
    if (why) continue;
    const Frame found = r.y.frame().with(first.toHost());
    const double relative = relativeError(row.name, scalar, depth);
    std::string error = r.compare(
        c, found, [&](Index i, Index j) { return exact.sum(i, j); },
        [&](Index i, Index j) { return relative * exact.magnitude(i, j); });
    if (error.empty() && second.toHost() != found.bytes()) error = "two runs differ";
    if (!error.empty()) BOOST_ERROR(row.name << ", " << c.name << ", " << what << ": " << error);
  }
}

std::string describe(const Shape& s, ScalarType scalar) {
  return "m = " + std::to_string(s.m) + ", n = " + std::to_string(s.n) + ", k = " + std::to_string(s.k) + ", scalar " +
         std::to_string(static_cast<int>(scalar));
}

/** Neither a table nor a kernel passes by declining: each of \a rows ran. */
void expectRuns(const Counts& counts, const std::vector<std::string>& rows) {
  for (const auto& [name, count] : counts)
    BOOST_TEST_MESSAGE(name << ": " << count.first << " runs, " << count.second << " refusals");
  for (const std::string& name : rows) {
    const auto found = counts.find(name);
    BOOST_TEST((found != counts.end() && found->second.first > 0), name << " has never run");
  }
}

MatrixXd valuesOf(const Operand& a, Index rows, Index cols) {
  return MatrixXd::NullaryExpr(rows, cols, [&](Index i, Index j) { return a.at(i, j); });
}

void checkDense(const Shape& s, ScalarType scalar, ScalarType result, const Place (&places)[4], const EpilogueCase& c,
                Context& context, Counts& counts,
                const LoweringTable<DeviceLowering<DenseProduct>>& table = deviceDenseLowerings()) {
  const Operand a(s.m, s.k, places[0], scalar, 1, context), b(s.k, s.n, places[1], scalar, 2, context);
  const ResultOperands r(s.m, s.n, places[2], places[3], result, context);
  const MatrixXd x = valuesOf(a, s.m, s.k), w = valuesOf(b, s.k, s.n);
  const Exact exact{x * w, x.cwiseAbs() * w.cwiseAbs()};
  const auto productOn = [&](const DenseView& y, const internal::Epilogue& e) {
    return DenseProduct{constant(a.device()), constant(b.device()), y, e};
  };
  checkTable(table, productOn, exact, r, c, scalar, s.k, context, describe(s, scalar), counts);
}

/** W as a window of a whole matrix on both sides. */
struct Weights {
  WeightView host, device;
};

Exact exactOf(const WeightView& w, bool transposed, Operand& x, const Shape& s) {
  Exact exact{MatrixXd(s.m, s.n), MatrixXd(s.m, s.n)};
  QuantizedProduct p;
  p.x = constant(x.host());
  p.w = w;
  p.transposed = transposed;
  p.y = {exact.sum.data(), ScalarType::kDouble, s.m, s.n, 1, s.m};
  const internal::Lowering* const reference = internal::hostLowerings().end() - 1;
  BOOST_REQUIRE_EQUAL(std::string(reference->name), "reference");
  reference->run(p);
  const MatrixXd values = MatrixXd::NullaryExpr(s.k, s.n, [&](Index k, Index j) {
    return std::abs(static_cast<double>(transposed ? w.coeff(j, k) : w.coeff(k, j)));
  });
  exact.magnitude = valuesOf(x, s.m, s.k).cwiseAbs() * values;
  return exact;
}

void checkQuantized(const Weights& w, bool transposed, const Shape& s, ScalarType scalar, const Place (&places)[3],
                    const EpilogueCase& c, Context& context, Counts& counts,
                    const LoweringTable<DeviceLowering<QuantizedProduct>>& table = deviceLowerings()) {
  Operand x(s.m, s.k, places[0], scalar, 1, context);
  const ResultOperands r(s.m, s.n, places[1], places[2], scalar, context);
  const auto productOn = [&](const DenseView& y, const internal::Epilogue& e) {
    QuantizedProduct p;
    p.x = constant(x.device());
    p.w = w.device;
    p.transposed = transposed;
    p.y = y;
    p.epilogue = e;
    return p;
  };
  checkTable(table, productOn, exactOf(w.host, transposed, x, s), r, c, scalar, s.k, context,
             describe(s, scalar) + (transposed ? "" : ", W as it is"), counts);
}

/** Windows of a 150×1100 matrix, transposed and not, in all scalars. */
void sweep(const WeightView& whole, Context& context, Counts& counts) {
  const Shape shapes[] = {{1, 1, 1},    {1, 33, 64},   {5, 31, 257},  {16, 48, 128}, {17, 64, 192},
                          {33, 7, 100}, {64, 128, 64}, {3, 97, 1000}, {129, 140, 31}};
  const DeviceWeights onDevice(whole, context);
  const std::vector<EpilogueCase> epilogues = epilogueCases();
  std::size_t round = 0;
  for (const bool transposed : {true, false}) {
    for (const Shape& s : shapes) {
      for (const ScalarType scalar : kScalars) {
        // As it starts (rows at multiples of 64 codes for an even round), or from an odd row and column.
        const Index rows = transposed ? s.n : s.k, cols = transposed ? s.k : s.n;
        const Index row = std::min<Index>(round % 2 * 3, whole.rows - rows), col = round % 4 / 2 * 5;
        if (row < 0 || col + cols > whole.cols) continue;
        const Weights w = {whole.window(row, col, rows, cols), onDevice.view().window(row, col, rows, cols)};
        for (const std::size_t epilogue : {std::size_t{0}, round % epilogues.size()}) {
          const Place places[] = {kPlaces[round % 6], kPlaces[(round + 1) % 6], kPlaces[(round + 3) % 6]};
          checkQuantized(w, transposed, s, scalar, places, epilogues[epilogue], context, counts);
        }
        ++round;
      }
    }
  }
}

constexpr ScalarType kSixteenBits[] = {ScalarType::kHalf, ScalarType::kBFloat16};

constexpr DeviceLowering<DenseProduct> kUpdate[] = {
    {"mma.update", gpu::internal::refuseDenseUpdate, gpu::internal::runDenseUpdate}};

constexpr DeviceLowering<QuantizedProduct> kTeam[] = {
    {"wgmma.team", gpu::internal::refuseFourBitGemmAtAll, gpu::internal::runFourBitGemm}};

/** Whether there is wgmma.team at all: in this build, for this device. */
bool hasTeams(const Context& context) {
  return EIGENQ_TEST_HAVE_SM90A && context.properties().major == 9 && context.properties().minor == 0;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(products, *needsDevice())

BOOST_AUTO_TEST_CASE(denseProductsInEveryLayout) {
  Context context;
  Counts counts;
  const std::vector<EpilogueCase> epilogues = epilogueCases();
  const Shape shapes[] = {{1, 1, 1}, {1, 37, 64}, {37, 1, 64}, {5, 8, 1}, {33, 65, 127}, {128, 64, 96}};
  std::size_t round = 0;
  for (const Shape& s : shapes) {
    for (const ScalarType scalar : kScalars) {
      for (const Place a : kPlaces) {
        for (const Place b : kPlaces) {
          const Place places[] = {a, b, kPlaces[round % 6], kPlaces[(round + round / 6) % 6]};
          checkDense(s, scalar, scalar, places, epilogues[round % epilogues.size()], context, counts);
          ++round;
        }
      }
    }
  }
  expectRuns(counts, {"mma.update", "cublaslt", "reference"});
}

BOOST_AUTO_TEST_CASE(denseProductsWithEveryEpilogue) {
  Context context;
  Counts counts;
  for (const EpilogueCase& c : epilogueCases()) {
    for (const ScalarType scalar : kScalars) {
      for (const ScalarType result : kScalars) {
        for (const Place y : kPlaces) {
          for (const Place other : {kPlaces[0], kPlaces[3], kPlaces[4]}) {
            const Place places[] = {kPlaces[0], kPlaces[2], y, other};
            checkDense({19, 72, 40}, scalar, result, places, c, context, counts);
          }
        }
      }
    }
  }
  expectRuns(counts, {"mma.update", "cublaslt", "reference"});
}

// Around mma.update's patches of 64×16, tiles of 128 rows and 32, 64 and 128 values of a sum: A and B in every layout,
// Y's rows or columns aligned, ending short of 16 bytes, or misaligned, added to itself or to another matrix.
BOOST_AUTO_TEST_CASE(updatesOfEveryDepth) {
  Context context;
  Counts counts;
  std::vector<EpilogueCase> epilogues;
  for (const EpilogueCase& c : epilogueCases()) {
    if (c.residual != EpilogueCase::kNone && c.epilogue.biasAxis == internal::BiasAxis::kNone &&
        c.epilogue.activation == Activation::kNone)
      epilogues.push_back(c);
  }
  const Shape sizes[] = {{8, 1, 0}, {63, 17, 0}, {64, 16, 0}, {257, 130, 0}, {264, 72, 0}, {328, 40, 0}};
  int round = 0;
  for (const Index depth : {1, 4, 7, 8, 9, 16, 31, 32, 33, 40, 63, 64, 65, 96, 100, 127, 128}) {
    for (const Shape& size : sizes) {
      for (const ScalarType scalar : kSixteenBits) {
        const Place y = kContiguousPlaces[round % 7 % 4];
        const Place places[] = {kPlaces[round % 6], kPlaces[round / 6 % 6], y, y};
        checkDense({size.m, size.n, depth}, scalar, scalar, places,
                   epilogues[static_cast<std::size_t>(round) % epilogues.size()], context, counts,
                   {std::begin(kUpdate), std::end(kUpdate)});
        ++round;
      }
    }
  }
  BOOST_TEST(counts["mma.update"].first == round);
}

// More patches than a device has room for at once: warps go from step to step, blocks from tile to tile.
BOOST_AUTO_TEST_CASE(updatesOfLargeMatrices) {
  Context context;
  Counts counts;
  for (const bool flipped : {false, true}) {
    const Place there = {Layout::kRowMajor, flipped}, across = {Layout::kRowMajor, !flipped};
    const Place places[] = {there, across, there, there};
    checkDense({4104, 1208, 24}, ScalarType::kBFloat16, ScalarType::kBFloat16, places, epilogueCases()[3], context,
               counts, {std::begin(kUpdate), std::end(kUpdate)});
  }
  BOOST_TEST(counts["mma.update"].first == 2);
}

BOOST_AUTO_TEST_CASE(updatesKeepWhatIsNotFinite) {
  Context context;
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const auto poison = [](Index i, Index j, double value) { return [=](Frame& f) { f.set(i, j, value); }; };
  for (const ScalarType scalar : kSixteenBits) {
    const Operand a(72, 16, {}, scalar, 1, context, poison(3, 5, nan));
    const Operand b(16, 24, {}, scalar, 2, context, poison(2, 7, infinity));
    const Operand y(72, 24, {}, scalar, 3, context, poison(9, 1, nan));
    const std::vector<unsigned char>& start = y.frame().bytes();
    const DeviceBytes result(start.data(), start.size(), context);
    DenseProduct p = {constant(a.device()), constant(b.device()), y.deviceAt(result), {}};
    p.epilogue.alpha = 0;  // reads A and B all the same
    p.epilogue.residual = constant(p.y);
    BOOST_REQUIRE(kUpdate[0].refuse(p, context) == nullptr);
    kUpdate[0].run(p, context);
    const Frame found = y.frame().with(result.toHost());
    Index wrong = 0;
    for (Index i = 0; i < 72; ++i) {
      for (Index j = 0; j < 24; ++j) {
        const bool spoilt = i == 3 || j == 7 || (i == 9 && j == 1);
        wrong += spoilt ? !std::isnan(found.at(i, j)) : found.at(i, j) != y.at(i, j);
      }
    }
    BOOST_TEST(wrong == 0);
  }
}

BOOST_AUTO_TEST_CASE(updatesRefuseInWords) {
  const Context context;
  const auto refusal = [&](Index depth, ScalarType result, bool flipped, bool bounded) -> std::string {
    DenseView y{nullptr, result, 40, 24, 1, 40}, other = {&depth, result, 40, 24, flipped ? 24 : 1, flipped ? 1 : 40};
    DenseProduct p = {
        {nullptr, ScalarType::kHalf, 40, depth, 1, 40}, {nullptr, ScalarType::kHalf, depth, 24, 1, depth}, y, {}};
    p.epilogue.residual = constant(other);
    if (bounded) p.epilogue.upper = 1;
    const char* const why = kUpdate[0].refuse(p, context);
    return why ? why : "";
  };
  BOOST_TEST(refusal(128, ScalarType::kHalf, false, false) == "");
  BOOST_TEST(refusal(129, ScalarType::kHalf, false, false) == "the sums are of more than 128 products");
  BOOST_TEST(refusal(16, ScalarType::kFloat, false, false) == "A, B and Y are not of one type of 16 bits");
  BOOST_TEST(refusal(16, ScalarType::kHalf, true, false) == "the residual lies across Y");
  BOOST_TEST(refusal(16, ScalarType::kHalf, false, true) == "the epilogue has a bias, an activation or bounds");
}

BOOST_AUTO_TEST_CASE(emptySumsAreAddedToo) {
  Context context;
  Counts counts;
  for (const EpilogueCase& c : epilogueCases()) {
    for (const Place y : kPlaces) {
      const Place places[] = {kPlaces[0], kPlaces[0], y, kPlaces[2]};
      for (const Shape& s : {Shape{9, 7, 0}, Shape{1, 7, 0}, Shape{9, 1, 0}})
        checkDense(s, ScalarType::kHalf, ScalarType::kHalf, places, c, context, counts);
    }
  }
  expectRuns(counts, {"mma.update", "cublaslt", "reference"});
}

BOOST_AUTO_TEST_CASE(productsOfEmptyMatricesQueueNothing) {
  Context context;
  for (const Shape& s : {Shape{0, 5, 3}, Shape{5, 0, 3}, Shape{0, 0, 0}}) {
    const internal::ConstDenseView a{nullptr, ScalarType::kHalf, s.m, s.k, s.k, 1};
    const internal::ConstDenseView b{nullptr, ScalarType::kHalf, s.k, s.n, s.n, 1};
    const DenseView y{nullptr, ScalarType::kHalf, s.m, s.n, s.n, 1};
    for (const auto& row : deviceDenseLowerings()) {
      if (!row.refuse({a, b, y, {}}, context)) row.run({a, b, y, {}}, context);
    }
    lower(DenseProduct{a, b, y, {}}, context);
  }
  context.synchronize();
}

BOOST_AUTO_TEST_CASE(largeSumsGoBySlabs) {
  Context context;
  Counts counts;
  // More float sums than dense_product.cpp keeps at a time, the last slab a narrow one.
  for (const Place y : {kPlaces[1], kPlaces[0]}) {
    const Place places[] = {kPlaces[0], kPlaces[1], y, kPlaces[0]};
    checkDense({4100, 2121, 8}, ScalarType::kBFloat16, ScalarType::kBFloat16, places, epilogueCases()[8], context,
               counts);
  }
  expectRuns(counts, {"cublaslt", "reference"});
}

BOOST_AUTO_TEST_CASE(doublesAreRefusedInWords) {
  Context context;
  double x = 0;
  const DenseView y{&x, ScalarType::kDouble, 1, 1, 1, 1};
  BOOST_CHECK_THROW(lower(DenseProduct{constant(y), constant(y), y, {}}, context), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(quantisedProductsByEveryRow) {
  Context context;
  Counts counts;
  const MatrixXf w = MatrixXf::Random(150, 1100);
  const MatrixXf wide = MatrixXf::Random(150, 1088);  // rows at multiples of 64
  const NF4Matrix nf4(wide), nf4Odd(MatrixXf(w.leftCols(1013))), nf4Nested(w, 4096, Statistics::kNested);
  const FP4Matrix fp4(wide, 32, Statistics::kNested);
  const Int8Matrix int8(w);
  for (const WeightView& whole :
       {nf4.quantizedView().weights, nf4Odd.quantizedView().weights, nf4Nested.quantizedView().weights,
        fp4.quantizedView().weights, int8.quantizedView().weights})
    sweep(whole, context, counts);
  const Int8Matrix int8Aligned(wide);
  WeightView quantising = int8Aligned.quantizedView().weights;
  quantising.int8Activations = true;
  for (const float threshold : {0.0f, 2.5f}) {
    quantising.outlierThreshold = threshold;
    sweep(quantising, context, counts);
  }
  expectRuns(counts, {"mma.decode", "simt.decode", "int8.decode.fused", "int8.decode", "int8.cublaslt",
                      "int8.reference", "int8.decode.weightonly", "dequantize+cublaslt", "reference"});
}

BOOST_AUTO_TEST_CASE(largeWeightsAreDecodedBySlabs) {
  Context context;
  Counts counts;
  const Index big = 4230, small = 1540;  // 26 MB as float: two slabs, the last one narrower
  const Int8Matrix tall(MatrixXf::Random(big, small)), broad(MatrixXf::Random(small, big));
  const Place places[] = {kPlaces[0], kPlaces[0], kPlaces[1]};
  for (const bool transposed : {true, false}) {
    const WeightView w = (transposed ? tall : broad).quantizedView().weights;
    const DeviceWeights onDevice(w, context);
    for (const std::size_t epilogue : {std::size_t{0}, std::size_t{6}, std::size_t{8}})
      checkQuantized({w, onDevice.view()}, transposed, {3, big, small}, ScalarType::kFloat, places,
                     epilogueCases()[epilogue], context, counts);
  }
  expectRuns(counts, {"dequantize+cublaslt"});
}

// wgmma.team where the table would not ask it: around its tiles of 256 tokens and of 256 rows or columns of W in halves
// of 128, steps of 64; fewer steps than a team has members, more than its ring; tokens for teams of 1, 2, 4 and 8
// clusters, several tiles a team; rows of Y that the copy engine writes and others; windows.
BOOST_AUTO_TEST_CASE(teamsOfManyRows) {
  Context context;
  struct Case {
    Index rows, cols;  // of W
    Index m;
  };
  const Case cases[] = {{1, 64, 1},     {129, 192, 255},  {257, 320, 257}, {130, 2304, 300}, {2241, 128, 65},
                        {8500, 64, 70}, {72, 4480, 1100}, {40, 64, 4097},  {333, 448, 2050}};
  const std::vector<EpilogueCase> epilogues = epilogueCases();
  Counts counts;
  std::size_t round = 0;
  for (const Case& c : cases) {
    const MatrixXf values = MatrixXf::Random(c.rows + 2, c.cols + 64);
    const NF4Matrix nf4(values);
    const FP4Matrix fp4(values, 128, Statistics::kNested);
    for (const WeightView& whole : {nf4.quantizedView().weights, fp4.quantizedView().weights}) {
      const DeviceWeights onDevice(whole, context);
      const Weights w = {whole.window(1, 64, c.rows, c.cols), onDevice.view().window(1, 64, c.rows, c.cols)};
      for (const bool transposed : {true, false}) {
        const Shape s = {c.m, transposed ? c.rows : c.cols, transposed ? c.cols : c.rows};
        const ScalarType scalar = round % 2 ? ScalarType::kHalf : ScalarType::kBFloat16;
        const Place places[] = {kPlaces[round % 3 ? 0 : round % 6], kPlaces[round % 5 ? 0 : round % 6],
                                kPlaces[round / 2 % 6]};
        checkQuantized(w, transposed, s, scalar, places, epilogues[round * 3 % epilogues.size()], context, counts,
                       {std::begin(kTeam), std::end(kTeam)});
        ++round;
      }
    }
  }
  if (hasTeams(context)) BOOST_TEST(counts["wgmma.team"].first == static_cast<int>(round));
}

// What doc/perf.md records of an H200, by shapes alone: no memory is read.
BOOST_AUTO_TEST_CASE(teamsAreAskedWhereTheyWereFaster) {
  const Context context;
  if (!hasTeams(context) || context.multiprocessors() != 132) return;
  const auto asked = [&](Index n, Index k, bool transposed, Index m) {
    QuantizedProduct p;
    p.w = WeightView::fourBit(nullptr, n, k, nullptr, {}, 6);
    p.transposed = transposed;
    const Index depth = transposed ? k : n, width = transposed ? n : k;
    p.x = {nullptr, ScalarType::kBFloat16, m, depth, depth, 1};
    p.y = {nullptr, ScalarType::kBFloat16, m, width, width, 1};
    return gpu::internal::refuseFourBitGemm(p, context) == nullptr;
  };
  BOOST_TEST(asked(8192, 8192, true, 2048));
  BOOST_TEST(asked(16384, 8192, true, 2048), "longer than that");
  BOOST_TEST(!asked(8192, 8192, true, 2049), "a second tile of 2048 rows, with one");
  BOOST_TEST(asked(28672, 8192, true, 4096));
  BOOST_TEST(asked(8192, 8192, false, 4096));
  BOOST_TEST(!asked(11008, 4096, false, 4096), "0.98 times");
  BOOST_TEST(!asked(8192, 8192, false, 4097), "more rows than were measured to gain");
  BOOST_TEST(!asked(8192, 8192, true, 1500), "teams of 4 were not faster forward, and a quarter of a tile is empty");
  BOOST_TEST(!asked(8192, 8192, true, 1024), "not measured: wgmma.decode's");
  BOOST_TEST(!asked(4096, 4096, true, 2048), "0.98 times as fast");
  BOOST_TEST(!asked(11008, 4096, true, 2048), "0.95 times: 43 tiles for 8 teams");
  BOOST_TEST(!asked(4096, 11008, false, 2048), "1.00 times: 43 tiles again");
  BOOST_TEST(asked(11008, 4096, false, 2048));
  BOOST_TEST(asked(14336, 4096, false, 1024));
  BOOST_TEST(!asked(11008, 4096, false, 1024), "0.99 times");
  BOOST_TEST(!asked(8192, 8192, true, 0));
}

// Each product takes nearly all multiprocessors and its blocks wait for one another, so that two of them must not have
// half of the device each; counters start from zero in every replay of a graph.
BOOST_AUTO_TEST_CASE(teamsOfSeveralStreamsAndOfGraphs) {
  Context first, second;
  if (!hasTeams(first)) return;
  const Index m = 2048, n = 2048, k = 256;
  const NF4Matrix host(MatrixXf::Random(n, k));
  const DeviceWeights w(host.quantizedView().weights, first);
  const Operand x(m, k, {}, ScalarType::kHalf, 1, first);
  const std::vector<unsigned char> nan(static_cast<std::size_t>(2 * m * n), 0xff);
  const DeviceBytes once(nan.data(), nan.size(), first), ours(nan.data(), nan.size(), first),
      theirs(nan.data(), nan.size(), second);
  const auto queue = [&](const DeviceBytes& y, Context& context) {
    QuantizedProduct p;
    p.x = constant(x.device());
    p.w = w.view();
    p.y = {y.data(), ScalarType::kHalf, m, n, n, 1};
    BOOST_REQUIRE(kTeam[0].refuse(p, context) == nullptr);
    kTeam[0].run(p, context);
  };
  queue(once, first);
  const std::vector<unsigned char> expected = once.toHost();
  for (int i = 0; i < 20; ++i) {
    queue(ours, first);
    queue(theirs, second);
  }
  BOOST_TEST((ours.toHost() == expected));
  BOOST_TEST((theirs.toHost() == expected));
  gpu::Graph graph(first, [&] { queue(ours, first); });
  for (int replay = 0; replay < 2; ++replay) {
    ours.set(nan);
    graph.launch();
    BOOST_TEST((ours.toHost() == expected));
  }
}

BOOST_AUTO_TEST_CASE(theTableIsAskedAndTellsItsObserver) {
  Context context;
  const NF4Matrix host(MatrixXf::Random(64, 104));  // only dequantize+cublaslt has rows that end inside blocks
  const DeviceWeights w(host.quantizedView().weights, context);
  const Operand x(40, 104, {}, ScalarType::kHalf, 1, context), y(40, 64, {}, ScalarType::kHalf, 2, context);
  const KernelLog log;
  QuantizedProduct p;
  p.x = constant(x.device());
  p.w = w.view();
  p.y = y.device();
  lower(p, context);
  BOOST_TEST(log.products() == 1);
  BOOST_TEST(log.dequantizations() == 0);  // decoding is this product's own affair
  BOOST_TEST(log.denseProducts() == 0);
  lower(DenseProduct{constant(x.device()),
                     constant(x.device().transpose()),
                     Operand(40, 40, {}, ScalarType::kHalf, 3, context).device(),
                     {}},
        context);
  BOOST_TEST(log.denseProducts() == 1);
  context.synchronize();
}

BOOST_AUTO_TEST_CASE(graphsRepeatProducts) {
  Context context;
  const NF4Matrix hostW(MatrixXf::Random(96, 256));
  const DeviceWeights w(hostW.quantizedView().weights, context);
  const Operand b(256, 96, {}, ScalarType::kBFloat16, 2, context);
  const EpilogueCase c = epilogueCases()[8];  // an epilogue of its own, added to Y
  const ResultOperands r(40, 96, {}, {}, ScalarType::kBFloat16, context);
  const Operand inputs[] = {{40, 256, {}, ScalarType::kBFloat16, 5, context},
                            {40, 256, {}, ScalarType::kBFloat16, 6, context},
                            {40, 256, {}, ScalarType::kBFloat16, 7, context}};
  const std::vector<unsigned char>& start = r.y.frame().bytes();
  for (const bool known : {false, true}) {  // whether plans exist before the capture
    for (const bool quantised : {false, true}) {
      const DeviceBytes x(inputs[0].frame().bytes().data(), inputs[0].frame().bytes().size(), context);
      const DeviceBytes result(start.data(), start.size(), context);
      const auto queue = [&] {
        const DenseView y = r.y.deviceAt(result);
        QuantizedProduct p;
        p.x = constant(inputs[0].deviceAt(x));
        p.w = w.view();
        p.y = y;
        p.epilogue = r.on(y, c);
        if (quantised) return lower(p, context);
        lower(DenseProduct{p.x, constant(b.device()), y, p.epilogue}, context);
      };
      if (known) queue();
      const std::size_t plans = context.state().plans().size();
      gpu::Graph graph(context, queue);
      BOOST_TEST(context.state().plans().size() == plans);
      for (const Operand& input : inputs) {
        x.set(input.frame().bytes());
        result.set(start);
        graph.launch();
        context.synchronize();
        const Frame replayed = r.y.frame().with(result.toHost());
        const MatrixXd values = valuesOf(input, 40, 256);
        const MatrixXd weights =
            quantised ? MatrixXd(MatrixXf(hostW).cast<double>().transpose()) : valuesOf(b, 256, 96);
        const MatrixXd sum = values * weights, magnitude = values.cwiseAbs() * weights.cwiseAbs();
        const double relative = relativeError("dequantize+cublaslt", ScalarType::kBFloat16, 256);
        BOOST_TEST(r.compare(
                       c, replayed, [&](Index i, Index j) { return sum(i, j); },
                       [&](Index i, Index j) { return relative * magnitude(i, j); }) == "");
        if (!known) continue;
        // The same plan gives the same bits outside of the graph.
        result.set(start);
        queue();
        BOOST_TEST((result.toHost() == replayed.bytes()));
      }
    }
  }
}

BOOST_AUTO_TEST_SUITE_END()
