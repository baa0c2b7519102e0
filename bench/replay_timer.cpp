// SPDX-License-Identifier: MPL-2.0
#include "ReplayTimer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <src/cuda/check.h>

namespace EigenQ {
namespace bench {
namespace {

constexpr double kGraphSeconds = 400e-6;  // a graph this long hides what launching the next one costs
constexpr int kFewestSamples = 7;
constexpr int kMostSamples = 100;
constexpr int kMostCallsPerGraph = 512;
constexpr int kEagerSamples = 11;

int clamped(double count, int fewest, int most) {
  return static_cast<int>(std::max<double>(fewest, std::min<double>(count, most)));
}

Timing summarise(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t n = samples.size();
  return {samples[n / 2], (samples[3 * n / 4] - samples[n / 4]) / 2, static_cast<int>(n)};
}

class Event {
 public:
  Event() { EIGENQ_CUDA_CHECK(cudaEventCreate(&m_event)); }
  ~Event() {
    if (m_event) (void)cudaEventDestroy(m_event);  // a destructor cannot report
  }
  Event(Event&& other) noexcept : m_event(other.m_event) { other.m_event = nullptr; }

  void record(gpu::Context& context) { EIGENQ_CUDA_CHECK(cudaEventRecord(m_event, context.stream())); }
  double secondsSince(const Event& start) const {
    float ms = 0;
    EIGENQ_CUDA_CHECK(cudaEventElapsedTime(&ms, start.m_event, m_event));
    return 1e-3 * static_cast<double>(ms);
  }

 private:
  cudaEvent_t m_event = nullptr;
};

}  // namespace

ReplayTimer::ReplayTimer(gpu::Context& context, int copies, Call call, double budget)
    : m_context(context), m_copies(copies), m_call(std::move(call)) {
  const double seconds = roughDuration();
  const int wanted = clamped(std::ceil(kGraphSeconds / seconds), 1, kMostCallsPerGraph);
  m_replays = clamped(budget / (seconds * wanted), kFewestSamples, kMostSamples);
  if (wanted >= copies) {
    m_graphs.push_back(capture(0, (wanted + copies - 1) / copies * copies));
    return;
  }
  for (int first = 0; first < copies && static_cast<int>(m_graphs.size()) < m_replays; first += wanted)
    m_graphs.push_back(capture(first, std::min(wanted, copies - first)));
}

ReplayTimer::~ReplayTimer() {
  for (const Graph& graph : m_graphs) (void)cudaGraphExecDestroy(graph.executable);  // a destructor cannot report
}

double ReplayTimer::roughDuration() const {
  constexpr int kCalls = 3;
  m_call(0);
  Event start, end;
  start.record(m_context);
  for (int i = 0; i < kCalls; ++i) m_call((i + 1) % m_copies);
  end.record(m_context);
  m_context.synchronize();
  return std::max(end.secondsSince(start) / kCalls, 1e-7);
}

ReplayTimer::Graph ReplayTimer::capture(int firstCopy, int calls) const {
  const cudaStream_t stream = m_context.stream();
  cudaGraph_t captured = nullptr;
  EIGENQ_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    for (int i = 1; i <= calls; ++i) m_call((firstCopy + calls - i) % m_copies);
  } catch (...) {
    (void)cudaStreamEndCapture(stream, &captured);  // the call's own error is the one to tell
    if (captured) (void)cudaGraphDestroy(captured);
    throw;
  }
  EIGENQ_CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, captured, 0);
  EIGENQ_CUDA_CHECK(cudaGraphDestroy(captured));
  EIGENQ_CUDA_CHECK(status);
  return {executable, calls};
}

const ReplayTimer::Graph& ReplayTimer::launch(int replay) const {
  const Graph& graph = m_graphs[static_cast<std::size_t>(replay) % m_graphs.size()];
  EIGENQ_CUDA_CHECK(cudaGraphLaunch(graph.executable, m_context.stream()));
  return graph;
}

Timing ReplayTimer::measure() {
  const std::size_t replays = static_cast<std::size_t>(m_replays);
  std::vector<Event> events(replays + 1);
  std::vector<int> calls;
  // Uploads the graphs and brings the clock up.
  for (int i = 0; i < std::max(static_cast<int>(m_graphs.size()), m_replays / 8); ++i) (void)launch(i);
  events[0].record(m_context);
  for (std::size_t i = 0; i < replays; ++i) {
    calls.push_back(launch(static_cast<int>(i)).calls);
    events[i + 1].record(m_context);
  }
  m_context.synchronize();
  std::vector<double> samples;
  for (std::size_t i = 0; i < replays; ++i) samples.push_back(events[i + 1].secondsSince(events[i]) / calls[i]);
  return summarise(std::move(samples));
}

void ReplayTimer::replayOnce() {
  (void)launch(0);
  m_context.synchronize();
}

Timing measureEager(gpu::Context& context, int copies, const Call& call, double budget) {
  using Clock = std::chrono::steady_clock;
  int copy = 0;
  const auto secondsFor = [&](int calls) {
    context.synchronize();
    const auto start = Clock::now();
    for (int i = 0; i < calls; ++i) call(copy = (copy + 1) % copies);
    context.synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count() / calls;
  };
  (void)secondsFor(copies);
  const int calls = clamped(budget / (kEagerSamples * secondsFor(copies)), 1, 10000);
  std::vector<double> samples;
  for (int i = 0; i < kEagerSamples; ++i) samples.push_back(secondsFor(calls));
  return summarise(std::move(samples));
}

}  // namespace bench
}  // namespace EigenQ
