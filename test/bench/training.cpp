// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_training [THREADS [SECONDS]]: what a step of training runs beside its quantised products, on data that
// no cache holds: optimisers, elementwise ops, dense products and attention in float. Beside what is bound by memory
// stands copying as many bytes with memcpy, cut among as many threads. EIGENQ_CPU chooses instruction sets;
// bench/cpu_rivals.py times PyTorch's and bitsandbytes' optimisers on the same sizes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#include <eigen_q/Core>
#include <eigen_q/src/FloatKernels.h>
#include <eigen_q/src/OptimizerKernels.h>

#include "../../src/cpu/parallel.h"
#include "Candidates.h"

namespace {

using namespace EigenQ;
using internal::floatKernels;

constexpr Index kRows = 4096, kCols = 4096, kValues = kRows * kCols;

/** One experiment: \a bytes read and written, \a flops. */
struct Case {
  const char* name;
  double bytes, flops;
  std::function<void(std::size_t)> run;
};

Eigen::VectorXf randomVector(Index size) { return Eigen::VectorXf::Random(size); }

/** Reads and writes \a bytes in all. */
class Copy {
 public:
  explicit Copy(double bytes)
      : m_size(static_cast<std::size_t>(bytes) / 2), m_from(m_size, std::uint8_t(1)), m_to(m_size) {}

  void operator()() {
    constexpr Index kPieces = 64;
    internal::parallelFor(
        kPieces,
        [](void* context, Index i) {
          Copy& copy = *static_cast<Copy*>(context);
          const std::size_t piece = copy.m_size / kPieces, at = static_cast<std::size_t>(i) * piece;
          std::memcpy(copy.m_to.data() + at, copy.m_from.data() + at, piece);
        },
        this);
  }

 private:
  std::size_t m_size;
  std::vector<std::uint8_t> m_from, m_to;
};

/** A parameter with gradient and moments, 8-bit and float. */
struct Trained {
  Eigen::VectorXf w = randomVector(kValues), g = randomVector(kValues) * 1e-2f;
  Eigen::VectorXf m = Eigen::VectorXf::Zero(kValues), v = Eigen::VectorXf::Zero(kValues);
  ByteVector mCodes = ByteVector::Constant(kValues, 127), vCodes = ByteVector::Zero(kValues);
  Eigen::VectorXf mAbsmax = Eigen::VectorXf::Zero(kValues / internal::kOptimizerBlockSize), vAbsmax = mAbsmax;

  void adam8bit() {
    internal::AdamStep s = adam();
    s.m = {mCodes.data(), mAbsmax.data(), nullptr};
    s.v = {vCodes.data(), vAbsmax.data(), nullptr};
    internal::runAdam(s);
  }
  void adamFloat() {
    internal::AdamStep s = adam();
    s.m.values = m.data();
    s.v.values = v.data();
    internal::runAdam(s);
  }
  void lion8bit() {
    internal::LionStep s;
    s.size = kValues;
    s.parameter = w.data();
    s.gradient = g.data();
    s.m = {mCodes.data(), mAbsmax.data(), nullptr};
    s.beta1 = 0.9f;
    s.beta2 = 0.99f;
    s.rate = 1e-5f;
    internal::runLion(s);
  }
  void adamW() {
    floatKernels().adamW({kValues, w.data(), g.data(), m.data(), v.data(), 1, 0.9f, 0.999f, 1e-4f, 1, 0.9999f, 1e-8f});
  }

