// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Context
#include <boost/test/unit_test.hpp>

#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#include <eigen_q/Cuda>

#include <src/cuda/context_state.h>

#include "Device.h"

using namespace EigenQ;
using Eigen::MatrixXf;
using gpu::Context;
using gpu::DeviceMatrix;
using test::needsDevice;

namespace {

/** Keeps a stream busy for a while: copies of 1 GiB, some 250 µs each on a fast device. */
class Busy {
 public:
  explicit Busy(Context& context) : m_memory(std::size_t{1} << 30, context) {
    for (int i = 0; i < 40; ++i)
      cudaMemcpyAsync(m_memory.data(), static_cast<char*>(m_memory.data()) + (1 << 29), 1 << 29,
                      cudaMemcpyDeviceToDevice, context.stream());
  }
  static bool idle(const Context& context) { return cudaStreamQuery(context.stream()) == cudaSuccess; }

 private:
  gpu::internal::MemoryBlock m_memory;
};

std::size_t freeMemory() {
  std::size_t free = 0, total = 0;
  BOOST_TEST_REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  return free;
}

}  // namespace

BOOST_AUTO_TEST_CASE(aMissingDeviceHasAnErrorOfItsOwn) {
  BOOST_CHECK_THROW(Context(gpu::deviceCount() + 3), NoCudaDevice);
  if (gpu::deviceCount() == 0) {
    BOOST_TEST(gpu::whyNoDevice() != nullptr);
    BOOST_CHECK_THROW(Context::current(), NoCudaDevice);
  } else {
    BOOST_TEST(gpu::whyNoDevice() == nullptr);
  }
}

BOOST_AUTO_TEST_CASE(aContextKnowsItsDevice, *needsDevice()) {
  Context context;
  BOOST_TEST(context.device() == 0);
  BOOST_TEST(context.stream() != nullptr);
  BOOST_TEST(context.properties().major >= 8);
  BOOST_TEST(!context.properties().name.empty());
  BOOST_TEST(context.multiprocessors() > 0);
}

BOOST_AUTO_TEST_CASE(everyThreadHasItsOwnContextAndMayChooseAnother, *needsDevice()) {
  Context& mine = Context::current();
  BOOST_TEST(&Context::current() == &mine);
  std::thread([&] { BOOST_TEST(&Context::current() != &mine); }).join();
  Context other;
  {
    const gpu::ContextGuard guard(other);
    BOOST_TEST(&Context::current() == &other);
  }
  BOOST_TEST(&Context::current() == &mine);
}

BOOST_AUTO_TEST_CASE(aBorrowedStreamIsUsedAndNotDestroyed, *needsDevice()) {
  cudaStream_t stream = nullptr;
  BOOST_TEST_REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
  {
    Context context(stream);
    BOOST_TEST(context.stream() == stream);
    const MatrixXf x = MatrixXf::Random(5, 7);
    const auto d = DeviceMatrix<float>::fromHost(x, context);
    BOOST_TEST((d.toHost(context) == x));
  }
  BOOST_TEST(cudaStreamSynchronize(stream) == cudaSuccess);
  BOOST_TEST(cudaStreamDestroy(stream) == cudaSuccess);
}

BOOST_AUTO_TEST_CASE(readersOnOtherStreamsWaitForTheWriter, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(300, 200);
  for (int round = 0; round < 5; ++round) {
    DeviceMatrix<float> d(300, 200, writer), copy;
    const Busy busy(writer);
    d.view().copyFromHost(x, writer);
    copy.device(reader) = d + d;
    BOOST_TEST((copy.toHost(reader) == x + x));
  }
}

BOOST_AUTO_TEST_CASE(writersWaitForReadersOnOtherStreams, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(300, 200), other = MatrixXf::Random(300, 200);
  for (int round = 0; round < 5; ++round) {
    auto d = DeviceMatrix<float>::fromHost(x, writer);
    DeviceMatrix<float> copy;
    const Busy busy(reader);
    copy.device(reader) = d + d;           // queued behind the copies
    d.view().copyFromHost(other, writer);  // must not come first
    BOOST_TEST((copy.toHost(reader) == x + x));
    BOOST_TEST((d.toHost(writer) == other));
  }
}

