// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_fourbit [THREADS [SECONDS [ROWS…]]]: NF4 products, X·Wᵀ and X·W, beside float products of OpenBLAS,
// oneDNN and Eigen that have the decoded matrix already, and beside dequantising and multiplying with OpenBLAS.
//
// Weights are cold: copies of W, together more than kColdBytes, are used in turn. EIGENQ_CPU, OPENBLAS_CORETYPE
// (Haswell) and DNNL_MAX_CPU_ISA (AVX2) choose instruction sets. Limits are measured in the same run.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <eigen_q/Core>

#include "Arguments.h"
#include "Limits.h"

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(EIGENQ_BENCH_DNNL)
#include <dnnl.h>
#endif
#if defined(EIGENQ_BENCH_OPENBLAS)
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
#endif

namespace {

using namespace EigenQ::bench;
using Eigen::Index;
using EigenQ::NF4Matrix;
using Matrix = EigenQ::RowMajorMatrix<float>;

// ---- products -----------------------------------------------------------------------------------------------------

struct Problem {
  Index rows, n, k;  // W is n×k
  bool transposed;   // Y = X·Wᵀ
  std::vector<NF4Matrix> weights;
  std::vector<Matrix> dense;
  Matrix decoded, x, y;

  Problem(Index rows_, Index n_, Index k_, bool transposed_)
      : rows(rows_), n(n_), k(k_), transposed(transposed_), x(Matrix::Random(rows, transposed ? k : n)) {
    y.resize(rows, transposed ? n : k);
    const Matrix values = Matrix::Random(n, k).array().cube();
    const double size = static_cast<double>(n * k);
    weights.assign(std::max<std::size_t>(2, static_cast<std::size_t>(kColdBytes / size * 2)), NF4Matrix(values));
    decoded = weights.front();
    dense.assign(std::max<std::size_t>(2, static_cast<std::size_t>(kColdBytes / size / 4)), decoded);
  }
};

#if defined(EIGENQ_BENCH_OPENBLAS)
void multiplyOpenBlas(Problem& p, const Matrix& w) {
  const auto order = p.transposed ? CblasNoTrans : CblasTrans;
  if (p.rows == 1) {
    cblas_sgemv(CblasRowMajor, order, int(p.n), int(p.k), 1, w.data(), int(p.k), p.x.data(), 1, 0, p.y.data(), 1);
  } else {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, p.transposed ? CblasTrans : CblasNoTrans, int(p.rows), int(p.y.cols()),
                int(p.x.cols()), 1, p.x.data(), int(p.x.cols()), w.data(), int(p.k), 0, p.y.data(), int(p.y.cols()));
  }
}
#endif

void multiply(Problem& p, std::size_t i) {
  const NF4Matrix& w = p.weights[i % p.weights.size()];
  if (p.transposed) {
    p.y.noalias() = p.x * w.transpose();
  } else {
    p.y.noalias() = p.x * w;
  }
}

std::vector<Candidate> makeCandidates(Problem& p, int threads) {
  std::vector<Candidate> all;
  all.emplace_back("EigenQ", [&p](std::size_t i) { multiply(p, i); });
  if (threads > 1) {
    all.emplace_back("EigenQ, one thread", [&p, threads](std::size_t i) {
      EigenQ::setMaxThreads(1);
      multiply(p, i);
      EigenQ::setMaxThreads(threads);
    });
  }
#if defined(EIGENQ_BENCH_OPENBLAS)
  all.emplace_back("OpenBLAS", [&p](std::size_t i) { multiplyOpenBlas(p, p.dense[i % p.dense.size()]); });
  all.emplace_back("dequantise + OpenBLAS", [&p](std::size_t i) {
    p.decoded = p.weights[i % p.weights.size()];
    multiplyOpenBlas(p, p.decoded);
  });
#endif
#if defined(EIGENQ_BENCH_DNNL)
  all.emplace_back("oneDNN", [&p](std::size_t i) {
    dnnl_sgemm('N', p.transposed ? 'T' : 'N', p.rows, p.y.cols(), p.x.cols(), 1, p.x.data(), p.x.cols(),
               p.dense[i % p.dense.size()].data(), p.k, 0, p.y.data(), p.y.cols());
  });
#endif
  all.emplace_back("Eigen", [&p](std::size_t i) {
    const Matrix& w = p.dense[i % p.dense.size()];
    if (p.transposed) {
      p.y.noalias() = p.x * w.transpose();
    } else {
      p.y.noalias() = p.x * w;
    }
  });
  return all;
}

/** Relative error of the first row of Y, in the Frobenius norm. */
double relativeError(const Problem& p) {
  const Eigen::MatrixXd w = p.dense.front().cast<double>();
  const Eigen::RowVectorXd x = p.x.row(0).cast<double>();
  const Eigen::RowVectorXd exact = p.transposed ? (x * w.transpose()).eval() : (x * w).eval();
  return (p.y.row(0).cast<double>() - exact).norm() / exact.norm();
}

void measure(Index rows, Index n, Index k, bool transposed, int threads, double seconds) {
  Problem p(rows, n, k, transposed);
  std::vector<Candidate> candidates = makeCandidates(p, threads);
  candidates.front().run(0);
  const double error = relativeError(p);
  if (!(error <= 1e-4)) {
    std::fprintf(stderr, "wrong product: relative error %g\n", error);
    std::exit(EXIT_FAILURE);
  }
  takeTurns(candidates, threads, seconds);
  const double ours = candidates.front().median(), weights = static_cast<double>(n * k);
  std::printf("| %s | %td×%td | %td | %.3f | %.0f | %.1f | %.0e |", transposed ? "X Wᵀ" : "X W", n, k, rows, ours * 1e3,
              2e-9 * weights * static_cast<double>(rows) / ours, 0.5625e-9 * weights / ours, error);
  for (std::size_t c = 1; c < candidates.size(); ++c) {
    std::printf(" %.2f ms, %.2f |", candidates[c].median() * 1e3, candidates[c].median() / ours);
  }
  std::puts("");
  std::fflush(stdout);
}

void printHead(Problem& p, int threads) {
  std::printf("| product | N×K | rows | ms | GFLOP/s | GB/s of W | error |");
  const std::vector<Candidate> candidates = makeCandidates(p, threads);
  for (std::size_t c = 1; c < candidates.size(); ++c) std::printf(" %s: ms, over ours |", candidates[c].name.c_str());
  std::printf("\n|---|---|---|---|---|---|---|");
  for (std::size_t c = 1; c < candidates.size(); ++c) std::printf("---|");
  std::puts("");
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments{1, 2, {1, 2, 4, 8, 16, 32, 64, 128, 512}};
  arguments.parse(argc, argv);
  const auto& [threads, seconds, rows] = arguments;
  EigenQ::setMaxThreads(threads);
#if defined(_OPENMP)
  omp_set_num_threads(threads);  // Eigen's and oneDNN's
#endif
#if defined(EIGENQ_BENCH_OPENBLAS)
  openblas_set_num_threads(threads);
#endif
  printLimits(threads);
  Problem smallest(1, 64, 64, true);
  printHead(smallest, threads);
  for (const bool transposed : {true, false}) {
    for (const Index n : {4096, 11008}) {
      for (const Index m : rows) measure(m, n, 4096, transposed, threads, seconds);
    }
  }
  return EXIT_SUCCESS;
}
