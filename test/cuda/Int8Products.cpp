// SPDX-License-Identifier: MPL-2.0
// Products with int8 weights on the device: every way directly, against the host library. LLM.int8() scales exact sums
// in double on both sides, so that without outliers and epilogue the bits agree, but for the way that scales in float.
#define BOOST_TEST_MODULE cudaInt8Products
#include <boost/test/unit_test.hpp>

#include "Device.h"
#include "Upload.h"
#include "support/Bounds.h"

#include "../../src/cuda/int8_product.h"
#include "../../src/cuda/wgmma_decode.h"

#include <eigen_q/Core>
#include <eigen_q/src/Int8Product.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace EigenQ;
using namespace EigenQ::test;
using EigenQ::gpu::Context;
using EigenQ::gpu::internal::copyCodes;
using EigenQ::gpu::internal::DeviceDecomposedProduct;
using EigenQ::gpu::internal::Scratch;
using EigenQ::internal::BiasAxis;
using EigenQ::internal::ConstDenseView;
using EigenQ::internal::DenseView;
using EigenQ::internal::Epilogue;
using EigenQ::internal::Int8Activations;
using EigenQ::internal::Int8Product;
using EigenQ::internal::QuantizedProduct;
using EigenQ::internal::WeightView;

namespace ours = EigenQ::gpu::internal;

namespace {

using Random = std::mt19937;

enum class Layout { kRowMajor, kColMajor, kPaddedRows, kEveryOther };

/** A dense matrix in memory of its own, with what lies around it. */
template <typename S>
struct Dense {
  Index rows, cols, rowStride, colStride, offset;
  std::vector<S> storage;

  Dense(Index r, Index c, Layout layout) : rows(r), cols(c), rowStride(c), colStride(1), offset(0) {
    if (layout == Layout::kColMajor) {
      rowStride = 1;
      colStride = r;
    } else if (layout == Layout::kPaddedRows) {
      rowStride = c + 3;
      offset = 1;
    } else if (layout == Layout::kEveryOther) {
      colStride = 2;
      rowStride = 2 * c + 1;
    }
    const Index last = r == 0 || c == 0 ? 0 : (r - 1) * rowStride + (c - 1) * colStride + 1;
    storage.assign(static_cast<std::size_t>(offset + last), S(-77));
  }
  S& operator()(Index i, Index j) { return storage[static_cast<std::size_t>(offset + i * rowStride + j * colStride)]; }
  const S& operator()(Index i, Index j) const { return const_cast<Dense&>(*this)(i, j); }
  void fill(Random& random, float size) {
    std::normal_distribution<float> normal(0, size);
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) (*this)(i, j) = S(normal(random));
    }
  }
  template <typename Void>
  internal::BasicDenseView<Void> view(Void* base) const {
    using Byte = std::conditional_t<std::is_const<Void>::value, const char, char>;
    return {static_cast<Byte*>(base) + offset * static_cast<Index>(sizeof(S)),
            internal::ScalarTypeOf<S>::value,
            rows,
            cols,
            rowStride,
            colStride};
  }
};

/** int8 codes and their absmax; rows lie \a stride apart, \a offset codes behind an aligned address. */
struct Weights {
  Index rows, cols, stride, offset;
  std::vector<std::int8_t> codes;
  std::vector<float> absmax;

  Weights(Index n, Index k, Index padding, Index start, Random& random)
      : rows(n),
        cols(k),
        stride(k + padding),
        offset(start),
        codes(static_cast<std::size_t>(start + n * (k + padding))),
        absmax(static_cast<std::size_t>(n)) {
    std::uniform_int_distribution<int> code(-127, 127);
    std::uniform_real_distribution<float> size(0.25f, 4.0f);
    for (auto& c : codes) c = static_cast<std::int8_t>(code(random));
    for (auto& a : absmax) a = size(random);
  }
  WeightView view(const std::int8_t* base, const float* stats) const {
    return WeightView::int8(base + offset, rows, cols, stride, stats);
  }
};

struct Shape {
  Index m, n, k;
};

/** What varies beside the shape. */
struct Options {
  Layout x = Layout::kRowMajor;
  Layout y = Layout::kRowMajor;
  Index padding = 0;  // of rows of W
  Index offset = 0;   // of W
  float threshold = 0;
  Index outliers = 0;  // columns with one
  bool epilogue = false;
  Activation activation = Activation::kRelu;  // of the epilogue
  BiasAxis biasAxis = BiasAxis::kPerCol;      // the same
  bool int8Activations = true;
};

