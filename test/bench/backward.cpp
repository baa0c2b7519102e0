// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_backward [THREADS [SECONDS [ROWS…]]]: products with W as it is stored, X·W or Wᵀ·G in the backward pass
// of a layer, of NF4 and int8, beside dequantising and multiplying with OpenBLAS, and beside OpenBLAS alone.
//
// Weights are cold: copies of W, together more than kColdBytes, are used in turn. EIGENQ_CPU and OPENBLAS_CORETYPE
// (Haswell) choose instruction sets. Limits are measured in the same run; the share of one is the greater of what W's
// bytes and the multiplications would take by themselves, over the time.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <eigen_q/Core>

#include "Arguments.h"
#include "Limits.h"

#if defined(EIGENQ_BENCH_OPENBLAS)
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
#endif

namespace {

using namespace EigenQ::bench;
using Eigen::Index;
using Matrix = EigenQ::RowMajorMatrix<float>;

template <typename Weights>
double bytesPerWeight();
template <>
double bytesPerWeight<EigenQ::NF4Matrix>() {
  return 0.5 + 4.0 / 64;
}
template <>
double bytesPerWeight<EigenQ::Int8Matrix>() {
  return 1;
}

template <typename Weights>
struct Problem {
  std::vector<Weights> weights;  // each n×k
  std::vector<Matrix> dense;
  Matrix decoded, x, y;

  Problem(Index rows, Index n, Index k) : x(Matrix::Random(rows, n)), y(rows, k) {
    const Matrix values = Matrix::Random(n, k).array().cube();
    const double size = static_cast<double>(n * k);
    const auto copies = [&](double bytes) { return std::max<std::size_t>(2, std::size_t(kColdBytes / size / bytes)); };
    weights.assign(copies(bytesPerWeight<Weights>()), Weights(values));
    decoded = weights.front();
    dense.assign(copies(4), decoded);
  }

#if defined(EIGENQ_BENCH_OPENBLAS)
  void multiplyOpenBlas(const Matrix& w) {
    const int m = int(x.rows()), n = int(w.rows()), k = int(w.cols());
    if (m == 1) {
      cblas_sgemv(CblasRowMajor, CblasTrans, n, k, 1, w.data(), k, x.data(), 1, 0, y.data(), 1);
    } else {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, k, n, 1, x.data(), n, w.data(), k, 0, y.data(), k);
    }
  }

#endif

  /** Relative error of the first row of Y, in the Frobenius norm. */
  double relativeError() const {
    const Eigen::RowVectorXd exact = x.row(0).cast<double>() * dense.front().cast<double>();
    return (y.row(0).cast<double>() - exact).norm() / exact.norm();
  }
};

template <typename Weights>
void measure(const char* format, Index rows, Index n, Index k, int threads, double seconds, const Limits& limits) {
  Problem<Weights> p(rows, n, k);
  std::vector<Candidate> candidates;
  const auto multiply = [&p](std::size_t i) { p.y.noalias() = p.x * p.weights[i % p.weights.size()]; };
  candidates.emplace_back("EigenQ", multiply);
#if defined(EIGENQ_BENCH_OPENBLAS)
  candidates.emplace_back("dequantise + OpenBLAS", [&](std::size_t i) {
    p.decoded = p.weights[i % p.weights.size()];
    p.multiplyOpenBlas(p.decoded);
  });
  candidates.emplace_back("OpenBLAS", [&](std::size_t i) { p.multiplyOpenBlas(p.dense[i % p.dense.size()]); });
#endif
  if (threads > 1) {
    candidates.emplace_back("EigenQ, one thread", [&](std::size_t i) {
      EigenQ::setMaxThreads(1);
      multiply(i);
      EigenQ::setMaxThreads(threads);
    });
  }
  candidates.front().run(0);
  const double error = p.relativeError();
  if (!(error <= 1e-5)) {
    std::fprintf(stderr, "wrong product: relative error %g\n", error);
    std::exit(EXIT_FAILURE);
  }
  takeTurns(candidates, threads, seconds);
  const double ours = candidates[0].median(), weights = static_cast<double>(n * k);
  const double flop = 2 * weights * static_cast<double>(rows), bytes = weights * bytesPerWeight<Weights>();
  const double floor = std::max(flop / limits.flops, bytes / limits.bytes);
  std::printf("| %s | %td×%td | %td | %.3f | %.0f | %.1f | %.0f %% | %.0e |", format, n, k, rows, ours * 1e3,
              1e-9 * flop / ours, 1e-9 * bytes / ours, 100 * floor / ours, error);
  for (std::size_t c = 1; c < candidates.size(); ++c) std::printf(" %.2f |", candidates[c].median() / ours);
  std::puts("");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments{1, 1, {1, 2, 4, 8, 32, 128}};
  arguments.parse(argc, argv);
  const auto& [threads, seconds, rows] = arguments;
  EigenQ::setMaxThreads(threads);
#if defined(EIGENQ_BENCH_OPENBLAS)
  openblas_set_num_threads(threads);
#endif
  const Limits limits = printLimits(threads);
  std::printf(
      "| W | N×K | rows | ms | GFLOP/s | GB/s of W | of the limit | error | deq. + OpenBLAS / ours | OpenBLAS / ours "
      "|%s\n|---|---|---|---|---|---|---|---|---|---|%s\n",
      threads > 1 ? " one thread / ours |" : "", threads > 1 ? "---|" : "");
  for (const Index n : {4096, 11008}) {
    for (const Index m : rows) measure<EigenQ::NF4Matrix>("NF4", m, n, 4096, threads, seconds, limits);
    for (const Index m : rows) measure<EigenQ::Int8Matrix>("int8", m, n, 4096, threads, seconds, limits);
  }
  return EXIT_SUCCESS;
}
