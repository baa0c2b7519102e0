// SPDX-License-Identifier: MPL-2.0
// Two GPUs in one process: each has its contexts, memory and kernels, and nothing of one is taken for the other's.
#define BOOST_TEST_MODULE Devices
#include <boost/test/unit_test.hpp>

#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#include <unsupported/eigen_q/AutodiffCuda>

#include <src/cuda/context_state.h>
#include <src/cuda/plan_cache.h>

#include "Device.h"

using namespace EigenQ;
using Eigen::Index;
using Eigen::MatrixXf;
using gpu::Context;
using gpu::DeviceMatrix;

namespace {

boost::test_tools::assertion_result twoDevicesAvailable(boost::unit_test::test_unit_id id) {
  boost::test_tools::assertion_result result = test::deviceAvailable(id);
  if (!result || gpu::deviceCount() >= 2) return result;
  result = boost::test_tools::assertion_result(false);
  result.message() << "one GPU, and this needs two";
  return result;
}
boost::unit_test::precondition needsTwoDevices() { return boost::unit_test::precondition(&twoDevicesAvailable); }

bool namesBothDevices(const std::logic_error& e) {
  BOOST_TEST_MESSAGE(e.what());
  const std::string what = e.what();
  return what.find("memory of device 0") != std::string::npos && what.find("context of device 1") != std::string::npos;
}

/** Weights of one matrix in every format, and activations of many and of few rows. */
struct Operands {
  MatrixXf w = MatrixXf::Random(192, 256), x = MatrixXf::Random(160, 256), few = MatrixXf::Random(3, 256);
  NF4Matrix nf4{w};
  Int8Matrix int8{w};
};

/** Products of all kinds: by cuBLASLt, by kernels of ours, by those that ask for more shared memory than is usual. */
std::vector<MatrixXf> productsOn(Context& context, const Operands& o) {
  const auto upload = [&](const MatrixXf& m) { return DeviceMatrix<float>::fromHost(m, context); };
  const auto half = [&](const MatrixXf& m) {
    return DeviceMatrix<Eigen::half>::fromHost(m.cast<Eigen::half>(), context);
  };
  const auto w = upload(o.w), x = upload(o.x);
  const auto hx = half(o.x), hfew = half(o.few);
  const auto nf4 = gpu::NF4Matrix::fromHost(o.nf4, context);
  const auto int8 = gpu::Int8Matrix::fromHost(o.int8, context);
  const gpu::NF4Matrix again(w, 64, Statistics::kNested, context);
  std::vector<MatrixXf> found;
  const auto keep = [&](const auto& xpr, auto scalar) {
    DeviceMatrix<decltype(scalar)> y;
    y.device(context) = xpr;
    found.push_back(y.toHost(context).template cast<float>());
  };
  keep(x * w.transpose(), 0.0f);
  keep(x * nf4.transpose(), 0.0f);
  keep(hfew * nf4.transpose(), Eigen::half());
  keep(hx * int8.withThreshold(6).transpose(), Eigen::half());
  keep(hfew * int8.withThreshold(0.9f).transpose(), Eigen::half());
  keep(again.cast<float>(), 0.0f);
  return found;
}

/** Kernels are the same on both; cuBLASLt's may be others, which add up in another order, before at most one rounding
 * to half. Entries are sums of 256 products of numbers below 1. */
void expectSame(const std::vector<MatrixXf>& a, const std::vector<MatrixXf>& b) {
  BOOST_TEST_REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    BOOST_TEST(a[i].allFinite());
    const float worst = (a[i] - b[i]).cwiseAbs().maxCoeff(), bound = 0x1p-10f * a[i].cwiseAbs().maxCoeff();
    BOOST_TEST(worst <= bound, "product " << i << ": differs by " << worst << ", bound " << bound);
  }
}

