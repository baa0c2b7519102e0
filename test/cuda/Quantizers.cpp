// SPDX-License-Identifier: MPL-2.0
// Blockwise quantisers on the device against those on the host, bit for bit.
#define BOOST_TEST_MODULE cuda_Quantizers
#include "Device.h"

#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/Quantizers.h>

#include <src/cuda/quantizers.h>

#include "Samples.h"

using namespace EigenQ;
using namespace EigenQ::test;
using gpu::Context;

namespace {

struct Shape {
  Index rows, cols;
};

/** Around the values of a lane (8), a vector (256), a warp (1024), a thread block (8192) and block sizes; odd counts.
 */
constexpr Shape kShapes[] = {{1, 1},    {1, 7},    {1, 31},   {32, 1},   {1, 33},   {3, 21},
                             {16, 16},  {1, 257},  {33, 31},  {1, 1025}, {5, 409},  {7, 1024},
                             {1, 4097}, {129, 65}, {1, 8191}, {2, 4096}, {3, 2731}, {130, 127}};
constexpr Index kBlockSizes[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};

/** The block size of the n-th comparison: mixed, since all combinations of everything would take minutes. */
Index blockSizeOf(std::size_t n) { return kBlockSizes[n * 2654435761u >> 7 & 7]; }

std::size_t count(Index n) { return static_cast<std::size_t>(n); }

template <typename F>
void forEachSample(F&& f) {
  unsigned seed = 1;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Values values : kValues)
      for (const Layout layout : kLayouts)
        for (const Shape& s : kShapes) f(Sample(scalar, values, layout, s.rows, s.cols, ++seed));
}

void compareFourBit(const Sample& x, FourBitType type, Index blockSize, Context& context) {
  const std::size_t bytes = count(internal::packedSize(x.size())),
                    blocks = count(internal::blockCount(x.size(), blockSize));
  std::vector<std::uint8_t> packed(bytes);
  std::vector<float> absmax(blocks);
  internal::quantizeFourBit(x.host(), type, blockSize, packed.data(), absmax.data());
  DeviceArray<std::uint8_t> devicePacked(bytes);
  DeviceArray<float> deviceAbsmax(blocks);
  gpu::internal::quantizeFourBit(x.device(), type, blockSize, devicePacked.data(), deviceAbsmax.data(), context);
  const std::string where =
      x.name() + (type == FourBitType::kNF4 ? ", nf4, blocks of " : ", fp4, blocks of ") + std::to_string(blockSize);
  BOOST_TEST(agree(deviceAbsmax.toHost(context), absmax, where + ", absmax"));
  BOOST_TEST(agree(devicePacked.toHost(context), packed, where + ", codes"));
}

void compareBlockwise(const Sample& x, const std::vector<float>& table, Index blockSize, Context& context) {
  const std::size_t blocks = count(internal::blockCount(x.size(), blockSize));
  std::vector<std::uint8_t> codes(count(x.size()));
  std::vector<float> absmax(blocks);
  internal::quantizeBlockwise(x.host(), table.data(), blockSize, codes.data(), absmax.data());
  DeviceArray<float> deviceTable(table), deviceAbsmax(blocks);
  DeviceArray<std::uint8_t> deviceCodes(codes.size());
  gpu::internal::quantizeBlockwise(x.device(), deviceTable.data(), blockSize, deviceCodes.data(), deviceAbsmax.data(),
                                   context);
  const std::string where = x.name() + ", blocks of " + std::to_string(blockSize);
  BOOST_TEST(agree(deviceAbsmax.toHost(context), absmax, where + ", absmax"));
  BOOST_TEST(agree(deviceCodes.toHost(context), codes, where + ", codes"));
}

std::vector<float> asVector(const internal::ByteCodeTable& table) { return {table.begin(), table.end()}; }

/** Uniform levels, the upper ones repeated. */
std::vector<float> repeatingTable() {
  std::vector<float> table;
  for (int i = 0; i < 256; ++i) table.push_back(static_cast<float>(std::min(i, 200) - 100) / 100);
  return table;
}

