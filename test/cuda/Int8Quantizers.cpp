// SPDX-License-Identifier: MPL-2.0
// int8 by rows and columns on the device against the host, bit for bit.
#define BOOST_TEST_MODULE cuda_Int8Quantizers
#include "Device.h"

#include <eigen_q/src/Int8Product.h>
#include <eigen_q/src/Quantizers.h>

#include <src/cuda/quantizers.h>

#include "Samples.h"

using namespace EigenQ;
using namespace EigenQ::test;
using gpu::Context;
using gpu::internal::DeviceOutliers;

namespace {

struct Shape {
  Index rows, cols;
};

/** Around the values of a lane (8), a warp's row (1024) and a strip of columns (64 rows, 256 columns). */
constexpr Shape kShapes[] = {{1, 1},   {3, 7},   {5, 8},   {7, 9},    {64, 33},  {65, 64},
                             {2, 255}, {9, 257}, {130, 3}, {3, 1023}, {2, 1025}, {63, 511}};
constexpr float kThresholds[] = {0.0f, 3.0f, 0.02f, std::numeric_limits<float>::infinity()};

std::size_t count(Index n) { return static_cast<std::size_t>(n); }

enum class Axis { kRows, kCols };

/** DeviceOutliers and its memory. */
struct OutlierMemory {
  DeviceArray<std::uint8_t> mask;
  DeviceArray<int> columns, count;

  explicit OutlierMemory(Index cols)
      : mask(static_cast<std::size_t>(cols)), columns(static_cast<std::size_t>(cols)), count(1) {}
  DeviceOutliers view() { return {mask.data(), columns.data(), count.data()}; }

  std::vector<Index> listed(Context& context) const {
    const int n = count.toHost(context)[0];
    const std::vector<int> all = columns.toHost(context);
    return {all.begin(), all.begin() + n};
  }
  std::vector<Index> marked(Context& context) const {
    std::vector<Index> found;
    const std::vector<std::uint8_t> all = mask.toHost(context);
    for (std::size_t c = 0; c < all.size(); ++c)
      if (all[c]) found.push_back(static_cast<Index>(c));
    return found;
  }
};

/** What a quantiser returns. */
struct Result {
  std::vector<std::int8_t> codes;
  std::vector<float> absmax;
  std::vector<Index> outliers;
};

Result onHost(const Sample& x, Axis axis, float threshold, bool markNaN) {
  const ConstDenseView a = x.host();
  Result r{
      std::vector<std::int8_t>(count(x.size())), std::vector<float>(count(axis == Axis::kRows ? a.rows : a.cols)), {}};
  (axis == Axis::kRows ? internal::quantizeInt8Rows : internal::quantizeInt8Cols)(a, threshold, r.codes.data(),
                                                                                  r.absmax.data(), &r.outliers);
  if (markNaN) internal::markRowsWithNaN(a, r.absmax.data());
  return r;
}

/** rows×cols codes at a stride, zeros between. */
std::vector<std::int8_t> padded(const std::vector<std::int8_t>& codes, Index rows, Index cols, Index stride) {
  std::vector<std::int8_t> result(count(rows * stride));
  for (Index i = 0; i < rows; ++i) std::copy_n(codes.begin() + i * cols, cols, result.begin() + i * stride);
  return result;
}

void compare(const Sample& x, Axis axis, float threshold, bool markNaN, Index stride, Context& context) {
  const ConstDenseView a = x.device();
  const Result expected = onHost(x, axis, threshold, markNaN);
  DeviceArray<std::int8_t> codes(count(a.rows * stride));
  DeviceArray<float> absmax(expected.absmax.size());
  OutlierMemory outliers(a.cols);
  const DeviceOutliers view = threshold > 0 ? outliers.view() : DeviceOutliers();
  if (axis == Axis::kRows) {
    gpu::internal::quantizeInt8Rows(a, threshold, markNaN, {codes.data(), stride}, absmax.data(), view, context);
  } else {
    gpu::internal::quantizeInt8Cols(a, threshold, {codes.data(), stride}, absmax.data(), view, context);
  }
  const std::string where = x.name() + (axis == Axis::kRows ? ", by rows" : ", by columns") + ", threshold " +
                            std::to_string(threshold) + ", stride " + std::to_string(stride);
  BOOST_TEST(agree(absmax.toHost(context), expected.absmax, where + ", absmax"));
  BOOST_TEST(agree(codes.toHost(context), padded(expected.codes, a.rows, a.cols, stride), where + ", codes"));
  if (!(threshold > 0)) return;
  BOOST_TEST(agree(outliers.listed(context), expected.outliers, where + ", listed outliers"));
  BOOST_TEST(agree(outliers.marked(context), expected.outliers, where + ", marked outliers"));
}

void compareEverything(Axis axis) {
  Context context;
  unsigned seed = 1;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Values values : kValues)
      for (const Layout layout : kLayouts)
        for (const Shape& s : kShapes) {
          const Sample x(scalar, values, layout, s.rows, s.cols, ++seed);
          const float threshold = kThresholds[seed * 7 / 3 % 4];
          const bool markNaN = axis == Axis::kRows && seed % 2 == 0;
          compare(x, axis, 0, markNaN, s.cols, context);
          compare(x, axis, threshold, markNaN, (s.cols + 15) / 16 * 16, context);
        }
}

}  // namespace

