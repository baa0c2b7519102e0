// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_CUDA_DEVICE_H
#define EIGENQ_TEST_CUDA_DEVICE_H

#include <boost/test/unit_test.hpp>

#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace test {

inline boost::test_tools::assertion_result deviceAvailable(boost::unit_test::test_unit_id) {
  const char* const why = gpu::whyNoDevice();
  boost::test_tools::assertion_result result(why == nullptr);
  if (why) result.message() << "no GPU: " << why;
  return result;
}

/** The precondition of every case that needs a GPU: `BOOST_AUTO_TEST_CASE(name, *needsDevice())`. Without one, the case
 * is skipped and Boost.Test prints the reason. */
inline boost::unit_test::precondition needsDevice() { return boost::unit_test::precondition(&deviceAvailable); }

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_DEVICE_H
