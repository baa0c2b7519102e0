// SPDX-License-Identifier: MPL-2.0
// What a failure of the machine looks like: which exception, saying what, and what works afterwards. Memory that runs
// out: Context.cpp.
#define BOOST_TEST_MODULE DeviceErrors
#include <boost/test/unit_test.hpp>

#include <cstdio>
#include <string>
#include <vector>

#include <eigen_q/Cuda>

#include <src/cuda/architectures.h>
#include <src/cuda/check.h>

#include "Device.h"
#include "Errors.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXf;
using gpu::Context;
using gpu::DeviceMatrix;
using gpu::internal::runsOn;
using gpu::internal::whyNoCode;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

auto saying(const std::vector<std::string>& parts) {
  return [parts](const std::exception& e) {
    BOOST_TEST_MESSAGE(e.what());
    for (const std::string& part : parts)
      if (!contains(e.what(), part)) return BOOST_TEST_MESSAGE("misses: " << part), false;
    return true;
  };
}

/** Runs a test case of this executable that is disabled otherwise, in a process of its own. */
void passesInAChild(const std::string& environment, const std::string& testCase) {
  const std::string self = boost::unit_test::framework::master_test_suite().argv[0];
  const std::string command = environment + " '" + self + "' --color_output=no --run_test=" + testCase + " 2>&1";
  std::FILE* const child = popen(command.c_str(), "r");
  BOOST_TEST_REQUIRE(child != nullptr);
  std::string output;
  char part[256];
  while (std::fgets(part, sizeof part, child)) output += part;
  const int status = pclose(child);
  BOOST_TEST(status == 0, command << ": status " << status << "\n" << output);
  BOOST_TEST(contains(output, "No errors detected"), output);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(architectures)

BOOST_AUTO_TEST_CASE(codeRunsOnTheDevicesItWasBuiltFor) {
  BOOST_TEST(runsOn("80,90a", 9, 0));
  BOOST_TEST(runsOn("80,90a", 8, 0));
  BOOST_TEST(runsOn("80,90a", 8, 9));   // machine code of an earlier minor
  BOOST_TEST(runsOn("80,90a", 12, 0));  // PTX of 80
  BOOST_TEST(!runsOn("80,90a", 7, 5));
  BOOST_TEST(!runsOn("80-real,90a", 10, 0));
  BOOST_TEST(runsOn("80-real", 8, 6));
  BOOST_TEST(!runsOn("86-real", 8, 0));
  BOOST_TEST(runsOn("70-virtual", 9, 0));
  BOOST_TEST(!runsOn("90a", 10, 0));  // no machine code and no PTX for others
  BOOST_TEST(!runsOn("100a", 9, 0));
  BOOST_TEST(!runsOn("90a", 8, 0));
  BOOST_TEST(runsOn("100f", 10, 3));
  BOOST_TEST(!runsOn("100f-real", 12, 0));
  BOOST_TEST(runsOn("native", 6, 1));  // who knows
  BOOST_TEST(runsOn("", 6, 1));
}

BOOST_AUTO_TEST_CASE(theMessageNamesDeviceCapabilityAndArchitectures) {
  const std::string why = whyNoCode("100a,120", {9, 0, "NVIDIA H200"}, 1);
  for (const char* part : {"100a,120", "device 1", "NVIDIA H200", "9.0", "-D CMAKE_CUDA_ARCHITECTURES=90a"})
    BOOST_TEST(contains(why, part), why << ": misses " << part);
  BOOST_TEST(contains(whyNoCode("90a", {8, 6, "X"}, 0), "CMAKE_CUDA_ARCHITECTURES=86"));
  BOOST_TEST(whyNoCode("90a", {9, 0, "NVIDIA H200"}, 0).empty());
}

BOOST_AUTO_TEST_CASE(aDeviceWithoutCodeIsRefusedByName) {
  BOOST_TEST(!gpu::internal::builtArchitectures().empty());
  BOOST_CHECK_EXCEPTION(gpu::internal::requireCode({3, 0, "an old one"}, 2, "/x/src/cuda/y.cpp", 7), NoCudaDevice,
                        saying({gpu::internal::builtArchitectures(), "device 2, an old one of compute capability 3.0",
                                "(src/cuda/y.cpp:7)"}));
  // Where the list of architectures did not tell.
  BOOST_CHECK_EXCEPTION(gpu::internal::check(cudaErrorNoKernelImageForDevice, "launch of x", "y.cu", 1), NoCudaDevice,
                        saying({"launch of x", "cudaErrorNoKernelImageForDevice", "CMAKE_CUDA_ARCHITECTURES",
                                gpu::internal::builtArchitectures()}));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_CASE(withoutADevice, *boost::unit_test::disabled()) {
  BOOST_TEST(gpu::deviceCount() == 0);
  BOOST_TEST_REQUIRE(gpu::whyNoDevice() != nullptr);
  BOOST_TEST(std::string(gpu::whyNoDevice()).size() > 5u);
  BOOST_CHECK_EXCEPTION(Context::current(), NoCudaDevice, saying({"cudaError", "(src/cuda/"}));
  BOOST_CHECK_THROW(DeviceMatrix<float>::fromHost(MatrixXf::Ones(2, 2)), NoCudaDevice);
}
BOOST_AUTO_TEST_CASE(aHiddenDeviceIsNoDevice) { passesInAChild("CUDA_VISIBLE_DEVICES=", "withoutADevice"); }

BOOST_AUTO_TEST_CASE(aFailedLaunchIsThrownAndForgotten, *needsDevice()) {
  Context context;
  const MatrixXf x = MatrixXf::Random(8, 8);
  auto d = DeviceMatrix<float>::fromHost(x, context);
  BOOST_CHECK_EXCEPTION(launchTooManyThreads(context), CudaError,
                        saying({"launch of store: cudaErrorInvalid", "(src/cuda/op_launch.cuh:"}));
  BOOST_CHECK_EXCEPTION(launchTooManyThreadsInBrackets(context), CudaError,
                        saying({"launch of store: cudaErrorInvalid", "Errors.cu:"}));
  d.device(context) = d + d;  // the next launch does not report the last one's failure
  BOOST_TEST((d.toHost(context) == x + x));
}

BOOST_AUTO_TEST_CASE(afterAFault, *boost::unit_test::disabled() * needsDevice()) {
  const std::vector<std::string> expected = {"cudaErrorIllegalAddress", "a kernel queued before has failed",
                                             "refuses all further work", "(src/cuda/"};
  Context context;
  auto d = DeviceMatrix<float>::fromHost(MatrixXf::Ones(8, 8), context);
  context.synchronize();
  queueFault(context);
  BOOST_CHECK_EXCEPTION(context.synchronize(), CudaError, saying(expected));
  BOOST_CHECK_EXCEPTION(d.toHost(context), CudaError, saying(expected));  // rather than the numbers of before
  BOOST_CHECK_EXCEPTION(d.device(context) = d + d, CudaError, saying(expected));
  BOOST_CHECK_THROW(DeviceMatrix<float>(3, 3, context), CudaError);
}  // destructors find nothing to free, and say nothing
BOOST_AUTO_TEST_CASE(aFaultInAKernelIsThrownByEveryCallFromThenOn, *needsDevice()) {
  passesInAChild("", "afterAFault");
}
