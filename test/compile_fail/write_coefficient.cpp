// expect: assign
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

void use(EigenQ::Int8Matrix& w, float value) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  w(0, 0) = value;
#else
  (void)w, (void)value;
#endif
}
