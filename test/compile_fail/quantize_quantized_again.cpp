// expect: QUANTISING_A_QUANTISED_MATRIX_DECODES_IT_FIRST__SAY_SO_WITH_asDense
// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Core>

EigenQ::Int8Matrix inInt8(const EigenQ::NF4Matrix& w) {
#ifdef EIGENQ_MUST_NOT_COMPILE
  return EigenQ::Int8Matrix(w);
#else
  return EigenQ::Int8Matrix(w.asDense());
#endif
}