BOOST_AUTO_TEST_CASE(memoryIsFreedOnlyAfterReadersOnOtherStreams, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(300, 200);
  DeviceMatrix<float> copy;
  {
    const auto d = DeviceMatrix<float>::fromHost(x, writer);
    const Busy busy(reader);
    copy.device(reader) = d + d;
  }
  DeviceMatrix<float> reused(300, 200, writer);
  reused.setZero(writer);
  BOOST_TEST((copy.toHost(reader) == x + x));
}

BOOST_AUTO_TEST_CASE(aContextThatOnlyReadsAWeightLeavesNoStream, *needsDevice()) {
  Context writer;
  const MatrixXf x = MatrixXf::Random(30, 20);
  const auto weight = DeviceMatrix<float>::fromHost(x, writer);
  std::vector<std::weak_ptr<gpu::internal::StreamHandle>> streams;
  for (int request = 0; request < 200; ++request) {
    Context reader;
    streams.push_back(reader.state().stream);
    DeviceMatrix<float> y;
    y.device(reader) = weight + weight;
    BOOST_TEST_REQUIRE((y.toHost(reader) == x + x));
  }
  for (const auto& stream : streams) BOOST_TEST_REQUIRE(stream.expired());
}

BOOST_AUTO_TEST_CASE(readersAreWaitedForWhenTheirContextIsGone, *needsDevice()) {
  Context writer;
  const MatrixXf x = MatrixXf::Random(300, 200), other = MatrixXf::Random(300, 200);
  const auto transferOf = [](const DeviceMatrix<float>& d) {
    Context reader;
    const Busy busy(reader);
    return d.toHostAsync(reader);  // queued behind the copies
  };
  for (int round = 0; round < 5; ++round) {
    auto d = DeviceMatrix<float>::fromHost(x, writer);
    const auto beforeWrite = transferOf(d);
    d.view().copyFromHost(other, writer);
    BOOST_TEST((beforeWrite.get() == x));
    const auto beforeRelease = transferOf(d);
    d = DeviceMatrix<float>();
    DeviceMatrix<float> reused(300, 200, writer);
    reused.setZero(writer);
    BOOST_TEST((beforeRelease.get() == other));
  }
}

BOOST_AUTO_TEST_CASE(operationsReturnBeforeTheyHaveRun, *needsDevice()) {
  Context context;
  const auto a = DeviceMatrix<float>::fromHost(MatrixXf::Random(64, 64), context);
  DeviceMatrix<float> y(64, 64, context);
  y.device(context) = a + a;  // kernels are loaded at their first launch
  context.synchronize();
  const Busy busy(context);
  y.device(context) = 2.0f * a + a;
  BOOST_TEST(!Busy::idle(context), "the device was waited for, or is too fast for this test");
  context.synchronize();
}

BOOST_AUTO_TEST_CASE(transfersMayBeAsynchronous, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(129, 65);
  const auto d = DeviceMatrix<float>::fromHost(x, context);
  const auto transfer = d.toHostAsync(context);
  BOOST_TEST((transfer.get() == x));
  BOOST_TEST(transfer.ready());
  const auto again = DeviceMatrix<float>::fromHostAsync(x.data(), 129, 65, context);
  BOOST_TEST((again.toHost(context) == x));
}

BOOST_AUTO_TEST_CASE(largeUploadsPassThroughStagingInParts, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(3001, 2003);  // 24 MB: three halves of the staging memory
  BOOST_TEST((DeviceMatrix<float>::fromHost(x, context).toHost(context) == x));
  BOOST_TEST((DeviceMatrix<float>::fromHost(x.topRows(1500), context).toHost(context) == x.topRows(1500)));
}

