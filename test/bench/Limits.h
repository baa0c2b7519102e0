// SPDX-License-Identifier: MPL-2.0
// What bounds a product on this machine, measured in the run that it bounds.
#ifndef EIGENQ_TEST_BENCH_LIMITS_H
#define EIGENQ_TEST_BENCH_LIMITS_H

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "Candidates.h"

namespace EigenQ {
namespace bench {

typedef float Vec32 __attribute__((vector_size(32)));
typedef float Vec64 __attribute__((vector_size(64)));

/** GFLOP/s of one thread that does nothing but fused multiplications, twelve at a time. */
template <typename Vec>
double multiplyLimit() {
  Vec sum[12] = {}, a = Vec{} + 1.0000001f, b = Vec{} + 1e-9f;
  asm volatile("" : "+x"(a), "+x"(b));
  for (Vec& s : sum) asm volatile("" : "+x"(s));  // or the compiler would see twelve equal sums, and keep one
  constexpr int kRounds = 4000000;
  const double start = now(1);
  for (int i = 0; i < kRounds; ++i) {
    for (Vec& s : sum) s = s * a + b;
  }
  const double seconds = now(1) - start;
  Vec total = sum[0];
  for (const Vec& s : sum) total += s;
  volatile float used = total[0];
  static_cast<void>(used);
  return kRounds * 12.0 * 2 * sizeof(Vec) / 4 / seconds * 1e-9;
}

/** GFLOP/s of \a threads threads at once, which together may have less than each alone: cores share power, or are
 * threads of one core. */
template <typename Vec>
double multiplyLimit(int threads) {
  std::vector<double> each(static_cast<std::size_t>(threads));
  std::vector<std::thread> others;
  for (double& mine : each) others.emplace_back([&mine] { mine = multiplyLimit<Vec>(); });
  for (std::thread& other : others) other.join();
  return std::accumulate(each.begin(), each.end(), 0.0);
}

/** GB/s of \a threads threads that read 256 MiB; the best of five rounds. */
inline double readLimit(int threads) {
  const std::vector<std::uint64_t> data(std::size_t(32) << 20, 1);
  const std::size_t share = data.size() / static_cast<std::size_t>(threads);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
    const double start = now(2);
    std::vector<std::thread> others;
    for (std::size_t t = 0; t < sums.size(); ++t) {
      others.emplace_back([&, t] {
        std::uint64_t sum = 0;
        for (std::size_t i = t * share; i < (t + 1) * share; ++i) sum += data[i];
        sums[t] = sum;
      });
    }
    for (std::thread& other : others) other.join();
    best = std::max(best, static_cast<double>(data.size()) * 8e-9 / (now(2) - start));
    volatile std::uint64_t used = sums[0];
    static_cast<void>(used);
  }
  return best;
}

/** Of all threads together. */
struct Limits {
  double flops, bytes;  // a second: multiplications and additions, what is read from memory
};

/** Measures, and prints a line, as a benchmark's output begins. */
inline Limits printLimits(int threads) {
  double gflops = multiplyLimit<Vec32>(threads);
  std::printf("%d threads; one multiplies at %.0f GFLOP/s in 32 bytes, all at %.0f", threads, multiplyLimit<Vec32>(),
              gflops);
#if defined(__AVX512F__)
  const double wide = multiplyLimit<Vec64>(threads);
  std::printf("; one at %.0f in 64, all at %.0f", multiplyLimit<Vec64>(), wide);
  const char* const cpu = std::getenv("EIGENQ_CPU");
  if (!cpu || std::strncmp(cpu, "avx512", 6) == 0) gflops = wide;
#endif
  const double gigabytes = readLimit(threads);
  std::printf("; they read %.1f GB/s", gigabytes);
  if (threads > 1) std::printf(", one %.1f", readLimit(1));
  std::puts("\n");
  return {1e9 * gflops, 1e9 * gigabytes};
}

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_TEST_BENCH_LIMITS_H