/** A product, with its operands here and on the device. */
template <typename S>
struct Case {
  Shape shape;
  Options options;
  Random random{1};
  Weights w;
  Dense<S> x, y, residual;
  std::vector<S> bias;

  Case(const Shape& s, const Options& o)
      : shape(s),
        options(o),
        w(s.n, s.k, o.padding, o.offset, random),
        x(s.m, s.k, o.x),
        y(s.m, s.n, o.y),
        residual(s.m, s.n, o.y),
        bias(static_cast<std::size_t>(std::max(s.m, s.n))) {
    x.fill(random, 1);
    residual.fill(random, 1);
    for (auto& b : bias) b = S(std::normal_distribution<float>(0, 1)(random));
    plantOutliers();
  }

  void plantOutliers() {
    if (shape.k == 0 || shape.m == 0) return;
    for (Index o = 0; o < options.outliers; ++o) {
      const Index k =
          options.outliers >= shape.k ? o % shape.k : static_cast<Index>(random() % static_cast<unsigned>(shape.k));
      x(static_cast<Index>(random() % static_cast<unsigned>(shape.m)), k) = S(o % 2 ? -20.0f : 11.0f);
    }
  }

  QuantizedProduct product(const void* xAt, const std::int8_t* codes, const float* absmax, void* yAt,
                           const void* biasAt, const void* residualAt) const {
    QuantizedProduct p;
    p.x = x.view(xAt);
    p.w = w.view(codes, absmax);
    p.w.int8Activations = options.int8Activations;
    p.w.outlierThreshold = options.threshold;
    p.y = y.view(yAt);
    if (options.epilogue) {
      p.epilogue.alpha = 0.5f;
      p.epilogue.biasAxis = options.biasAxis;
      p.epilogue.bias = biasAt;
      p.epilogue.activation = options.activation;
      p.epilogue.upper = 20;
      p.epilogue.sign = -1;
      p.epilogue.residual = residual.view(residualAt);
      p.epilogue.residualSign = -1;
    }
    return p;
  }
  /** On the host. */
  QuantizedProduct product(Dense<S>& result) const {
    return product(x.storage.data(), w.codes.data(), w.absmax.data(), result.storage.data(), bias.data(),
                   residual.storage.data());
  }
};

/** The operands of a case on the device. */
template <typename S>
struct DeviceCase {
  DeviceArray<S> x, y, residual, bias;
  DeviceArray<std::int8_t> codes;
  DeviceArray<float> absmax;
  QuantizedProduct product;

  explicit DeviceCase(const Case<S>& c)
      : x(c.x.storage),
        y(c.y.storage),
        residual(c.residual.storage),
        bias(c.bias),
        codes(c.w.codes),
        absmax(c.w.absmax),
        product(c.product(x.data(), codes.data(), absmax.data(), y.data(), bias.data(), residual.data())) {}
};

struct Row {
  const char* name;
  const char* (*refuse)(const QuantizedProduct&, const Context&);
  void (*run)(const QuantizedProduct&, Context&);
  bool hostBits;  // scales as the host does
};
const Row kRows[] = {
    {"int8.stream", ours::refuseInt8Stream, ours::runInt8Stream, true},
    {"int8.decode.fused", ours::refuseInt8DecodeFused, ours::runInt8DecodeFused, true},
    {"int8.decode", ours::refuseInt8Decode, ours::runInt8Decode, true},
    {"int8.wgmma", ours::refuseInt8Wgmma, ours::runInt8Wgmma, false},
    {"int8.cublaslt", ours::refuseInt8CublasLt, ours::runInt8CublasLt, true},
    {"int8.reference", ours::refuseInt8Reference, ours::runInt8Reference, true},
};
enum : int { kStream, kFused, kDecode, kWgmma, kCublasLt, kReference, kRowCount };
static_assert(sizeof(kRows) / sizeof(kRows[0]) == kRowCount, "a number for each row");

std::string describe(const Shape& s, const Options& o) {
  return "m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " + std::to_string(s.k) + " x " +
         std::to_string(int(o.x)) + " y " + std::to_string(int(o.y)) + " padding " + std::to_string(o.padding) +
         " offset " + std::to_string(o.offset) + " threshold " + std::to_string(o.threshold) + " outliers " +
         std::to_string(o.outliers) + (o.epilogue ? " epilogue" : "");
}

