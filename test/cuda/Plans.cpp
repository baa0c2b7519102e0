// SPDX-License-Identifier: MPL-2.0
// Dense products by cuBLASLt: when plans are made, that known ones wait for nothing, that measuring changes no result,
// and what is refused.
#define BOOST_TEST_MODULE DevicePlans
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <chrono>
#include <thread>

#include <src/cuda/context_state.h>
#include <src/cuda/plan_cache.h>

#include "Device.h"
#include "Mirror.h"

using namespace EigenQ;
using namespace EigenQ::test;
using gpu::Context;
using gpu::internal::Gemm;
using gpu::internal::refuseGemm;
using gpu::internal::runGemm;

namespace {

/** Holds a stream until it is told to go on, or for some seconds. */
class Gate {
 public:
  explicit Gate(Context& context) { EIGENQ_CUDA_CHECK(cudaLaunchHostFunc(context.stream(), &Gate::wait, this)); }
  void open() { m_open = true; }

 private:
  static void wait(void* self) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (!static_cast<Gate*>(self)->m_open && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::atomic<bool> m_open{false};
};

bool isIdle(const Context& context) { return cudaStreamQuery(context.stream()) == cudaSuccess; }

/** D (m×n) = Aᵀ·B of packed operands with k rows. */
Gemm packedGemm(cudaDataType_t factors, cudaDataType_t result, Index m, Index n, Index k, const DeviceBytes& a,
                const DeviceBytes& b, const DeviceBytes& d) {
  Gemm g;
  g.factors = factors;
  g.result = result;
  g.transposeA = true;
  g.m = m;
  g.n = n;
  g.k = k;
  g.a = a.data();
  g.lda = k;
  g.b = b.data();
  g.ldb = k;
  g.d = d.data();
  g.ldd = m;
  return g;
}

template <typename T>
std::vector<T> contentOf(const DeviceBytes& bytes) {
  const std::vector<unsigned char> raw = bytes.toHost();
  std::vector<T> values(raw.size() / sizeof(T));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

template <typename T>
DeviceBytes upload(const std::vector<T>& values, Context& context) {
  return DeviceBytes(values.data(), values.size() * sizeof(T), context);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(plans, *needsDevice())

BOOST_AUTO_TEST_CASE(plansAreMadeOnceForEachShape) {
  Context context;
  const std::vector<float> ones(65 * 65, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 64, 48, 32, a, b, d);
  const auto& plans = context.state().plans();
  runGemm(g, context);
  BOOST_TEST(plans.size() == 1u);
  g.alpha = 2;  // scales decide nothing
  runGemm(g, context);
  BOOST_TEST(plans.size() == 1u);
  BOOST_TEST(contentOf<float>(d)[0] == 64.0f);
  g.k = 31;
  runGemm(g, context);
  BOOST_TEST(plans.size() == 2u);
  g.a = static_cast<const float*>(a.data()) + 1;  // less aligned
  runGemm(g, context);
  BOOST_TEST(plans.size() == 3u);
  g.c = g.d;
  g.ldc = g.ldd;
  runGemm(g, context);
  BOOST_TEST(plans.size() == 4u);
}

BOOST_AUTO_TEST_CASE(aKnownProductWaitsForNothing) {
  Context context;
  const std::vector<float> ones(64 * 64, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  const Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 64, 64, 64, a, b, d);
  runGemm(g, context);
  runGemm(g, context);  // by now its workspace, if any, belongs to the context
  context.synchronize();
  Gate gate(context);
  for (int i = 0; i < 3; ++i) runGemm(g, context);
  BOOST_TEST(!isIdle(context));
  gate.open();
  context.synchronize();
  BOOST_TEST(contentOf<float>(d)[5] == 64.0f);
}

BOOST_AUTO_TEST_CASE(measuringAddsNothingToY) {
  Context context;  // without plans: the first call measures
  const std::vector<float> ones(128 * 128, 1.0f);
  const DeviceBytes a = upload(ones, context), b = upload(ones, context), d = upload(ones, context);
  Gemm g = packedGemm(CUDA_R_32F, CUDA_R_32F, 128, 128, 128, a, b, d);
  g.c = g.d;
  g.ldc = g.ldd;
  g.beta = 3;
  runGemm(g, context);
  for (const float v : contentOf<float>(d)) BOOST_REQUIRE_EQUAL(v, 131.0f);
}

BOOST_AUTO_TEST_CASE(integerSumsAreExact) {
  Context context;
  const Index m = 36, n = 20, k = 1024;
  std::vector<std::int8_t> a(static_cast<std::size_t>(m * k)), b(static_cast<std::size_t>(n * k));
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::int8_t>(static_cast<int>(i * 37 % 255) - 127);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<std::int8_t>(static_cast<int>(i * 91 % 255) - 127);
  const DeviceBytes deviceA = upload(a, context), deviceB = upload(b, context);
  const DeviceBytes d = upload(std::vector<std::int32_t>(static_cast<std::size_t>(m * n)), context);
  const Gemm g = packedGemm(CUDA_R_8I, CUDA_R_32I, m, n, k, deviceA, deviceB, d);
  BOOST_REQUIRE(!refuseGemm(g));
  runGemm(g, context);
  const std::vector<std::int32_t> found = contentOf<std::int32_t>(d);
  int wrong = 0;
  for (Index j = 0; j < n; ++j) {
    for (Index i = 0; i < m; ++i) {
      std::int32_t sum = 0;
      for (Index l = 0; l < k; ++l)
        sum += a[static_cast<std::size_t>(i * k + l)] * b[static_cast<std::size_t>(j * k + l)];
      wrong += found[static_cast<std::size_t>(j * m + i)] != sum;
    }
  }
  BOOST_TEST(wrong == 0);
}

BOOST_AUTO_TEST_CASE(refusalsAreInWords) {
  Context context;
  const DeviceBytes bytes = upload(std::vector<float>(64 * 64), context);
  const Gemm good = packedGemm(CUDA_R_8I, CUDA_R_32I, 16, 8, 32, bytes, bytes, bytes);
  BOOST_TEST(!refuseGemm(good));
  const auto refused = [&](auto change) {
    Gemm g = good;
    change(g);
    const char* const why = refuseGemm(g);
    if (why) BOOST_TEST_MESSAGE(why);
    return why != nullptr;
  };
  BOOST_TEST(refused([](Gemm& g) { g.k = 30; }));
  BOOST_TEST(refused([](Gemm& g) { g.m = 15; }));
  BOOST_TEST(refused([](Gemm& g) { g.lda = 33; }));
  BOOST_TEST(refused([](Gemm& g) { g.a = static_cast<const char*>(g.a) + 1; }));
  BOOST_TEST(refused([](Gemm& g) { g.transposeA = false; }));
  BOOST_TEST(refused([](Gemm& g) { g.alpha = 2; }));
  BOOST_TEST(refused([](Gemm& g) { g.result = CUDA_R_32F; }));
  BOOST_TEST(refused([](Gemm& g) { g.k = g.lda = g.ldb = (Index{1} << 17) + 4; }));
  BOOST_TEST(refused([](Gemm& g) { g.n = Index{1} << 31; }));
  BOOST_TEST(refused([](Gemm& g) { g.ldd = 15; }));
  BOOST_TEST(refused([](Gemm& g) { g.factors = CUDA_R_64F; }));
}

BOOST_AUTO_TEST_SUITE_END()
