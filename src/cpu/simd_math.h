// SPDX-License-Identifier: MPL-2.0
// Functions of vectors, written once for every instruction set of simd.h. Internal linkage; see there for the reason.
#ifndef EIGENQ_CPU_SIMD_MATH_H
#define EIGENQ_CPU_SIMD_MATH_H

#include "simd.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct SimdMath {
  using Vec = typename Isa::Vec;

  /** exp(x) within 1.5 ulp for x in [-87, 88]; 0 below, exp(88) above, NaN for NaN.
   *
   * exp(x) = 2ⁿ·exp(r) with n = round(x/ln 2), so that |r| ≤ ln(2)/2, where 1 + r + r²·q(r) with q of degree 4 differs
   * from exp(r) by less than 3.1e-9 of it (minimax, by iterated least squares). n comes from an addition that leaves it
   * in the lowest bits; ln 2 is subtracted in two parts, of which n·kLn2High is exact. */
  static Vec exp(Vec x) {
    constexpr float kLog2E = 1.44269504f, kRound = 12582912.0f;          // 1.5·2²³
    constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // 355/512, and what is left
    const Vec least = Isa::broadcast(-87.0f);
    const Vec inside = Isa::smaller(Isa::broadcast(88.0f), Isa::larger(least, x));
    const Vec shifted = Isa::multiplyAdd(inside, Isa::broadcast(kLog2E), Isa::broadcast(kRound));
    const Vec n = Isa::sub(shifted, Isa::broadcast(kRound));
    Vec r = Isa::multiplyAdd(n, Isa::broadcast(-kLn2High), inside);
    r = Isa::multiplyAdd(n, Isa::broadcast(-kLn2Low), r);
    Vec q = Isa::broadcast(0x1.6a2256p-10f);
    q = Isa::multiplyAdd(q, r, Isa::broadcast(0x1.123b02p-7f));
    q = Isa::multiplyAdd(q, r, Isa::broadcast(0x1.5558f8p-5f));
    q = Isa::multiplyAdd(q, r, Isa::broadcast(0x1.555490p-3f));
    q = Isa::multiplyAdd(q, r, Isa::broadcast(0x1.fffffcp-2f));
    const Vec one = Isa::broadcast(1.0f);
    const Vec p = Isa::multiplyAdd(Isa::mul(r, r), q, Isa::add(r, one));
    return Isa::zeroBelow(x, least, Isa::addExponent(p, shifted));
  }

  /** 1 / (1 + exp(-x)). */
  static Vec logistic(Vec x) {
    const Vec one = Isa::broadcast(1.0f);
    return Isa::div(one, Isa::add(one, exp(Isa::sub(Isa::zero(), x))));
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_SIMD_MATH_H