/** Σ|x||w| over the outlier columns, the magnitude that the float sum of a value of Y is judged by. */
template <typename S>
Eigen::ArrayXXd outlierSizes(const Case<S>& c, const std::vector<Index>& columns) {
  Eigen::ArrayXXd sizes = Eigen::ArrayXXd::Zero(c.shape.m, c.shape.n);
  const WeightView w = c.w.view(c.w.codes.data(), c.w.absmax.data());
  for (const Index k : columns) {
    for (Index i = 0; i < c.shape.m; ++i) {
      const double x = std::abs(static_cast<double>(static_cast<float>(c.x(i, k))));
      for (Index j = 0; j < c.shape.n; ++j) sizes(i, j) += x * std::abs(static_cast<double>(w.coeff(j, k)));
    }
  }
  return sizes;
}

/** What int8.wgmma may be off by beside that, with outliers in 16 bits: of the other values of their columns it
 * multiplies what the codes left, at most half a step, rounded to S. */
template <typename S>
Eigen::ArrayXXd roundedRests(const Case<S>& c, const Int8Activations& a) {
  Eigen::ArrayXXd rests = Eigen::ArrayXXd::Zero(c.shape.m, c.shape.n);
  if (sizeof(S) != 2) return rests;
  const WeightView w = c.w.view(c.w.codes.data(), c.w.absmax.data());
  for (const Index k : a.outliers) {
    for (Index i = 0; i < c.shape.m; ++i) {
      if (std::abs(static_cast<float>(c.x(i, k))) >= c.options.threshold) continue;
      const double rest = unitRoundoff<S>() * a.rowStats[i] / 127 / 2;
      for (Index j = 0; j < c.shape.n; ++j) rests(i, j) += rest * std::abs(static_cast<double>(w.coeff(j, k)));
    }
  }
  return rests;
}

bool bothNaNOrEqual(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

/** How far two results may be apart where they are finite: each side rounds once to S, and sums \a terms and scales in
 * float, where nothing exceeds \a size. */
template <typename S>
double tolerance(double expected, double size, Index terms) {
  return 2 * unitRoundoff<S>() * std::abs(expected) + 2 * gammaFloat(terms + 8) * size + smallestError<S>();
}

/** Compares with the host, entry by entry, and what lies between the entries with what was there. */
template <typename S>
void expectAgreement(const std::string& what, const Case<S>& c, const std::vector<S>& found, const Dense<S>& expected,
                     const Eigen::ArrayXXd& sizes, Index terms, bool sameBits, const Eigen::ArrayXXd* rests = nullptr) {
  Dense<S> y = c.y;
  y.storage = found;
  Index wrong = 0;
  std::string first;
  for (Index i = 0; i < c.shape.m; ++i) {
    for (Index j = 0; j < c.shape.n; ++j) {
      const double a = static_cast<float>(y(i, j)), b = static_cast<float>(expected(i, j));
      bool right = bothNaNOrEqual(a, b);
      if (!right && !sameBits && std::isfinite(a) && std::isfinite(b)) {
        // Of the sum, the integer part is what the result and the float part leave. Epilogues here do not magnify; bias
        // and residual are below 8, and the lower bound hides at most what the float part and these add up to.
        const double size = std::abs(b) + 2 * sizes(i, j) + (c.options.epilogue ? 64 : 0);
        right = std::abs(a - b) <= tolerance<S>(b, size, terms) + (rests ? (*rests)(i, j) : 0);
      }
      if (!right && wrong++ == 0)
        first = "(" + std::to_string(i) + ", " + std::to_string(j) + ") is " + std::to_string(a) + ", expected " +
                std::to_string(b);
      y(i, j) = expected(i, j);
    }
  }
  BOOST_TEST(wrong == 0, what << ": " << wrong << " of " << c.shape.m * c.shape.n << " wrong, the first " << first);
  const bool untouched = std::equal(y.storage.begin(), y.storage.end(), expected.storage.begin(),
                                    [](S a, S b) { return std::memcmp(&a, &b, sizeof(S)) == 0 || (a != a && b != b); });
  BOOST_TEST(untouched, what << ": wrote beside Y");
}

struct Tally {
  int ran[kRowCount] = {};
  void report() const {
    for (int r = 0; r < kRowCount; ++r) BOOST_TEST_MESSAGE(kRows[r].name << ": " << ran[r] << " products");
  }
};

/** Every row that takes the case, against the host. */
template <typename S>
void check(const Case<S>& c, Context& context, Tally& tally) {
  Dense<S> expected = c.y;
  const QuantizedProduct host = c.product(expected);
  const Int8Activations a = internal::quantizeActivations(host.x, host.w.outlierThreshold);
  internal::DecomposedProduct d;
  d.activations = &a;
  d.x = host.x;
  d.w = host.w;
  d.y = host.y;
  d.epilogue = host.epilogue;
  internal::multiplyDecomposed(d);
  const Index count = static_cast<Index>(a.outliers.size());
  const Eigen::ArrayXXd sizes = outlierSizes(c, a.outliers), rests = roundedRests(c, a);

  DeviceCase<S> onDevice(c);
  for (int r = 0; r < kRowCount; ++r) {
    if (kRows[r].refuse(onDevice.product, context)) continue;
    onDevice.y.upload(c.y.storage);
    kRows[r].run(onDevice.product, context);
    ++tally.ran[r];
    const bool sameBits = kRows[r].hostBits && count == 0 && !c.options.epilogue;
    expectAgreement(kRows[r].name + (": " + describe(c.shape, c.options)), c, onDevice.y.toHost(context), expected,
                    sizes, count, sameBits, r == kWgmma ? &rests : nullptr);
  }
}

const Shape kShapes[] = {
    {3, 5, 0},        {40, 5, 0},      {1, 1, 1},       {1, 3, 15},      {2, 16, 16},     {3, 17, 17},
    {4, 15, 31},      {5, 32, 32},     {7, 33, 33},     {8, 64, 63},     {9, 65, 64},     {15, 63, 65},
    {16, 31, 127},    {17, 128, 128},  {31, 129, 129},  {33, 127, 256},  {40, 130, 64},   {127, 257, 48},
    {128, 256, 64},   {129, 260, 144}, {300, 513, 320}, {2, 4096, 4096}, {1, 4099, 4097}, {64, 520, 2048},
    {130, 300, 4112}, {16, 48, 4100},  {1, 9000, 64},   {3, 9001, 2064}, {8, 70, 4096},   {0, 4, 4},
    {4, 0, 4},
};

}  // namespace