BOOST_AUTO_TEST_CASE(outOfMemoryLeavesObjectsAsTheyWere, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(8, 8);
  auto d = DeviceMatrix<float>::fromHost(x, context);
  const Index tooMany = static_cast<Index>(freeMemory() / sizeof(float)) * 2;
  BOOST_CHECK_THROW(d.resize(tooMany, 1, context), CudaOutOfMemory);
  BOOST_TEST(d.rows() == 8);
  BOOST_TEST((d.toHost(context) == x));
  BOOST_CHECK_THROW(DeviceMatrix<float>(tooMany, 1, context), CudaOutOfMemory);
  d.device(context) = d + d;  // the context still works
  BOOST_TEST((d.toHost(context) == x + x));
}

BOOST_AUTO_TEST_CASE(anAllocationThatFailsTakesNoMemoryFromGraphs, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(300, 200);
  auto d = DeviceMatrix<float>::fromHost(x, context);
  const std::size_t before = freeMemory();
  BOOST_CHECK_THROW(DeviceMatrix<float>(static_cast<Index>(before / sizeof(float)) * 2, 1, context), CudaOutOfMemory);
  BOOST_TEST(freeMemory() > before / 2);
  gpu::Graph graph(context, [&] { d.device(context) = d + d; });  // by way of memory of the graph's own
  graph.launch();
  BOOST_TEST((d.toHost(context) == 2 * x));
}

BOOST_AUTO_TEST_CASE(memoryThatWasFreedIsGivenToGraphs, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(300, 200);
  auto d = DeviceMatrix<float>::fromHost(x, context);
  gpu::internal::MemoryBlock(freeMemory() - (std::size_t{64} << 20), context);  // the pool keeps it
  gpu::Graph graph(context, [&] { d.device(context) = d + d; });
  graph.launch();
  BOOST_TEST((d.toHost(context) == 2 * x));
}