/** Blocks of 32 values: the given absmax, then 31 of the 65536 patterns of the scalar. */
std::vector<std::uint16_t> allPatternsBeside(std::uint16_t absmax) {
  std::vector<std::uint16_t> values;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    if (values.size() % 32 == 0) values.push_back(absmax);
    values.push_back(static_cast<std::uint16_t>(bits));
  }
  return values;
}

template <typename T>
void compareRun(const std::vector<T>& values, ScalarType scalar, FourBitType type, const std::string& where,
                Context& context) {
  const Index n = static_cast<Index>(values.size());
  std::vector<std::uint8_t> packed(count(internal::packedSize(n)));
  std::vector<float> absmax(count(internal::blockCount(n, 32)));
  internal::quantizeFourBit({values.data(), scalar, 1, n, n, 1}, type, 32, packed.data(), absmax.data());
  DeviceArray<T> deviceValues(values);
  DeviceArray<std::uint8_t> devicePacked(packed.size());
  DeviceArray<float> deviceAbsmax(absmax.size());
  gpu::internal::quantizeFourBit({deviceValues.data(), scalar, 1, n, n, 1}, type, 32, devicePacked.data(),
                                 deviceAbsmax.data(), context);
  BOOST_TEST(agree(deviceAbsmax.toHost(context), absmax, where + ", absmax"));
  BOOST_TEST(agree(devicePacked.toHost(context), packed, where + ", codes"));
}

}  // namespace

BOOST_AUTO_TEST_CASE(fourBitCodesAreTheHosts, *needsDevice()) {
  Context context;
  std::size_t n = 0;
  forEachSample([&](const Sample& x) {
    for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4})
      for (int i = 0; i < 3; ++i) compareFourBit(x, type, blockSizeOf(n++), context);
  });
}

BOOST_AUTO_TEST_CASE(everyPatternOf16BitsIsCodedAsOnTheHost, *needsDevice()) {
  Context context;
  for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4}) {
    // 1, 1/3, the least and the largest normal, one beyond which the reciprocal is subnormal, infinity, 0, NaN.
    for (const unsigned absmax :
         {0x3f80u, 0x3eabu, 0x0080u, 0x7f7fu, 0x7f00u, 0x7e81u, 0x7f80u, 0x0000u, 0x7fc0u, 0x0301u})
      compareRun(allPatternsBeside(static_cast<std::uint16_t>(absmax)), ScalarType::kBFloat16, type,
                 "bfloat16 beside " + std::to_string(absmax), context);
    for (const unsigned absmax : {0x3c00u, 0x3555u, 0x0400u, 0x7bffu, 0x0001u, 0x7c00u, 0x0000u, 0x7e00u})
      compareRun(allPatternsBeside(static_cast<std::uint16_t>(absmax)), ScalarType::kHalf, type,
                 "half beside " + std::to_string(absmax), context);
  }
}

/** Floats within 64 ulp of each point where the host's code changes, in blocks of absmax 1 and of others. */
BOOST_AUTO_TEST_CASE(floatsAtThresholdsAreCodedAsOnTheHost, *needsDevice()) {
  Context context;
  for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4}) {
    for (const float absmax : {1.0f, 0.7f, 3.0e-38f, 2.5e38f, 1.2e-38f}) {
      std::vector<float> values;
      const auto near = [&](float centre) {
        float v = centre;
        for (int i = 0; i < 64; ++i) v = std::nextafter(v, -INFINITY);
        for (int i = 0; i < 128; ++i, v = std::nextafter(v, INFINITY)) {
          if (values.size() % 32 == 0) values.push_back(absmax);
          values.push_back(std::fmax(-absmax, std::fmin(absmax, v)));
        }
      };
      std::uint8_t previous = internal::encodeFourBit(type, -1.0f);
      for (int i = -100000; i <= 100000; ++i) {  // a grid finds the neighbourhood, halving the place
        float above = static_cast<float>(i) / 100000, below = static_cast<float>(i - 1) / 100000;
        const std::uint8_t code = internal::encodeFourBit(type, above);
        if (code != previous) {
          for (int step = 0; step < 200; ++step) {
            const float middle = below + (above - below) / 2;
            (internal::encodeFourBit(type, middle) == code ? above : below) = middle;
          }
          near(above * absmax);
        }
        previous = code;
      }
      near(0);
      BOOST_TEST(values.size() > 1000u);
      compareRun(values, ScalarType::kFloat, type, "floats at thresholds times " + std::to_string(absmax), context);
    }
  }
}

