// expect: EigenQ::NF4Matrix
// SPDX-License-Identifier: MPL-2.0
// A quantised weight is frozen: it multiplies on the tape, but is no leaf that a gradient could reach.
#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

EigenQ::ad::Var<float> use(const EigenQ::NF4Matrix& w, const EigenQ::ad::Var<float>& x) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return EigenQ::ad::matmul(x.tape().parameter(w), x);
#else
  return EigenQ::ad::linear(w, x);
#endif
}