BOOST_AUTO_TEST_CASE(everyWayAgreesWithTheHost, *needsDevice()) {
  Context context;
  Tally tally;
  for (const Shape& shape : kShapes) {
    for (const float threshold : {0.0f, 6.0f}) {
      Options o;
      o.threshold = threshold;
      o.outliers = threshold > 0 ? 3 : 0;
      check(Case<Eigen::half>(shape, o), context, tally);
      o.epilogue = true;
      check(Case<float>(shape, o), context, tally);
      o.activation = Activation::kNone;
      check(Case<Eigen::half>(shape, o), context, tally);
      o.y = Layout::kColMajor;
      o.x = Layout::kColMajor;
      check(Case<Eigen::bfloat16>(shape, o), context, tally);
      o.epilogue = false;
      check(Case<float>(shape, o), context, tally);
    }
  }
  tally.report();
  for (const int r : {kFused, kDecode, kCublasLt, kReference})
    BOOST_TEST(tally.ran[r] > 0, kRows[r].name << " took no case at all");
  if (context.properties().major != 9) return;
  for (const int r : {kStream, kWgmma}) BOOST_TEST(tally.ran[r] > 0, kRows[r].name << " took no case at all");
}

BOOST_AUTO_TEST_CASE(anyStridesAndAlignment, *needsDevice()) {
  Context context;
  Tally tally;
  for (const Shape& shape : {Shape{3, 70, 64}, Shape{40, 131, 80}, Shape{140, 268, 160}}) {
    for (const Layout x : {Layout::kRowMajor, Layout::kPaddedRows, Layout::kEveryOther}) {
      for (const Layout y : {Layout::kColMajor, Layout::kPaddedRows, Layout::kEveryOther}) {
        Options o;
        o.x = x;
        o.y = y;
        o.threshold = 6;
        o.outliers = 2;
        o.epilogue = true;
        check(Case<Eigen::bfloat16>(shape, o), context, tally);
        o.padding = 16;
        check(Case<float>(shape, o), context, tally);
        o.offset = 3;
        o.padding = 5;
        check(Case<Eigen::half>(shape, o), context, tally);
      }
    }
  }
  tally.report();
}