BOOST_AUTO_TEST_CASE(blockwiseCodesAreTheHosts, *needsDevice()) {
  Context context;
  const std::vector<float> tables[] = {asVector(internal::signedDynamicMap()), asVector(internal::unsignedDynamicMap()),
                                       repeatingTable()};
  std::size_t n = 0;
  forEachSample([&](const Sample& x) {
    for (int i = 0; i < 2; ++i, ++n) compareBlockwise(x, tables[n % 3], blockSizeOf(n), context);
  });
}

BOOST_AUTO_TEST_CASE(valuesOfCodesAreTheHosts, *needsDevice()) {
  Context context;
  std::mt19937 random(3);
  const std::vector<float> table = asVector(internal::signedDynamicMap());
  DeviceArray<float> deviceTable(table);
  for (const ScalarType scalar : kDeviceScalars)
    for (const Layout layout : kLayouts)
      for (const Shape& s : kShapes)
        for (const bool nested : {false, true}) {
          const Index blockSize = kBlockSizes[random() % 8], n = s.rows * s.cols;
          const std::size_t blocks = count(internal::blockCount(n, blockSize));
          std::vector<std::uint8_t> codes(count(n)), absmaxCodes(blocks);
          std::vector<float> absmax(blocks), absmax2(count(internal::blockCount(static_cast<Index>(blocks), 32)));
          for (auto& code : codes) code = static_cast<std::uint8_t>(random());
          for (auto& code : absmaxCodes) code = static_cast<std::uint8_t>(random());
          for (auto& a : absmax) a = std::exp2(static_cast<float>(random() % 60) - 30.0f) * 1.37f;
          for (auto& a : absmax2) a = std::exp2(static_cast<float>(random() % 8) - 9.0f) * 1.21f;
          const float offset = 0.37f;
          DeviceArray<std::uint8_t> deviceCodes(codes), deviceAbsmaxCodes(absmaxCodes);
          DeviceArray<float> deviceAbsmax(absmax), deviceAbsmax2(absmax2), deviceOffset(std::vector<float>{offset});
          internal::AbsmaxView host, device;
          if (nested) {
            host.codes = absmaxCodes.data(), device.codes = deviceAbsmaxCodes.data();
            host.codeTable = table.data(), device.codeTable = deviceTable.data();
            host.absmax2 = absmax2.data(), device.absmax2 = deviceAbsmax2.data();
            host.nestedBlockShift = device.nestedBlockShift = 5;
            host.offset = offset, device.offsetAt = deviceOffset.data();
          } else {
            host.plain = absmax.data(), device.plain = deviceAbsmax.data();
          }
          const Placement at(layout, s.rows, s.cols);
          const std::size_t bytes = count(at.size * sizeOf(scalar));
          std::vector<std::uint8_t> out(bytes, 0xa5);  // the noise of DeviceArray, where no element lies
          DeviceArray<std::uint8_t> deviceOut(bytes);
          const Index first = at.first * sizeOf(scalar);
          internal::dequantizeBlockwise(codes.data(), table.data(), host, blockSize,
                                        {out.data() + first, scalar, s.rows, s.cols, at.rowStride, at.colStride});
          gpu::internal::dequantizeBlockwise(
              deviceCodes.data(), deviceTable.data(), device, blockSize,
              {deviceOut.data() + first, scalar, s.rows, s.cols, at.rowStride, at.colStride}, context);
          BOOST_TEST(agree(deviceOut.toHost(context), out,
                           std::to_string(s.rows) + "x" + std::to_string(s.cols) + " " + nameOf(scalar) + ", " +
                               nameOf(layout) + (nested ? ", nested" : "") + ", bytes"));
        }
}

