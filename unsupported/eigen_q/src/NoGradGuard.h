// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_NO_GRAD_GUARD_H
#define EIGENQ_NO_GRAD_GUARD_H

#include "Tape.h"

namespace EigenQ {
namespace ad {

/** While it lives, ops on \a tape compute the same values, bit for bit, and record no pullback. Guards nest. */
template <typename Scalar, typename Place = Host>
class NoGradGuard {
 public:
  explicit NoGradGuard(Tape<Scalar, Place>& tape) : m_tape(tape), m_previous(tape.gradEnabled()) {
    tape.setGradEnabled(false);
  }
  ~NoGradGuard() { m_tape.setGradEnabled(m_previous); }
  NoGradGuard(const NoGradGuard&) = delete;
  NoGradGuard& operator=(const NoGradGuard&) = delete;

 private:
  Tape<Scalar, Place>& m_tape;
  bool m_previous;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_NO_GRAD_GUARD_H
