// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_int8 [THREADS [SECONDS [ROWS…]]]: LLM.int8() products, float in and float out, beside oneDNN's int8
// products and OpenBLAS' float ones.
//
// Weights are cold: copies of W, together more than kColdBytes, are used in turn. All candidates of a line take turns
// as well, and the median of each is kept; ratios hold within a line. What is checked before the clock starts: codes'
// sums against plain 64-bit integers. oneDNN gets codes that are quantised already and weights in its own layout: its
// time leaves both out. EIGENQ_CPU and ONEDNN_MAX_CPU_ISA choose instruction sets.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <eigen_q/Core>

#include "Arguments.h"
#include "Limits.h"

#if defined(EIGENQ_BENCH_DNNL)
#include <oneapi/dnnl/dnnl.hpp>
#endif
#if defined(EIGENQ_BENCH_OPENBLAS)
#include <cblas.h>
extern "C" void openblas_set_num_threads(int);
#endif

namespace {

using namespace EigenQ::bench;
using Eigen::Index;
using EigenQ::Int8Matrix;
using EigenQ::RowMajorMatrix;
using Matrix = RowMajorMatrix<float>;

struct Problem {
  Index rows, n, k;
  std::vector<Int8Matrix> weights;
  Matrix x, xOutliers, y;
  std::size_t copies() const { return weights.size(); }
};

Problem makeProblem(Index rows, Index n, Index k) {
  Problem p{rows, n, k, {}, Matrix::Random(rows, k), {}, Matrix(rows, n)};
  p.xOutliers = p.x;
  for (Index o = 0; o < 6; ++o) p.xOutliers(o % rows, (o * 677 + 31) % k) = 20;
  const auto copies = static_cast<std::size_t>(std::ceil(kColdBytes / static_cast<double>(n * k)));
  p.weights.assign(std::max<std::size_t>(2, copies), Int8Matrix(Matrix::Random(n, k)));
  return p;
}

/** A sample of Y against exact sums of the codes. */
void check(const Problem& p) {
  const EigenQ::Int8Quantized x = EigenQ::int8VectorwiseQuant(p.x);
  const Int8Matrix& w = p.weights.front();
  for (Index j = 0; j < p.n; j += 97) {
    const Index i = j % p.rows;
    long long sum = 0;
    for (Index c = 0; c < p.k; ++c) sum += x.codes(i, c) * w.codes()(j, c);
    const double exact = static_cast<double>(sum) * static_cast<double>(x.rowStats[i]) *
                         static_cast<double>(w.rowAbsmax()[j]) / (127.0 * 127.0);
    if (std::abs(static_cast<double>(p.y(i, j)) - exact) <= 1e-6 * std::abs(exact)) continue;
    std::fprintf(stderr, "wrong sum at (%td, %td): %g, expected %g\n", i, j, static_cast<double>(p.y(i, j)), exact);
    std::exit(EXIT_FAILURE);
  }
}

#if defined(EIGENQ_BENCH_DNNL)
/** oneDNN's matmul of u8 or s8 activations with s8 weights in the layout that it likes best; a scale per column. */
class DnnlProduct {
 public:
  DnnlProduct(const Problem& p, dnnl::memory::data_type activations)
      : m_engine(dnnl::engine::kind::cpu, 0), m_stream(m_engine) {
    using dnnl::memory;
    const memory::desc x({p.rows, p.k}, activations, memory::format_tag::ab);
    const memory::desc w({p.k, p.n}, memory::data_type::s8, memory::format_tag::any);
    const memory::desc y({p.rows, p.n}, memory::data_type::f32, memory::format_tag::ab);
    dnnl::primitive_attr attr;
    attr.set_output_scales(1 << 1, std::vector<float>(static_cast<std::size_t>(p.n), 0.01f));
    const dnnl::matmul::primitive_desc description({x, w, y}, attr, m_engine);
    m_product = dnnl::matmul(description);
    m_x = memory(x, m_engine);
    std::fill_n(static_cast<std::int8_t*>(m_x.get_data_handle()), p.rows * p.k, std::int8_t{57});
    m_y = memory(y, m_engine);
    const memory::desc stored({p.k, p.n}, memory::data_type::s8, memory::format_tag::ba);
    for (const Int8Matrix& weight : p.weights) {
      memory from(stored, m_engine, const_cast<std::int8_t*>(weight.codes().data()));
      m_w.emplace_back(description.weights_desc(), m_engine);
      dnnl::reorder(from, m_w.back()).execute(m_stream, from, m_w.back());
    }
    m_stream.wait();
  }