BOOST_AUTO_TEST_CASE(nestedStatisticsAreTheHostsBesideAnUlpOfTheMean, *needsDevice()) {
  Context context;
  std::mt19937 random(4);
  for (const Index blocks : {0, 1, 2, 31, 32, 33, 255, 256, 257, 4095, 4096, 8193, 262144, 1000003})
    for (const Index nestedBlockSize : {Index{32}, Index{256}, Index{4096}}) {
      std::vector<float> absmax(count(blocks));
      for (auto& a : absmax) a = static_cast<float>(random() % 100000) * 1e-6f + 0.01f;
      const std::size_t blocks2 = count(internal::blockCount(blocks, nestedBlockSize));
      DeviceArray<float> deviceAbsmax(absmax), deviceAbsmax2(blocks2), deviceOffset(1), again(1);
      DeviceArray<std::uint8_t> deviceCodes(count(blocks));
      gpu::internal::quantizeNested(deviceAbsmax.data(), blocks, nestedBlockSize, deviceCodes.data(),
                                    deviceAbsmax2.data(), deviceOffset.data(), context);
      gpu::internal::meanOf(deviceAbsmax.data(), blocks, again.data(), context);
      const float offset = deviceOffset.toHost(context)[0], mean = internal::meanOf(absmax.data(), blocks);
      const std::string where = std::to_string(blocks) + " blocks by " + std::to_string(nestedBlockSize);
      BOOST_TEST(agree(again.toHost(context), {offset}, where + ", mean, again"));
      BOOST_TEST(offset >= std::nextafter(mean, -INFINITY), where << ": " << offset << " for " << mean);
      BOOST_TEST(offset <= std::nextafter(mean, INFINITY), where << ": " << offset << " for " << mean);
      std::vector<std::uint8_t> codes(count(blocks));
      std::vector<float> absmax2(blocks2);
      internal::quantizeAbsmax(absmax.data(), blocks, offset, nestedBlockSize, codes.data(), absmax2.data());
      BOOST_TEST(agree(deviceAbsmax2.toHost(context), absmax2, where + ", absmax2"));
      BOOST_TEST(agree(deviceCodes.toHost(context), codes, where + ", codes"));
    }
}

BOOST_AUTO_TEST_CASE(largeMatricesAreCodedAsOnTheHost, *needsDevice()) {
  Context context;
  for (const Layout layout : {Layout::kRowMajor, Layout::kColMajor, Layout::kAlignedRows}) {
    const Sample x(ScalarType::kBFloat16, Values::kGaussian, layout, 4096, 3001);  // several panels, blocks across rows
    compareFourBit(x, FourBitType::kNF4, 64, context);
    compareBlockwise(x, asVector(internal::signedDynamicMap()), 4096, context);
  }
}

BOOST_AUTO_TEST_CASE(moreValuesThanInt32Counts, *needsDevice()) {
  constexpr Index n = (Index{1} << 31) + 8192 + 5;
  std::size_t available = 0, total = 0;
  requireCuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  if (available < static_cast<std::size_t>(n) * 3) {
    BOOST_TEST_MESSAGE("skipped: too little device memory");
    return;
  }
  Context context;
  const Sample tail(ScalarType::kBFloat16, Values::kGaussian, Layout::kRowMajor, 1, 8192 + 5);
  std::vector<std::uint16_t> last(count(tail.size()));
  std::memcpy(last.data(), tail.host().data, last.size() * 2);
  DeviceArray<std::uint16_t> x(count(n));
  requireCuda(cudaMemcpy(x.data() + (n - tail.size()), last.data(), last.size() * 2, cudaMemcpyHostToDevice), "upload");
  DeviceArray<std::uint8_t> packed(count(internal::packedSize(n)));
  DeviceArray<float> absmax(count(internal::blockCount(n, 64)));
  gpu::internal::quantizeFourBit({x.data(), ScalarType::kBFloat16, 1, n, n, 1}, FourBitType::kNF4, 64, packed.data(),
                                 absmax.data(), context);
  std::vector<std::uint8_t> expected(count(internal::packedSize(tail.size()))), found(expected.size());
  std::vector<float> expectedAbsmax(count(internal::blockCount(tail.size(), 64)));
  internal::quantizeFourBit(tail.host(), FourBitType::kNF4, 64, expected.data(), expectedAbsmax.data());
  context.synchronize();
  requireCuda(
      cudaMemcpy(found.data(), packed.data() + (packed.size() - found.size()), found.size(), cudaMemcpyDeviceToHost),
      "download");
  BOOST_TEST(agree(found, expected, "the last codes"));
}

