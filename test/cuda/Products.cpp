// SPDX-License-Identifier: MPL-2.0
// Every row of the device's tables against exact sums in double: awkward shapes, layouts, scalars and epilogues, twice
// each for the same bits; graphs; the plans of cuBLASLt.
#define BOOST_TEST_MODULE DeviceProducts
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include <src/cuda/context_state.h>
#include <src/cuda/device_lowering.h>
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
using gpu::internal::Gemm;
using gpu::internal::lower;
using gpu::internal::refuseGemm;
using gpu::internal::runGemm;
using internal::DenseView;
using internal::LoweringTable;
using internal::QuantizedProduct;
using internal::WeightView;

namespace {

struct Shape {
  Index m, n, k;
};

/** How far the sums of a row may be from the exact ones, in units of Σ|x||w|. Tensor cores truncate what they add,
 * which costs up to 2⁻²² a term; the others round to nearest. Weights that are rounded to X's scalar cost its roundoff.
 */
double relativeError(const std::string& row, ScalarType scalar, Index depth) {
  const double roundedSum = gammaFloat(depth + 32), u = roundoffOf(scalar);
  const double tensorSum = scalar == ScalarType::kFloat ? roundedSum : static_cast<double>(depth + 64) * 0x1p-22;
  if (row == "reference") return 0;
  if (row == "cublaslt") return tensorSum;
  if (row == "dequantize+cublaslt") return tensorSum + u;
  if (row == "mma.decode") return static_cast<double>(depth + 64) * 0x1p-22 + u;
  return roundedSum;  // simt.decode, int8.*: exact integers, outliers in float
}

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
                Context& context, Counts& counts) {
  const Operand a(s.m, s.k, places[0], scalar, 1, context), b(s.k, s.n, places[1], scalar, 2, context);
  const ResultOperands r(s.m, s.n, places[2], places[3], result, context);
  const MatrixXd x = valuesOf(a, s.m, s.k), w = valuesOf(b, s.k, s.n);
  const Exact exact{x * w, x.cwiseAbs() * w.cwiseAbs()};
  const auto productOn = [&](const DenseView& y, const internal::Epilogue& e) {
    return DenseProduct{constant(a.device()), constant(b.device()), y, e};
  };
  checkTable(deviceDenseLowerings(), productOn, exact, r, c, scalar, s.k, context, describe(s, scalar), counts);
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
                    const EpilogueCase& c, Context& context, Counts& counts) {
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
  checkTable(deviceLowerings(), productOn, exactOf(w.host, transposed, x, s), r, c, scalar, s.k, context,
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

/** Holds a stream until it is told to go on, or for some seconds. */
class Gate {
 public:
  explicit Gate(Context& context) { EIGENQ_CUDA_CHECK(cudaLaunchHostFunc(context.stream(), &Gate::wait, this)); }
  void open() { m_open = true; }

 private:
  static void wait(void* self) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!static_cast<Gate*>(self)->m_open && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::atomic<bool> m_open{false};
};

bool isIdle(const Context& context) { return cudaStreamQuery(context.stream()) == cudaSuccess; }

/** What \a queue puts on the stream, as a graph. */
class Graph {
 public:
  Graph(Context& context, const std::function<void()>& queue) : m_context(context) {
    EIGENQ_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
    queue();
    EIGENQ_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &m_graph));
    EIGENQ_CUDA_CHECK(cudaGraphInstantiate(&m_executable, m_graph, 0));
  }
  ~Graph() {
    (void)cudaGraphExecDestroy(m_executable);
    (void)cudaGraphDestroy(m_graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void replay() {
    EIGENQ_CUDA_CHECK(cudaGraphLaunch(m_executable, m_context.stream()));
    m_context.synchronize();
  }

 private:
  Context& m_context;
  cudaGraph_t m_graph = nullptr;
  cudaGraphExec_t m_executable = nullptr;
};

/** D (m×n) = Aᵀ·B of packed operands with k rows. */
Gemm packedGemm(cudaDataType_t factors, cudaDataType_t result, Index m, Index n, Index k, const DeviceBytes& a,
                const DeviceBytes& b, const DeviceBytes& d) {
  Gemm g;
  g.factors = factors;
  g.result = result;
  g.transposeA = true;
  g.m = m;
  g.n = n;
  g.k = k;
  g.a = a.data();
  g.lda = k;
  g.b = b.data();
  g.ldb = k;
  g.d = d.data();
  g.ldd = m;
  return g;
}

template <typename T>
std::vector<T> contentOf(const DeviceBytes& bytes) {
  const std::vector<unsigned char> raw = bytes.toHost();
  std::vector<T> values(raw.size() / sizeof(T));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

template <typename T>
DeviceBytes upload(const std::vector<T>& values, Context& context) {
  return DeviceBytes(values.data(), values.size() * sizeof(T), context);
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
  expectRuns(counts, {"cublaslt", "reference"});
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
  expectRuns(counts, {"cublaslt", "reference"});
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
  expectRuns(counts, {"cublaslt", "reference"});
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

BOOST_AUTO_TEST_CASE(theTableIsAskedAndTellsItsObserver) {
  Context context;
  const NF4Matrix host(MatrixXf::Random(64, 128));
  const DeviceWeights w(host.quantizedView().weights, context);
  const Operand x(40, 128, {}, ScalarType::kHalf, 1, context), y(40, 64, {}, ScalarType::kHalf, 2, context);
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
      Graph graph(context, queue);
      BOOST_TEST(context.state().plans().size() == plans);
      for (const Operand& input : inputs) {
        EIGENQ_CUDA_CHECK(
            cudaMemcpy(x.data(), input.frame().bytes().data(), input.frame().bytes().size(), cudaMemcpyHostToDevice));
        EIGENQ_CUDA_CHECK(cudaMemcpy(result.data(), start.data(), start.size(), cudaMemcpyHostToDevice));
        graph.replay();
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
        EIGENQ_CUDA_CHECK(cudaMemcpy(result.data(), start.data(), start.size(), cudaMemcpyHostToDevice));
        queue();
        BOOST_TEST((result.toHost() == replayed.bytes()));
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(plansAreMadeOnceForEachShape) {
  Context context;
  const std::vector<float> ones(65 * 65, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 64, 48, 32, a, b, d);
  const auto& plans = context.state().plans();
  runGemm(g, context);
  BOOST_TEST(plans.size() == 1u);
  g.alpha = 2;  // scales decide nothing
  runGemm(g, context);
  BOOST_TEST(plans.size() == 1u);
  BOOST_TEST(contentOf<float>(d)[0] == 64.0f);
  g.k = 31;
  runGemm(g, context);
  BOOST_TEST(plans.size() == 2u);
  g.a = static_cast<const float*>(a.data()) + 1;  // less aligned
  runGemm(g, context);
  BOOST_TEST(plans.size() == 3u);
  g.c = g.d;
  g.ldc = g.ldd;
  runGemm(g, context);
  BOOST_TEST(plans.size() == 4u);
}

BOOST_AUTO_TEST_CASE(aKnownProductWaitsForNothing) {
  Context context;
  const std::vector<float> ones(64 * 64, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  const Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 64, 64, 64, a, b, d);
  runGemm(g, context);
  runGemm(g, context);  // by now its workspace, if any, belongs to the context
  context.synchronize();
  Gate gate(context);
  for (int i = 0; i < 3; ++i) runGemm(g, context);
  BOOST_TEST(!isIdle(context));
  gate.open();
  context.synchronize();
  BOOST_TEST(contentOf<float>(d)[5] == 64.0f);
}

BOOST_AUTO_TEST_CASE(measuringAddsNothingToY) {
  Context context;  // without plans: the first call measures
  const std::vector<float> ones(128 * 128, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 128, 128, 128, a, b, d);
  g.c = g.d;
  g.ldc = g.ldd;
  g.beta = 3;
  runGemm(g, context);
  for (const float v : contentOf<float>(d)) BOOST_REQUIRE_EQUAL(v, 131.0f);
}

BOOST_AUTO_TEST_CASE(integerSumsAreExact) {
  Context context;
  const Index m = 36, n = 20, k = 1024;
  std::vector<std::int8_t> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<std::int8_t>(static_cast<int>(i * 91 % 255) - 127);
  const DeviceBytes deviceA = upload(a, context), deviceB = upload(b, context);
  const DeviceBytes d = upload(std::vector<std::int32_t>(static_cast<std::size_t>(m * n)), context);
  const Gemm g = packedGemm(CUDA_R_8I, CUDA_R_32I, m, n, k, deviceA, deviceB, d);
  BOOST_REQUIRE(!refuseGemm(g));
  runGemm(g, context);
  const std::vector<std::int32_t> found = contentOf<std::int32_t>(d);
  int wrong = 0;
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i < m; ++i) {
      std::int32_t sum = 0;
      for (Index l = 0; l < k; ++l)
        sum += a[static_cast<std::size_t>(i * k + l)] * b[static_cast<std::size_t>(j * k + l)];
      wrong += found[static_cast<std::size_t>(j * m + i)] != sum;
    }
  }
  BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(refusalsAreInWords) {
  Context context;
  const DeviceBytes bytes = upload(std::vector<float>(64 * 64), context);
  const Gemm good = packedGemm(CUDA_R_8I, CUDA_R_32I, 16, 8, 32, bytes, bytes, bytes);
  BOOST_TEST(!refuseGemm(good));
  const auto refused = [&](auto change) {
    Gemm g = good;
    change(g);
    const char* const why = refuseGemm(g);
    if (why) BOOST_TEST_MESSAGE(why);
    return why != nullptr;
  };
  BOOST_TEST(refused([](Gemm& g) { g.k = 30; }));
  BOOST_TEST(refused([](Gemm& g) { g.m = 15; }));
  BOOST_TEST(refused([](Gemm& g) { g.lda = 33; }));
  BOOST_TEST(refused([](Gemm& g) { g.a = static_cast<const char*>(g.a) + 1; }));
  BOOST_TEST(refused([](Gemm& g) { g.transposeA = false; }));
  BOOST_TEST(refused([](Gemm& g) { g.alpha = 2; }));
  BOOST_TEST(refused([](Gemm& g) { g.result = CUDA_R_32F; }));
  BOOST_TEST(refused([](Gemm& g) { g.k = g.lda = g.ldb = (Index{1} << 17) + 4; }));
  BOOST_TEST(refused([](Gemm& g) { g.n = Index{1} << 31; }));
  BOOST_TEST(refused([](Gemm& g) { g.ldd = 15; }));
  BOOST_TEST(refused([](Gemm& g) { g.factors = CUDA_R_64F; }));
}

BOOST_AUTO_TEST_SUITE_END()