BOOST_AUTO_TEST_CASE(anyNumberOfOutliers, *needsDevice()) {
  Context context;
  Tally tally;
  for (const Shape& shape : {Shape{5, 67, 160}, Shape{133, 262, 160}, Shape{48, 130, 2080}, Shape{133, 262, 400}}) {
    for (const Index outliers : {0, 1, 7, 16, 17, 32, 33, 63, 64, 65, 100, 160, 400}) {
      if (outliers > shape.k) continue;
      Options o;
      o.threshold = 6;
      o.outliers = outliers;
      check(Case<float>(shape, o), context, tally);
      check(Case<Eigen::half>(shape, o), context, tally);
      o.y = Layout::kColMajor;
      check(Case<Eigen::bfloat16>(shape, o), context, tally);
    }
  }
  tally.report();
}

BOOST_AUTO_TEST_CASE(manyTiles, *needsDevice()) {
  // More tiles than multiprocessors, in two columns of the raster of which the second is lower; rings of stages that
  // run on from tile to tile.
  Context context;
  Tally tally;
  for (const Shape& shape : {Shape{2200, 2104, 64}, Shape{2200, 2101, 400}, Shape{300, 9000, 144}}) {
    for (const Layout y : {Layout::kRowMajor, Layout::kColMajor}) {
      Options o;
      o.y = y;
      check(Case<Eigen::half>(shape, o), context, tally);
      o.threshold = 6;
      o.outliers = 9;
      check(Case<Eigen::bfloat16>(shape, o), context, tally);
      o.epilogue = true;
      o.activation = Activation::kNone;
      check(Case<float>(shape, o), context, tally);
    }
  }
  // In tiles of 256 columns: outliers of two chunks, that wait at once, and of three.
  for (const Index outliers : {20, 40}) {
    Options o;
    o.threshold = 6;
    o.outliers = outliers;
    check(Case<Eigen::half>({300, 9000, 144}, o), context, tally);
    o.epilogue = true;
    o.activation = Activation::kNone;
    check(Case<Eigen::bfloat16>({300, 9000, 144}, o), context, tally);
  }
  tally.report();
}

BOOST_AUTO_TEST_CASE(manySlabs, *needsDevice()) {
  // Two slabs of columns and a last one of three: 2^23 sums are 8192 columns of 1024 rows.
  Context context;
  Tally tally;
  Options o;
  o.threshold = 6;
  o.outliers = 2;
  check(Case<Eigen::half>({1024, 9 * 1024 + 3, 32}, o), context, tally);
  o.y = Layout::kColMajor;
  check(Case<Eigen::half>({1024, 9 * 1024 + 3, 32}, o), context, tally);
  // More rows than a slab has.
  check(Case<Eigen::half>({(Index{1} << 15) + 6, 260, 16}, o), context, tally);
  o.y = Layout::kRowMajor;
  check(Case<Eigen::half>({(Index{1} << 15) + 6, 260, 16}, o), context, tally);
}

BOOST_AUTO_TEST_CASE(fullScaleSumsAreExact, *needsDevice()) {
  // All codes 127 at the greatest depth: 2^17·127² is just below 2^31. Beyond, only the reference remains.
  Context context;
  Tally tally;
  for (const Index k : {internal::kInt8MaxDepth, internal::kInt8MaxDepth + 16}) {
    for (const Index m : {2, 20}) {
      Case<float> c({m, 20, k}, Options());
      std::fill(c.w.codes.begin(), c.w.codes.end(), std::int8_t{127});
      std::fill(c.x.storage.begin(), c.x.storage.end(), 3.0f);
      check(c, context, tally);
    }
  }
  BOOST_TEST((tally.ran[kDecode] == 1 && tally.ran[kCublasLt] == 2 && tally.ran[kReference] == 4));
}

BOOST_AUTO_TEST_CASE(specialValues, *needsDevice()) {
  Context context;
  Tally tally;
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Index m : {4, 40, 200}) {
    for (const float threshold : {0.0f, 6.0f}) {
      Options o;
      o.threshold = threshold;
      Case<float> c({m, 64, 96}, o);
      c.x(0, 5) = nan;
      c.x(1, 7) = infinity;
      c.x(2, 9) = -infinity;
      for (Index k = 0; k < 96; ++k) c.x(3, k) = 0;
      c.w.absmax[3] = nan;
      c.w.absmax[4] = infinity;
      c.w.absmax[5] = 0;
      c.w.absmax[6] = 1e-38f;
      c.w.absmax[7] = 3e38f;
      check(c, context, tally);
    }
    // Statistics whose product leaves the range of float, while results do not.
    Case<float> wide({m, 64, 96}, Options());
    for (Index k = 0; k < 96; ++k) {
      wide.x(0, k) *= 1e35f;
      wide.x(1, k) *= 1e-35f;
    }
    wide.w.absmax[1] = 1e-36f;
    wide.w.absmax[2] = 1e36f;
    check(wide, context, tally);
  }
}