BOOST_AUTO_TEST_CASE(aGraphRepeatsIt, *needsDevice()) {
  Context context;
  const Sample x(ScalarType::kBFloat16, Values::kGaussian, Layout::kColMajor, 100, 77);
  std::vector<std::uint8_t> expected(count(internal::packedSize(x.size())));
  std::vector<float> absmax(count(internal::blockCount(x.size(), 64)));
  internal::quantizeFourBit(x.host(), FourBitType::kNF4, 64, expected.data(), absmax.data());
  DeviceArray<std::uint8_t> packed(expected.size()), codes(absmax.size());
  DeviceArray<float> deviceAbsmax(absmax.size()), absmax2(1), offset(1);
  const auto queue = [&] {
    gpu::internal::quantizeFourBit(x.device(), FourBitType::kNF4, 64, packed.data(), deviceAbsmax.data(), context);
    gpu::internal::quantizeNested(deviceAbsmax.data(), static_cast<Index>(absmax.size()), 256, codes.data(),
                                  absmax2.data(), offset.data(), context);
  };
  queue();
  const std::vector<std::uint8_t> nestedCodes = codes.toHost(context);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  requireCuda(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal), "begin capture");
  queue();
  requireCuda(cudaStreamEndCapture(context.stream(), &graph), "end capture");
  requireCuda(cudaGraphInstantiate(&instance, graph, 0), "instantiate");
  requireCuda(cudaMemset(packed.data(), 0, packed.size()), "clear");
  requireCuda(cudaMemset(codes.data(), 0, codes.size()), "clear");
  requireCuda(cudaDeviceSynchronize(), "synchronize");
  requireCuda(cudaGraphLaunch(instance, context.stream()), "launch");
  BOOST_TEST(agree(packed.toHost(context), expected, "codes of the graph"));
  BOOST_TEST(agree(codes.toHost(context), nestedCodes, "nested codes of the graph"));
  (void)cudaGraphExecDestroy(instance);
  (void)cudaGraphDestroy(graph);
}

BOOST_AUTO_TEST_CASE(doublesAreRefused, *needsDevice()) {
  Context context;
  DeviceArray<double> x(64);
  DeviceArray<std::uint8_t> packed(32);
  DeviceArray<float> absmax(1);
  for (const ConstDenseView& view :
       {ConstDenseView{x.data(), ScalarType::kDouble, 1, 64, 64, 1},
        ConstDenseView{x.data(), ScalarType::kDouble, 8, 8, 1, 8}})  // laid out in rows first
    BOOST_CHECK_THROW(
        gpu::internal::quantizeFourBit(view, FourBitType::kNF4, 64, packed.data(), absmax.data(), context),
        std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(nothingIsTouchedOfEmptyMatrices, *needsDevice()) {
  Context context;
  for (const Shape& s : {Shape{0, 0}, Shape{0, 5}, Shape{5, 0}}) {
    const ConstDenseView x{nullptr, ScalarType::kFloat, s.rows, s.cols, s.cols, 1};
    gpu::internal::quantizeFourBit(x, FourBitType::kNF4, 64, nullptr, nullptr, context);
    gpu::internal::quantizeBlockwise(x, nullptr, 64, nullptr, nullptr, context);
    gpu::internal::dequantizeBlockwise(nullptr, nullptr, {}, 64,
                                       {nullptr, ScalarType::kFloat, s.rows, s.cols, s.cols, 1}, context);
  }
  BOOST_CHECK_NO_THROW(context.synchronize());
}