BOOST_AUTO_TEST_CASE(rowsAreTheHosts, *needsDevice()) { compareEverything(Axis::kRows); }
BOOST_AUTO_TEST_CASE(columnsAreTheHosts, *needsDevice()) { compareEverything(Axis::kCols); }

/** 16384 values fit the registers of a thread block; the rest of a longer row is read again. */
BOOST_AUTO_TEST_CASE(longRowsAreTheHosts, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Index cols : {8192, 8193, 16383, 16384, 16385, 16392, 40001})
      for (const float threshold : {0.0f, 12.0f})
        for (const Layout layout : {Layout::kRowMajor, Layout::kAlignedRows, Layout::kColMajor}) {
          const Sample x(scalar, Values::kGaussian, layout, 3, cols, static_cast<unsigned>(cols));
          compare(x, Axis::kRows, threshold, true, (cols + 15) / 16 * 16, context);
          compare(x, Axis::kCols, threshold, false, (cols + 15) / 16 * 16, context);
        }
}

BOOST_AUTO_TEST_CASE(manyRowsAreTheHosts, *needsDevice()) {
  Context context;
  for (const Layout layout : {Layout::kRowMajor, Layout::kColMajor}) {
    const Sample x(ScalarType::kBFloat16, Values::kGaussian, layout, 2049, 5000);  // copied in two panels
    for (const float threshold : {0.0f, 100.0f}) {
      compare(x, Axis::kRows, threshold, false, 5008, context);
      compare(x, Axis::kCols, threshold, false, 5008, context);
    }
  }
}

/** The columns that are marked in any chunk, a bit each. */
std::vector<Index> columnsOf(const std::vector<std::uint32_t>& marks, Index cols) {
  const std::size_t words = count(gpu::internal::markWords(cols));
  std::vector<Index> found;
  for (Index c = 0; c < cols; ++c) {
    bool marked = false;
    for (std::size_t at = count(c / 32); at < marks.size(); at += words) marked = marked || (marks[at] >> (c % 32) & 1);
    if (marked) found.push_back(c);
  }
  return found;
}

/** For a product that follows at once; of what stands in outlier columns only the outliers are told, and where asked.
 */
