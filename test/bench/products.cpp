// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_products [THREADS]: quantised products against the control, dequantising into a matrix that is already
// there and multiplying it with Eigen. The two alternate, so that both meet the same clock and the same caches.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <eigen_q/Core>

namespace {

using Eigen::Index;
using Eigen::MatrixXf;

constexpr int kRepetitions = 11;
constexpr double kShortestSample = 2e-3;  // seconds: a thousand times the clock's own cost

template <typename F>
double secondsFor(int calls, F&& f) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / calls;
}

/** Calls per sample, so that one sample lasts kShortestSample; the first call, which warms up, is not counted. */
template <typename F>
int callsPerSample(F&& f) {
  f();
  return std::max(1, static_cast<int>(kShortestSample / std::max(secondsFor(1, f), 1e-9)));
}

struct Timing {
  double median;
  double spread;  // half the distance between the quartiles
};

Timing summarise(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const std::size_t n = samples.size();
  return {samples[n / 2], (samples[3 * n / 4] - samples[n / 4]) / 2};
}

template <typename Ours, typename Control>
void compare(const char* format, const char* expression, Index rows, Index cols, Index tokens, Ours&& ours,
             Control&& control) {
  const int ourCalls = callsPerSample(ours), controlCalls = callsPerSample(control);
  std::vector<double> ourSamples, controlSamples;
  for (int i = 0; i < kRepetitions; ++i) {
    ourSamples.push_back(secondsFor(ourCalls, ours));
    controlSamples.push_back(secondsFor(controlCalls, control));
  }
  const Timing a = summarise(ourSamples), b = summarise(controlSamples);
  const double flop = 2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(tokens);
  std::printf("%-5s %-6s W %5td x %-5td tokens %4td | %9.1f us ± %-7.1f | %7.1f GFLOP/s | %5.2fx dequantise + Eigen\n",
              format, expression, rows, cols, tokens, a.median * 1e6, a.spread * 1e6, flop / a.median * 1e-9,
              b.median / a.median);
  std::fflush(stdout);
}

template <typename Weight>
void compareProducts(const char* format, Index rows, Index cols) {
  const Weight w(MatrixXf::Random(rows, cols));
  MatrixXf dense(rows, cols);
  for (const Index tokens : {1, 8, 64, 512}) {
    const MatrixXf x = MatrixXf::Random(cols, tokens), g = MatrixXf::Random(rows, tokens);
    MatrixXf y(rows, tokens), dx(cols, tokens);
    compare(
        format, "W X", rows, cols, tokens, [&] { y.noalias() = w * x; },
        [&] {
          dense = w;
          y.noalias() = dense * x;
        });
    compare(
        format, "W^T G", rows, cols, tokens, [&] { dx.noalias() = w.transpose() * g; },
        [&] {
          dense = w;
          dx.noalias() = dense.transpose() * g;
        });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1) {
    std::fprintf(stderr, "usage: %s [THREADS]\n", argv[0]);
    return EXIT_FAILURE;
  }
  EigenQ::setMaxThreads(threads);
  Eigen::setNbThreads(threads);
  std::printf("threads: EigenQ %d, Eigen %d; SIMD of the control: %s\n", EigenQ::maxThreads(), Eigen::nbThreads(),
              Eigen::SimdInstructionSetsInUse());
  for (const Index size : {512, 2048}) {
    compareProducts<EigenQ::Int8Matrix>("int8", size, size);
    compareProducts<EigenQ::NF4Matrix>("nf4", size, size);
    compareProducts<EigenQ::FP4Matrix>("fp4", size, size);
  }
  return EXIT_SUCCESS;
}