BOOST_AUTO_TEST_CASE(sameBitsFromRunToRunAndInAGraph, *needsDevice()) {
  Context context;
  int captured = 0;
  for (const Shape& shape : {Shape{7, 300, 512}, Shape{200, 520, 512}, Shape{200, 523, 500}}) {
    Options o;
    o.threshold = 6;
    o.outliers = 70;
    o.epilogue = true;
    const Case<Eigen::half> c(shape, o);
    DeviceCase<Eigen::half> d(c);
    for (const Row& row : kRows) {
      if (row.refuse(d.product, context)) continue;
      row.run(d.product, context);
      row.run(d.product, context);  // by now the scratch memory fits
      const auto first = d.y.toHost(context);
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      EIGENQ_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
      row.run(d.product, context);
      EIGENQ_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
      EIGENQ_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
      for (int replay = 0; replay < 3; ++replay) {
        d.y.upload(c.y.storage);
        EIGENQ_CUDA_CHECK(cudaGraphLaunch(executable, context.stream()));
        const auto again = d.y.toHost(context);
        BOOST_TEST(std::memcmp(first.data(), again.data(), first.size() * sizeof(first[0])) == 0,
                   row.name << ": a replay differs");
      }
      EIGENQ_CUDA_CHECK(cudaGraphExecDestroy(executable));
      EIGENQ_CUDA_CHECK(cudaGraphDestroy(graph));
      ++captured;
    }
  }
  BOOST_TEST(captured >= 8);
}

BOOST_AUTO_TEST_CASE(outlierWeightsOfTheirOwn, *needsDevice()) {
  Context context;
  for (const Index m : {6, 70, 150}) {
    Options o;
    o.threshold = 6;
    o.outliers = 66;
    const Case<float> c({m, 256, 160}, o);
    Dense<float> full(256, 160, Layout::kColMajor);
    Random random(2);
    full.fill(random, 1);
    Dense<float> expected = c.y;
    const QuantizedProduct host = c.product(expected);
    const Int8Activations a = internal::quantizeActivations(host.x, 6);
    internal::DecomposedProduct h;
    h.activations = &a;
    h.x = host.x;
    h.w = host.w;
    h.outlierWeights = full.view<const void>(full.storage.data());
    h.y = host.y;
    internal::multiplyDecomposed(h);

    DeviceCase<float> d(c);
    DeviceArray<float> fullOnDevice(full.storage);
    Scratch scratch(context);
    DeviceDecomposedProduct p;
    p.activations = ours::quantizeActivations(d.product.x, 6, scratch, context);
    p.x = d.product.x;
    p.w = d.product.w;
    p.outlierWeights = full.view<const void>(fullOnDevice.data());
    p.y = d.product.y;
    Eigen::ArrayXXd sizes = Eigen::ArrayXXd::Zero(m, 256);
    for (const Index k : a.outliers) {
      for (Index i = 0; i < m; ++i) {
        for (Index n = 0; n < 256; ++n) sizes(i, n) += std::abs(double(c.x(i, k)) * full(n, k));
      }
    }
    for (const auto& row : ours::deviceDecomposedLowerings()) {
      if (row.refuse(p, context)) continue;
      d.y.upload(c.y.storage);
      row.run(p, context);
      expectAgreement(row.name, c, d.y.toHost(context), expected, sizes, static_cast<Index>(a.outliers.size()), false);
    }
  }
}