BOOST_AUTO_TEST_CASE(tokensAreTheHosts, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Shape& s : {Shape{1, 1}, Shape{3, 33}, Shape{9, 257}, Shape{64, 1025}, Shape{128, 300}, Shape{129, 300},
                           Shape{513, 300}, Shape{2, 16400}, Shape{700, 513}, Shape{2049, 40}})
      for (const float threshold : {0.0f, 3.0f, 30.0f}) {
        const Sample x(scalar, Values::kGaussian, Layout::kRowMajor, s.rows, s.cols, static_cast<unsigned>(s.cols));
        const Index stride = (s.cols + 15) / 16 * 16;
        const Index wordCount = gpu::internal::markChunks(s.rows) * gpu::internal::markWords(s.cols);
        const Result expected = onHost(x, Axis::kRows, threshold, true);
        DeviceArray<std::int8_t> codes(count(s.rows * stride));
        DeviceArray<float> absmax(count(s.rows));
        for (const bool clears : {false, true}) {
          DeviceArray<std::uint32_t> words(std::vector<std::uint32_t>(count(wordCount), 0xffffffffu));
          DeviceArray<unsigned> claims(std::vector<unsigned>(7, 1));
          gpu::internal::OutlierMarks marks;
          marks.words = words.data();
          marks.claims = claims.data();
          marks.claimCount = 7;
          marks.clearsOutliers = clears;
          gpu::internal::quantizeInt8Tokens(x.device(), threshold, {codes.data(), stride}, absmax.data(), marks,
                                            context);
          std::vector<std::int8_t> found = codes.toHost(context);
          Index standing = 0;
          for (const Index c : expected.outliers) {
            for (Index i = 0; i < s.rows; ++i) {
              std::int8_t& code = found[count(i * stride + c)];
              if (clears && std::abs(x.value(i, c)) >= threshold && code != 0) ++standing;
              code = 0;
            }
          }
          const std::string where =
              x.name() + ", threshold " + std::to_string(threshold) + (clears ? ", clearing" : "");
          BOOST_TEST(standing == 0, where << ": " << standing << " outliers have codes");
          BOOST_TEST(agree(absmax.toHost(context), expected.absmax, where + ", absmax"));
          BOOST_TEST(agree(found, padded(expected.codes, s.rows, s.cols, stride), where + ", codes"));
          if (!(threshold > 0)) continue;
          BOOST_TEST(agree(columnsOf(words.toHost(context), s.cols), expected.outliers, where + ", outliers"));
          BOOST_TEST(agree(claims.toHost(context), std::vector<unsigned>(7, 0), where + ", claims"));
        }
      }
}

BOOST_AUTO_TEST_CASE(addedOutliersAreTheHosts, *needsDevice()) {
  Context context;
  for (const Shape& s : {Shape{1, 9}, Shape{7, 70}, Shape{300, 2500}}) {
    const Sample x(ScalarType::kHalf, Values::kGaussian, Layout::kRowMajor, s.rows, s.cols);
    internal::Int8Activations expected = internal::quantizeActivations(x.host(), 20.0f);
    DeviceArray<std::int8_t> codes(count(s.rows * s.cols));
    DeviceArray<float> absmax(count(s.rows));
    OutlierMemory outliers(s.cols);
    gpu::internal::quantizeInt8Rows(x.device(), 20.0f, true, {codes.data(), s.cols}, absmax.data(), outliers.view(),
                                    context);
    const std::vector<Index> added = {0, s.cols / 2, s.cols - 1};
    const std::vector<int> addedInts = {static_cast<int>(s.cols - 1), 0, static_cast<int>(s.cols / 2)};
    internal::addOutliers(added, s.cols, expected);
    DeviceArray<int> deviceAdded(addedInts);
    gpu::internal::addOutliers(deviceAdded.data(), 3, s.rows, s.cols, {codes.data(), s.cols}, outliers.view(), context);
    const std::string where = x.name();
    BOOST_TEST(agree(outliers.listed(context), expected.outliers, where + ", outliers"));
    BOOST_TEST(agree(codes.toHost(context), expected.codes, where + ", codes"));
    BOOST_TEST(agree(absmax.toHost(context), expected.rowStats, where + ", absmax"));
  }
}

/** Matrices without columns have rows, whose absmax is 0, and padding, whose codes are. */
BOOST_AUTO_TEST_CASE(emptyMatrices, *needsDevice()) {
  Context context;
  DeviceArray<std::int8_t> codes(3 * 16);
  DeviceArray<float> absmax(3);
  OutlierMemory outliers(0);
  const ConstDenseView noCols{nullptr, ScalarType::kHalf, 3, 0, 0, 1}, noRows{nullptr, ScalarType::kHalf, 0, 3, 3, 1};
  gpu::internal::quantizeInt8Rows(noCols, 6, true, {codes.data(), 16}, absmax.data(), outliers.view(), context);
  BOOST_TEST(agree(absmax.toHost(context), {0, 0, 0}, "absmax"));
  BOOST_TEST(agree(codes.toHost(context), std::vector<std::int8_t>(3 * 16), "codes"));
  BOOST_TEST(outliers.count.toHost(context)[0] == 0);
  DeviceArray<float> colAbsmax(3);
  gpu::internal::quantizeInt8Cols(noRows, 0, {nullptr, 16}, colAbsmax.data(), {}, context);
  BOOST_TEST(agree(colAbsmax.toHost(context), {0, 0, 0}, "column absmax"));
}
