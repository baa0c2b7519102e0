// SPDX-License-Identifier: MPL-2.0
// The left side of an assignment: how =, += and -= reach a kernel, and destinations that are not plain memory.
#ifndef EIGENQ_DESTINATION_H
#define EIGENQ_DESTINATION_H

#include "EigenViews.h"
#include "Lowering.h"

#include <Eigen/Core>

namespace EigenQ {
namespace internal {

/** The assignments that kernels know: y = v, y = y + v, y = y - v. */
template <typename Functor>
struct AssignmentSign {
  static constexpr bool kSupported = false;
};
template <bool kAccumulates_, int kSign_>
struct SupportedAssignment {
  static constexpr bool kSupported = true;
  static constexpr bool kAccumulates = kAccumulates_;
  static constexpr float kSign = kSign_;
};
template <typename A, typename B>
struct AssignmentSign<Eigen::internal::assign_op<A, B>> : SupportedAssignment<false, 1> {};
template <typename A, typename B>
struct AssignmentSign<Eigen::internal::add_assign_op<A, B>> : SupportedAssignment<true, 1> {};
template <typename A, typename B>
struct AssignmentSign<Eigen::internal::sub_assign_op<A, B>> : SupportedAssignment<true, -1> {};

/** An epilogue on its way to a kernel. */
struct Store {
  Epilogue epilogue;
  bool accumulates = false;  // the residual is the destination itself

  template <typename Functor>
  static Store of() {
    Store s;
    s.epilogue.sign = AssignmentSign<Functor>::kSign;
    s.accumulates = AssignmentSign<Functor>::kAccumulates;
    return s;
  }
};

inline ConstDenseView readOnly(const DenseView& v) {
  return {v.data, v.scalar, v.rows, v.cols, v.rowStride, v.colStride};
}

/** Calls write(y, epilogue) with dst's memory and the epilogue complete; a destination that is not plain memory, such
 * as Y(indices, all) or Y.colwise().reverse(), goes through one temporary. */
template <typename Dst, typename Write>
void storeTo(Dst& dst, const Store& store, const Write& write) {
  if constexpr (hasDirectAccess<Dst>()) {
    const DenseView y = mutableViewOf(dst);
    Epilogue epilogue = store.epilogue;
    if (store.accumulates) epilogue.residual = readOnly(y);
    write(y, epilogue);
  } else {
    typename Dst::PlainObject plain(dst.rows(), dst.cols());
    if (store.accumulates) plain = dst;
    storeTo(plain, store, write);
    dst = plain;
  }
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_DESTINATION_H