namespace {

template <typename S>
Eigen::VectorXd normsOfRows(const Dense<S>& x) {
  Eigen::VectorXd squares = Eigen::VectorXd::Zero(x.rows);
  for (Index i = 0; i < x.rows; ++i) {
    for (Index k = 0; k < x.cols; ++k) squares[i] += std::pow(static_cast<double>(static_cast<float>(x(i, k))), 2);
  }
  return squares.cwiseSqrt();
}
Eigen::VectorXd normsOfRows(const Weights& w) {
  const WeightView view = w.view(w.codes.data(), w.absmax.data());
  Eigen::VectorXd squares = Eigen::VectorXd::Zero(w.rows);
  for (Index j = 0; j < w.rows; ++j) {
    for (Index k = 0; k < w.cols; ++k) squares[j] += std::pow(static_cast<double>(view.coeff(j, k)), 2);
  }
  return squares.cwiseSqrt();
}

/** Runs \a row on X as it is and compares with the host, twice. A sum is judged by the norms of its factors, which no
 * sum of magnitudes exceeds. \returns false if the row refuses */
template <typename S>
bool agreesWithoutQuantisingX(const Row& row, const Case<S>& c, Context& context) {
  DeviceCase<S> d(c);
  if (row.refuse(d.product, context)) return false;
  Dense<S> expected = c.y;
  const QuantizedProduct host = c.product(expected);
  internal::lower(host);
  const Eigen::ArrayXXd sizes = (normsOfRows(c.x) * normsOfRows(c.w).transpose()).array();
  row.run(d.product, context);
  const auto found = d.y.toHost(context);
  // Tensor cores truncate: two units a term. The host decodes with two roundings a weight.
  expectAgreement(row.name + (": " + describe(c.shape, c.options)), c, found, expected, sizes, 2 * c.shape.k, false);
  d.y.upload(c.y.storage);
  row.run(d.product, context);
  BOOST_TEST(std::memcmp(d.y.toHost(context).data(), found.data(), found.size() * sizeof(S)) == 0,
             row.name << ": " << describe(c.shape, c.options) << ": other bits in a second run");
  return true;
}

constexpr Row kWeightOnlyDecode = {"int8.decode.weightonly", ours::refuseInt8WeightOnlyDecode,
                                   ours::runInt8WeightOnlyDecode, false};
constexpr Row kWeightOnlyWgmma = {"int8.wgmma.weightonly", ours::refuseInt8WeightOnlyWgmma,
                                  ours::runInt8WeightOnlyWgmma, false};

}  // namespace

BOOST_AUTO_TEST_CASE(weightsOnly, *needsDevice()) {
  Context context;
  int ran = 0;
  for (const Shape& shape : kShapes) {
    if (shape.m > 20) continue;
    for (const bool epilogue : {false, true}) {
      for (const Layout x : {Layout::kRowMajor, Layout::kColMajor, Layout::kPaddedRows}) {
        Options o;
        o.int8Activations = false;
        o.epilogue = epilogue;
        o.x = x;
        o.y = x;
        const auto check = [&](const auto& c) {
          const bool runs = agreesWithoutQuantisingX(kWeightOnlyDecode, c, context);
          BOOST_TEST((runs || shape.m > 16));
          ran += runs;
        };
        check(Case<float>(shape, o));
        check(Case<Eigen::half>(shape, o));
        check(Case<Eigen::bfloat16>(shape, o));
        o.padding = o.offset = 1;
        check(Case<float>(shape, o));
      }
    }
  }
  BOOST_TEST(ran > 0);
}

/** Tiles in one round and in several, shared by blocks of a cluster and by a second kernel, cut off at every side. */
BOOST_AUTO_TEST_CASE(weightsOnlyOfManyRows, *needsDevice()) {
  Context context;
  std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
  shapes.insert(shapes.end(), {{17, 1, 16},
                               {20, 17000, 128},
                               {32, 4400, 640},
                               {64, 1100, 1040},
                               {100, 700, 1168},
                               {257, 500, 528},
                               {300, 9000, 16},
                               {1024, 300, 272}});
  int ran = 0;
  for (const Shape& shape : shapes) {
    if (shape.m < 17 || shape.k == 0) continue;
    for (const Layout x : {Layout::kRowMajor, Layout::kColMajor, Layout::kPaddedRows, Layout::kEveryOther}) {
      Options o;
      o.int8Activations = false;
      o.x = o.y = x;
      o.epilogue = x == Layout::kColMajor || x == Layout::kPaddedRows;
      if (x == Layout::kPaddedRows) o.activation = Activation::kNone;
      if (x != Layout::kRowMajor) o.padding = 16;
      if (x == Layout::kEveryOther) o.offset = 32;
      const auto check = [&](const auto& c) {
        const bool runs = agreesWithoutQuantisingX(kWeightOnlyWgmma, c, context);
        BOOST_TEST((runs || shape.k % 16 != 0 || context.properties().major != 9));
        ran += runs;
      };
      check(Case<Eigen::half>(shape, o));
      check(Case<Eigen::bfloat16>(shape, o));
    }
  }
  BOOST_TEST((ran > 0 || context.properties().major != 9));
}

