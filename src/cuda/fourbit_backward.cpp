// SPDX-License-Identifier: MPL-2.0
// What stands for fourbit_backward_sm90.cu in builds without code for Hopper.
#include "fourbit_backward.h"

#include <cassert>

#ifndef EIGENQ_HAVE_SM90A
namespace EigenQ {
namespace gpu {
namespace internal {

const char* refuseFourBitBackward(const QuantizedProduct&, const Context&) {
  return "this build has no code for sm_90a";
}
void runFourBitBackward(const QuantizedProduct&, Context&) { assert(false && "refused everything"); }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
#endif