 private:
  internal::AdamStep adam() {
    internal::AdamStep s;
    s.size = kValues;
    s.parameter = w.data();
    s.gradient = g.data();
    s.beta1 = 0.9f;
    s.beta2 = 0.999f;
    s.rate = 1e-4f;
    s.eps = 1e-8f;
    return s;
  }
};

void optimisers(std::vector<Case>& cases, Trained& t) {
  cases.push_back({"AdamW, 8-bit moments", 16, 0, [&](std::size_t) { t.adam8bit(); }});
  cases.push_back({"Lion, 8-bit moment", 14, 0, [&](std::size_t) { t.lion8bit(); }});
  cases.push_back({"AdamW8bit, float moments", 28, 0, [&](std::size_t) { t.adamFloat(); }});
  cases.push_back({"AdamW", 28, 0, [&](std::size_t) { t.adamW(); }});
}

void elementwise(std::vector<Case>& cases, Trained& t) {
  static Eigen::VectorXf inverse(kCols), gain = Eigen::VectorXf::Ones(kRows), lse(kCols);
  static Eigen::VectorXi positions(kCols);
  constexpr Index kHalf = 64;
  std::iota(positions.data(), positions.data() + kCols, 0);
  static const Eigen::VectorXf cosines = randomVector(kCols * kHalf), sines = randomVector(kCols * kHalf);
  const float *x = t.w.data(), *x2 = t.g.data();
  float *y = t.m.data(), *y2 = t.v.data();
  cases.push_back({"RMSNorm", 8, 0, [=](std::size_t) {
                     floatKernels().rmsNorm({kRows, kCols, x, gain.data(), inverse.data()}, 1e-6f, y);
                   }});
  cases.push_back(
      {"RMSNorm, gradient", 12, 0, [=](std::size_t) {
         floatKernels().rmsNormBackward({kRows, kCols, x, gain.data(), inverse.data()}, x2, {y, false}, nullptr);
       }});
  cases.push_back({"SwiGLU", 12, 0, [=](std::size_t) { floatKernels().swiglu(kValues, x, x2, y); }});
  cases.push_back({"SwiGLU, gradients", 20, 0, [=](std::size_t) {
                     floatKernels().swigluBackward(kValues, x, x2, x, {y, false}, {y2, false});
                   }});
  cases.push_back({"rotary embedding", 8, 0, [=](std::size_t) {
                     floatKernels().rope({kRows / (2 * kHalf),
                                          kHalf,
                                          kCols,
                                          false,
                                          1,
                                          cosines.data(),
                                          sines.data(),
                                          positions.data(),
                                          x,
                                          {y, false}});
                   }});
  cases.push_back({"dropout", 8, 0, [=](std::size_t i) {
                     floatKernels().dropout({kValues, 1, i, 1u << 20, 1.0667f, x, {y, false}});
                   }});
  cases.push_back({"log-sum-exp of columns", 4, 0, [=](std::size_t) {
                     for (Index j = 0; j < kCols; ++j) lse(j) = floatKernels().logSumExp(kRows, x + j * kRows);
                   }});
}

void products(std::vector<Case>& cases, Trained& t) {
  constexpr Index kTokens = 512, kSize = 2048, kHeads = 16, kHeadDim = 128, kQueries = 1024;
  const float *x = t.w.data(), *w = t.g.data();
  float* y = t.m.data();
  const auto multiply = [&](const char* name, internal::ConstDenseView a, internal::ConstDenseView b, Index n) {
    const double flops = 2.0 * double(a.rows) * double(a.cols) * double(n);
    cases.push_back({name, 0, flops, [=](std::size_t) {
                       floatKernels().multiply({a, b, {y, ScalarType::kFloat, a.rows, n, n, 1}, 1, false});
                     }});
  };
  const auto kFloat = ScalarType::kFloat;
  multiply("X W, 512 rows, 2048x2048", {x, kFloat, kTokens, kSize, kSize, 1}, {w, kFloat, kSize, kSize, kSize, 1},
           kSize);
  multiply("X W', the same", {x, kFloat, kTokens, kSize, kSize, 1}, {w, kFloat, kSize, kSize, 1, kSize}, kSize);
  multiply("X' G, the same", {x, kFloat, kSize, kTokens, 1, kSize}, {w, kFloat, kTokens, kSize, kSize, 1}, kSize);

  static const internal::AttentionSequence sequence{0, 0, 0, kQueries};
  static Eigen::VectorXf lse(kHeads * kQueries);
  constexpr Index kHead = kHeads * kHeadDim * kQueries;
  const internal::FloatAttention a{kHeads, kHeads, kHeadDim, 0, 0.09f, &sequence, 1, x, w, w + kHead, y, lse.data()};
  const double half = 2.0 * double(kHeads * kHeadDim) * double(kQueries) * double(kQueries) / 2;
  cases.push_back(
      {"attention, 1024 tokens, 16 heads of 128", 0, 2 * half, [=](std::size_t) { floatKernels().attend(a); }});
  cases.push_back({"attention, gradients", 0, 5 * half, [=, &t](std::size_t) {
                     float* d = t.v.data();
                     floatKernels().attendBackward({a, x + kHead, d, d + kHead, d + 2 * kHead});
                   }});
}

void report(const Case& c, int threads, double seconds) {
  const bool moves = c.bytes > 0;
  std::vector<bench::Candidate> candidates{{c.name, c.run}};
  const double bytes = c.bytes * double(kValues);
  Copy copy(moves ? bytes : 2);
  if (moves) candidates.emplace_back("copy", [&](std::size_t) { copy(); });
  bench::takeTurns(candidates, threads, seconds);
  const double time = candidates[0].median();
  if (moves) {
    std::printf("| %s | %.2f | %.1f GB/s | %.2f |\n", c.name, time * 1e3, bytes / time * 1e-9,
                candidates[1].median() / time);
  } else {
    std::printf("| %s | %.2f | %.0f GFLOP/s | |\n", c.name, time * 1e3, c.flops / time * 1e-9);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  setMaxThreads(threads);
  static Trained data;
  std::vector<Case> cases;
  optimisers(cases, data);
  elementwise(cases, data);
  products(cases, data);
  std::printf("| work | ms | rate | of memcpy's speed |\n|---|---|---|---|\n");
  for (const Case& c : cases) report(c, threads, seconds);
  return EXIT_SUCCESS;
}