std::size_t freeMemoryOf(int device) {
  const gpu::internal::DeviceGuard guard(device);
  std::size_t free = 0, total = 0;
  BOOST_TEST_REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  return free;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(devices, *needsTwoDevices())

BOOST_AUTO_TEST_CASE(contextsKnowTheirDevices) {
  Context first(0), second(1);
  BOOST_TEST(first.device() == 0);
  BOOST_TEST(second.device() == 1);
  BOOST_TEST(second.multiprocessors() > 0);
  int current = -1;
  BOOST_TEST(cudaGetDevice(&current) == cudaSuccess);
  BOOST_TEST(current == 0, "contexts leave the thread's current device alone");
}

BOOST_AUTO_TEST_CASE(productsAreThoseOfTheHostOnEachDevice) {
  const Operands o;
  Context first(0), second(1);
  // The second first: what were prepared once for the process would be prepared for the wrong device.
  const std::vector<MatrixXf> on1 = productsOn(second, o), on0 = productsOn(first, o);
  expectSame(on0, on1);
  expectSame(on0, productsOn(second, o));
  const MatrixXf dense = o.x * o.w.transpose(), quantised = o.x * o.nf4.transpose();
  expectSame({on1[0], on1[1], on1[5]}, {dense, quantised, MatrixXf(NF4Matrix(o.w, 64, Statistics::kNested))});
}

BOOST_AUTO_TEST_CASE(everyThreadMayHaveItsOwnDevice) {
  const Operands o;
  std::vector<std::vector<MatrixXf>> found(2);
  std::vector<std::thread> threads;
  for (int device = 0; device < 2; ++device)
    threads.emplace_back([&o, &found, device] {
      Context own(device);
      const gpu::ContextGuard guard(own);
      for (int round = 0; round < 3; ++round)
        found[static_cast<std::size_t>(device)] = productsOn(Context::current(), o);
    });
  for (std::thread& t : threads) t.join();
  expectSame(found[0], found[1]);
}

BOOST_AUTO_TEST_CASE(operandsOfAnotherDeviceAreRefused) {
  Context first(0), second(1);
  const MatrixXf host = MatrixXf::Random(20, 64);
  const auto x0 = DeviceMatrix<float>::fromHost(host, first);
  const auto x1 = DeviceMatrix<float>::fromHost(host, second);
  const auto w0 = gpu::NF4Matrix::fromHost(NF4Matrix(MatrixXf::Random(32, 64)), first);
  DeviceMatrix<float> y;
  BOOST_CHECK_EXCEPTION(y.device(second) = x0 + x1, std::logic_error, namesBothDevices);
  BOOST_CHECK_EXCEPTION(y.device(second) = x1 * w0.transpose(), std::logic_error, namesBothDevices);
  BOOST_CHECK_EXCEPTION(x0.toHost(second), std::logic_error, namesBothDevices);
  BOOST_CHECK_EXCEPTION(w0.toHost(second), std::logic_error, namesBothDevices);
  auto sum = DeviceMatrix<float>::fromHost(host, first);
  BOOST_CHECK_EXCEPTION(sum.device(second) += x1, std::logic_error, namesBothDevices);
  BOOST_CHECK_EXCEPTION(sum.setZero(second), std::logic_error, namesBothDevices);
  BOOST_TEST((sum.toHost(first) == host));
  y.device(second) = x1 + x1;  // both contexts still work
  BOOST_TEST((y.toHost(second) == host + host));
}

BOOST_AUTO_TEST_CASE(aResultLivesWhereItWasComputed) {
  Context first(0), second(1);
  const MatrixXf host = MatrixXf::Random(20, 30);
  const auto x0 = DeviceMatrix<float>::fromHost(host, first), x1 = DeviceMatrix<float>::fromHost(host, second);
  DeviceMatrix<float> y;
  y.device(first) = x0 + x0;
  y.device(second) = 2.0f * x1 + x1;  // of the same shape; the memory is another's
  BOOST_TEST(y.view().memory()->device() == 1);
  BOOST_TEST((y.toHost(second) - 3 * host).cwiseAbs().maxCoeff() < 1e-6f);
}

BOOST_AUTO_TEST_CASE(clonesCrossDevicesInOrder) {
  Context first(0), second(1);
  const MatrixXf host = MatrixXf::Random(3000, 2000), other = MatrixXf::Random(3000, 2000);
  for (int round = 0; round < 5; ++round) {
    auto x = DeviceMatrix<float>::fromHost(other, first);
    x.view().copyFromHost(host, first);
    const auto copy = x.clone(second);    // waits for the first device's writes
    x.view().copyFromHost(other, first);  // waits for the second device's read
    const auto back = copy.clone(first);
    BOOST_TEST((copy.toHost(second) == host));
    BOOST_TEST((back.toHost(first) == host));
    BOOST_TEST((x.toHost(first) == other));
  }
  BOOST_TEST(DeviceMatrix<float>(0, 7, first).clone(second).cols() == 7);
}

BOOST_AUTO_TEST_CASE(plansAndScratchMemoryBelongToAContext) {
  const Operands o;
  Context first(0), second(1);
  productsOn(first, o);
  BOOST_TEST(first.state().plans().size() > 0u);
  BOOST_TEST(second.state().plans().size() == 0u);
  BOOST_TEST(second.state().scratch.wanted == 0u);
  const std::size_t plans = first.state().plans().size();
  productsOn(second, o);
  BOOST_TEST(second.state().plans().size() == plans);
  BOOST_TEST(first.state().plans().size() == plans);
}

BOOST_AUTO_TEST_CASE(memoryComesFromTheDevicesOwnPool) {
  Context first(0), second(1);
  const auto warm0 = DeviceMatrix<float>(1, 1, first), warm1 = DeviceMatrix<float>(1, 1, second);
  const std::size_t free0 = freeMemoryOf(0), free1 = freeMemoryOf(1);
  const Index entries = Index{1} << 28;  // 1 GiB
  const DeviceMatrix<float> large(entries, 1, second);
  second.synchronize();
  BOOST_TEST(freeMemoryOf(0) == free0, "needs devices that nobody else uses");
  BOOST_TEST(freeMemoryOf(1) + static_cast<std::size_t>(entries) * 3 < free1);
}

BOOST_AUTO_TEST_CASE(aTapeTrainsOnTheSecondDevice) {
  const Operands o;
  const auto train = [&](int device) {
    Context context(device);
    const gpu::ContextGuard guard(context);
    const auto w = gpu::NF4Matrix::fromHost(o.nf4);
    ad::Parameter<float, ad::Device> a(0.1f * o.w.topRows(4)), b(MatrixXf::Zero(192, 4));
    ad::AdamW<float, ad::Device> optimizer({&a, &b});
    ad::Tape<float, ad::Device> tape;
    for (int step = 0; step < 3; ++step) {
      tape.clear();
      optimizer.zeroGrad();
      const auto y = ad::loraLinear(w, a, b, tape.constant(o.x.transpose()), {2, 0.1});
      tape.backward(ad::mean(ad::cwiseProduct(y, y)));
      ad::clipGradNorm(optimizer.parameters(), 1);
      optimizer.step();
    }
    return std::vector<MatrixXf>{a.grad().toHost(), b.grad().toHost()};
  };
  const auto on1 = train(1), on0 = train(0);
  // The steps of AdamW hang on signs of gradients that may be noise: they are compared loosely.
  for (std::size_t i = 0; i < on0.size(); ++i)
    BOOST_TEST((on0[i] - on1[i]).norm() <= 1e-2f * on0[i].norm(), "gradient " << i);
}

BOOST_AUTO_TEST_SUITE_END()
