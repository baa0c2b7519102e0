// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_quantize [THREADS]: quantisers and dequantisers of a 4096×4096 matrix, beside copying it.
// bench/cpu_rivals.py times those of bitsandbytes on the same sizes. EIGENQ_CPU chooses instruction sets.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include <eigen_q/Core>

namespace {

using namespace EigenQ;

constexpr Index kSize = 4096;
constexpr double kValues = double(kSize) * kSize;
constexpr int kSamples = 9;

/** One thread is timed by its own clock, which stands still while other programs have the core. */
double now() {
  if (maxThreads() > 1)
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/** \a bytes  read and written for each value */
template <typename F>
void report(const char* name, double bytes, const F& f) {
  f();
  std::vector<double> seconds(kSamples);
  for (double& s : seconds) {
    const double start = now();
    f();
    s = now() - start;
  }
  std::nth_element(seconds.begin(), seconds.begin() + kSamples / 2, seconds.end());
  const double median = seconds[kSamples / 2];
  std::printf("| %s | %.2f | %.1f |\n", name, median * 1e3, bytes * kValues / median * 1e-9);
}

void reportAll() {
  const RowMajorMatrix<float> x = RowMajorMatrix<float>::Random(kSize, kSize);
  const RowMajorMatrix<Eigen::bfloat16> narrow = x.cast<Eigen::bfloat16>();
  RowMajorMatrix<float> y(kSize, kSize);
  ByteVector packed(kSize * kSize / 2);
  Eigen::VectorXf absmax(kSize * kSize / 64);
  const auto quantize = [&](const auto& from, FourBitType type) {
    internal::quantizeFourBit(internal::viewOf(from), type, 64, packed.data(), absmax.data());
  };
  std::printf("| work | ms | GB/s |\n|---|---|---|\n");
  report("copy", 8, [&] { std::memcpy(y.data(), x.data(), sizeof(float) * kSize * kSize); });
  report("quantise NF4, float", 4.5625, [&] { quantize(x, FourBitType::kNF4); });
  report("quantise NF4, bfloat16", 2.5625, [&] { quantize(narrow, FourBitType::kNF4); });
  report("quantise FP4, float", 4.5625, [&] { quantize(x, FourBitType::kFP4); });
  report("quantise NF4, nested", 4.5, [&] { quantize4bit(x, FourBitType::kNF4, 64, true); });
  const NF4Matrix nf4(x);
  report("dequantise NF4, float", 4.5625, [&] { y = nf4; });
  Int8Codes codes(kSize, kSize);
  Eigen::VectorXf stats(kSize);
  report("quantise int8 rows", 5,
         [&] { internal::quantizeInt8Rows(internal::viewOf(x), 0, codes.data(), stats.data(), nullptr); });
  const Int8Matrix int8(x);
  report("dequantise int8 rows", 5, [&] { y = int8; });
}

}  // namespace

int main(int argc, char** argv) {
  setMaxThreads(argc > 1 ? std::atoi(argv[1]) : 1);
  reportAll();
  return EXIT_SUCCESS;
}