/** More rows of X than are packed together. */
BOOST_AUTO_TEST_CASE(weightsOnlyOfMoreRowsThanAtOnce, *needsDevice()) {
  Context context;
  if (context.properties().major != 9) return;
  Options o;
  o.int8Activations = false;
  o.epilogue = true;
  o.biasAxis = BiasAxis::kPerRow;
  o.x = o.y = Layout::kPaddedRows;
  BOOST_TEST(agreesWithoutQuantisingX(kWeightOnlyWgmma, Case<Eigen::bfloat16>({4099, 8200, 48}, o), context));
}

BOOST_AUTO_TEST_CASE(weightsOnlyWithSpecialValues, *needsDevice()) {
  Context context;
  Options o;
  o.int8Activations = false;
  Case<float> c({6, 32, 48}, o);
  c.x(0, 5) = std::numeric_limits<float>::quiet_NaN();
  c.x(1, 7) = std::numeric_limits<float>::infinity();
  for (Index k = 0; k < 48; ++k) {
    c.x(2, k) *= 1e36f;   // a sum with codes would leave the range of float
    c.x(3, k) *= 1e-30f;  // and the three parts of a value would fall below it
  }
  for (auto& a : c.w.absmax) a *= 1e-3f;
  c.w.absmax[3] = std::numeric_limits<float>::quiet_NaN();
  Dense<float> expected = c.y;
  const QuantizedProduct host = c.product(expected);
  internal::lower(host);
  DeviceCase<float> d(c);
  ours::runInt8WeightOnlyDecode(d.product, context);
  Dense<float> y = c.y;
  y.storage = d.y.toHost(context);
  for (Index i = 0; i < 6; ++i) {
    for (Index j = 0; j < 32; ++j) {
      double size = 0;
      for (Index k = 0; k < 48; ++k) size += std::abs(double(c.x(i, k)) * host.w.coeff(j, k));
      const double a = y(i, j), b = expected(i, j);
      BOOST_TEST((bothNaNOrEqual(a, b) || std::abs(a - b) <= 4 * gammaFloat(60) * size),
                 "(" << i << ", " << j << ") is " << a << ", expected " << b);
    }
  }
}

BOOST_AUTO_TEST_CASE(integerProducts, *needsDevice()) {
  Context context;
  Random random(3);
  for (const Shape& s : kShapes) {
    for (const bool colMajor : {false, true}) {
      const Weights a(s.m, s.k, colMajor ? 0 : 16, 0, random), b(s.n, s.k, 0, colMajor ? 1 : 0, random);
      std::vector<std::int32_t> expected(static_cast<std::size_t>(s.m * s.n), -1);
      const DeviceArray<std::int8_t> aThere(a.codes), bThere(b.codes);
      const DeviceArray<std::int32_t> cThere(expected);
      Int8Product p;
      p.a = a.codes.data() + a.offset;
      p.aStride = a.stride;
      p.b = b.codes.data() + b.offset;
      p.bStride = b.stride;
      p.c = expected.data();
      p.cRowStride = colMajor ? 1 : s.n;
      p.cColStride = colMajor ? s.m : 1;
      p.m = s.m;
      p.n = s.n;
      p.k = s.k;
      if (s.m > 0 && s.n > 0) internal::lower(p);
      p.a = aThere.data() + a.offset;
      p.b = bThere.data() + b.offset;
      p.c = cThere.data();
      ours::int8Gemm(p, context);
      BOOST_TEST((cThere.toHost(context) == expected), "int8Gemm: m " << s.m << " n " << s.n << " k " << s.k);
    }
  }
}

BOOST_AUTO_TEST_CASE(codesAreTransposedAndPadded, *needsDevice()) {
  Context context;
  Random random(4);
  const Weights a(37, 21, 2, 1, random);
  const DeviceArray<std::int8_t> there(a.codes), out(std::vector<std::int8_t>(24 * 48, 9));
  copyCodes(there.data() + a.offset, 1, a.stride, a.cols, a.rows, out.data(), 24, 48, context);
  const auto found = out.toHost(context);
  bool right = true;
  for (Index i = 0; i < 24; ++i) {
    for (Index j = 0; j < 48; ++j) {
      const std::int8_t expected =
          i < 21 && j < 37 ? a.codes[static_cast<std::size_t>(a.offset + j * a.stride + i)] : std::int8_t{0};
      right = right && found[static_cast<std::size_t>(i * 48 + j)] == expected;
    }
  }
  BOOST_TEST(right);
}
