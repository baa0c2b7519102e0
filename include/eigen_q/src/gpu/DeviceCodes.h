// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICECODES_H
#define EIGENQ_GPU_DEVICECODES_H

#include "DeviceMatrix.h"

namespace EigenQ {
namespace gpu {

/** int8 codes, and exact sums of their products. */
using DeviceCodes = DeviceMatrix<std::int8_t, Eigen::RowMajor>;
using DeviceSums = DeviceMatrix<std::int32_t, Eigen::RowMajor>;

namespace internal {

/** A view for a kernel on \a context to read: after what other streams write there. */
template <typename Derived>
auto toRead(const DeviceBase<Derived>& x, Context& context) {
  const auto view = x.derived().view();
  if (view.memory()) view.memory()->beginRead(context);
  return view;
}
/** A view for a kernel on \a context to write: after what other streams do there. */
template <typename Derived>
auto toWrite(DeviceBase<Derived>& y, Context& context) {
  const auto view = y.derived().view();
  if (view.memory()) view.memory()->beginWrite(context);
  return view;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICECODES_H