  void operator()(std::size_t copy) {
    m_product.execute(m_stream, {{DNNL_ARG_SRC, m_x}, {DNNL_ARG_WEIGHTS, m_w[copy]}, {DNNL_ARG_DST, m_y}});
    m_stream.wait();
  }

 private:
  dnnl::engine m_engine;
  dnnl::stream m_stream;
  dnnl::matmul m_product;
  dnnl::memory m_x, m_y;
  std::vector<dnnl::memory> m_w;
};
#endif

std::vector<Candidate> makeCandidates(Problem& p, int threads) {
  std::vector<Candidate> all;
  const auto multiply = [&p](const Matrix& x, std::size_t sample) {
    p.y.noalias() = x * p.weights[sample % p.copies()].withThreshold(6).transpose();
  };
  all.emplace_back("EigenQ", [&p, multiply](std::size_t i) { multiply(p.x, i); });
  all.emplace_back("EigenQ, 6 outliers", [&p, multiply](std::size_t i) { multiply(p.xOutliers, i); });
  if (threads > 1) {
    all.emplace_back("EigenQ, one thread", [&p, multiply, threads](std::size_t i) {
      EigenQ::setMaxThreads(1);
      multiply(p.x, i);
      EigenQ::setMaxThreads(threads);
    });
  }
#if defined(EIGENQ_BENCH_DNNL)
  for (const auto type : {dnnl::memory::data_type::u8, dnnl::memory::data_type::s8}) {
    const auto product = std::make_shared<DnnlProduct>(p, type);
    const char* name = type == dnnl::memory::data_type::u8 ? "oneDNN u8s8" : "oneDNN s8s8";
    all.emplace_back(name, [&p, product](std::size_t i) { (*product)(i % p.copies()); });
  }
#endif
#if defined(EIGENQ_BENCH_OPENBLAS)
  const auto dense =
      std::make_shared<std::vector<Matrix>>(std::max<std::size_t>(2, p.copies() / 4), Matrix::Random(p.n, p.k));
  all.emplace_back("OpenBLAS float", [&p, dense](std::size_t i) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, int(p.rows), int(p.n), int(p.k), 1, p.x.data(), int(p.k),
                (*dense)[i % dense->size()].data(), int(p.k), 0, p.y.data(), int(p.n));
  });
#endif
  return all;
}

void measure(Index rows, Index n, Index k, int threads, double seconds) {
  Problem p = makeProblem(rows, n, k);
  std::vector<Candidate> candidates = makeCandidates(p, threads);
  candidates.front().run(0);
  check(p);
  takeTurns(candidates, threads, seconds);
  const double ours = candidates.front().median();
  for (const Candidate& c : candidates) {
    const double time = c.median();
    std::printf("| %td | %td×%td | %s | %.3f | %.0f | %.2f |\n", rows, n, k, c.name.c_str(), time * 1e3,
                2e-9 * static_cast<double>(rows * n * k) / time, time / ours);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments{1, 2, {1, 8, 32, 128, 512}};
  arguments.parse(argc, argv);
  const auto& [threads, seconds, rows] = arguments;
  EigenQ::setMaxThreads(threads);
#if defined(EIGENQ_BENCH_OPENBLAS)
  openblas_set_num_threads(threads);
#endif
  printLimits(threads);
  std::printf("| rows | N×K | product | ms | GOP/s | time over ours |\n|---|---|---|---|---|---|\n");
  for (const Index n : {4096, 11008}) {
    for (const Index m : rows) measure(m, n, 4096, threads, seconds);
  }
  return EXIT_SUCCESS;
}
