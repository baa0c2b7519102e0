// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_ROUNDEDPRODUCT_H
#define EIGENQ_ROUNDEDPRODUCT_H

#include "Macros.h"

namespace EigenQ {
namespace internal {

/** r32(a·b), rounded before anything is added to it: a sum behind it keeps its own rounding.
 * g++ contracts across statements by default and clang's pragma yields to -ffp-contract=fast, so only an opaque
 * value is safe in a header that is compiled with the user's flags. The empty asm costs no instruction. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float roundedProduct(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#elif defined(__GNUC__) && (defined(__x86_64__) || defined(__SSE2__))
  float product = a * b;
  __asm__("" : "+x"(product));
  return product;
#elif defined(__GNUC__) && defined(__aarch64__)
  float product = a * b;
  __asm__("" : "+w"(product));
  return product;
#else
  const volatile float product = a * b;
  return product;
#endif
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_ROUNDEDPRODUCT_H