BOOST_AUTO_TEST_CASE(uploadsInsideACaptureAreRefused, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(8, 8);
  auto d = DeviceMatrix<float>::fromHost(x, context);
  BOOST_TEST_REQUIRE(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  BOOST_CHECK_THROW(d.view().copyFromHost(x, context), std::logic_error);
  BOOST_CHECK_THROW(d.toHost(context), std::logic_error);
  BOOST_CHECK_THROW(d.toHostAsync(context), std::logic_error);
  cudaGraph_t graph = nullptr;
  BOOST_TEST(cudaStreamEndCapture(context.stream(), &graph) == cudaSuccess);
  cudaGraphDestroy(graph);
}

BOOST_AUTO_TEST_CASE(aGraphReadsWhatItsStreamHasReadBefore, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(30, 20);
  auto d = DeviceMatrix<float>::fromHost(x, writer);
  DeviceMatrix<float> y(30, 20, reader);
  const auto step = [&] { y.device(reader) = d + d; };
  BOOST_CHECK_EXCEPTION(gpu::Graph(reader, step), std::logic_error, [](const std::logic_error& e) {
    return std::string(e.what()).find("for the first time inside a graph capture") != std::string::npos;
  });
  step();
  gpu::Graph graph(reader, step);
  y.setZero(reader);
  graph.launch();
  BOOST_TEST((y.toHost(reader) == x + x));
}

BOOST_AUTO_TEST_CASE(aStreamIsReadWhileAnotherThreadRecordsIt, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(300, 200);
  DeviceMatrix<float> d(300, 200, writer), sum(300, 200, writer), twice(300, 200, writer);
  const Busy busy(writer);
  d.view().copyFromHost(x, writer);  // what the reader waits for
  MatrixXf seen;
  gpu::Graph graph(writer, [&] {
    sum.device(writer) = d + d;
    seen = std::async(std::launch::async, [&] {
             DeviceMatrix<float> copy;
             copy.device(reader) = d + d;
             return MatrixXf(copy.toHost(reader));
           }).get();
    twice.device(writer) = sum + sum;  // the recording goes on
  });
  BOOST_TEST((seen == x + x));
  graph.launch();
  BOOST_TEST((twice.toHost(writer) == 4 * x));
}

BOOST_AUTO_TEST_CASE(whatAStreamHasWrittenIsOverwrittenWhileAnotherThreadRecordsIt, *needsDevice()) {
  Context writer, other;
  const MatrixXf x = MatrixXf::Random(300, 200);
  auto d = DeviceMatrix<float>::fromHost(x, writer), e = DeviceMatrix<float>::fromHost(x, writer);
  gpu::Graph graph(writer, [&] {
    d.device(writer) = d + d;
    std::async(std::launch::async, [&] {
      DeviceMatrix<float> copy;
      copy.device(other) = e + e;
      e.device(other) = copy + copy;
    }).get();
  });
  BOOST_TEST((e.toHost(other) == 4 * x));
  graph.launch();
  BOOST_TEST((d.toHost(writer) == 2 * x));
}

BOOST_AUTO_TEST_CASE(memoryFreedWhileItsStreamIsRecordedGoesBackBehindTheRecording, *needsDevice()) {
  using gpu::internal::MemoryBlock;
  constexpr std::size_t kBytes = std::size_t{256} << 20;
  Context context;
  const MatrixXf x = MatrixXf::Random(30, 20);
  const auto d = DeviceMatrix<float>::fromHost(x, context);
  DeviceMatrix<float> y(30, 20, context);
  const auto round = [&] {
    auto mine = std::make_unique<MemoryBlock>(kBytes, context), theirs = std::make_unique<MemoryBlock>(kBytes, context);
    gpu::Graph graph(context, [&] {
      y.device(context) = d + d;
      mine.reset();
      std::async(std::launch::async, [&] { theirs.reset(); }).get();
      y.device(context) = y + d;  // the recording goes on
    });
    y.setZero(context);
    graph.launch();
    BOOST_TEST((y.toHost(context) == x + x + x));
  };
  for (int i = 0; i < 3; ++i) round();
  const std::size_t before = freeMemory();
  for (int i = 0; i < 10; ++i) round();
  BOOST_TEST(freeMemory() + kBytes > before);  // not even one of twenty; graphs have memory of their own
}

BOOST_AUTO_TEST_CASE(aStreamThatSomebodyElseCapturesIsRefused, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(8, 8);
  const auto d = DeviceMatrix<float>::fromHost(x, writer);
  DeviceMatrix<float> copy(8, 8, reader);
  BOOST_TEST_REQUIRE(cudaStreamBeginCapture(writer.stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  BOOST_CHECK_EXCEPTION(copy.device(reader) = d + d, std::logic_error, [](const std::logic_error& e) {
    return std::string(e.what()).find("being captured") != std::string::npos;
  });
  cudaGraph_t graph = nullptr;
  BOOST_TEST(cudaStreamEndCapture(writer.stream(), &graph) == cudaSuccess);
  cudaGraphDestroy(graph);
  copy.device(reader) = d + d;
  BOOST_TEST((copy.toHost(reader) == x + x));
}

BOOST_AUTO_TEST_CASE(readersWaitForGraphsOfTheWriter, *needsDevice()) {
  Context writer, reader;
  const MatrixXf x = MatrixXf::Random(300, 200);
  const auto a = DeviceMatrix<float>::fromHost(x, writer);
  auto d = DeviceMatrix<float>::fromHost(x, writer);
  DeviceMatrix<float> y(300, 200, reader);
  gpu::Graph graph(writer, [&] { d.device(writer) = d + a; });
  y.device(reader) = d + d;  // has read since the last write that was announced
  BOOST_TEST((y.toHost(reader) == x + x));
  const Busy busy(writer);
  graph.launch();
  y.device(reader) = d + d;
  BOOST_TEST((y.toHost(reader) == 2 * (x + x)));
}

BOOST_AUTO_TEST_CASE(theSteadyStateAsksTheDriverForNoMemory, *needsDevice()) {
  Context context;
  const auto w = gpu::NF4Matrix::fromHost(NF4Matrix(MatrixXf::Random(256, 256)), context);
  const auto x = DeviceMatrix<float>::fromHost(MatrixXf::Random(100, 256), context);
  const auto step = [&] {
    DeviceMatrix<float> y;
    y.device(context) = x * w.transpose();
    y.device(context) = y * w;
    context.synchronize();
  };
  for (int i = 0; i < 3; ++i) step();
  const std::size_t before = freeMemory();
  for (int i = 0; i < 50; ++i) step();
  BOOST_TEST(freeMemory() == before);
}
