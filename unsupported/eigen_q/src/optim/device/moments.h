// SPDX-License-Identifier: MPL-2.0
// Moments of 8 bits in device memory. Steps give the same bits as on the host.
#ifndef EIGENQ_OPTIM_DEVICE_MOMENTS_H
#define EIGENQ_OPTIM_DEVICE_MOMENTS_H

#include <cstdint>

#include "../AdamW8bit.h"
#include "../Lion8bit.h"
#include "rules.h"

namespace EigenQ {
namespace ad {

template <>
struct Moment8bitOn<Device> {
  gpu::DeviceMatrix<std::uint8_t> codes;  // as on the host, each a column
  gpu::DeviceMatrix<float> absmax;
  gpu::DeviceMatrix<float> values;

  Eigen::Index sizeInBytes() const {
    return codes.size() + (absmax.size() + values.size()) * Eigen::Index(sizeof(float));
  }

  static Moment8bitOn zeros(Eigen::Index size, bool small) { return fromHost(Moment8bit::zeros(size, small)); }

  static Moment8bitOn fromHost(const Moment8bit& host, gpu::Context& context = gpu::Context::current()) {
    Moment8bitOn moment;
    moment.codes.resize(host.codes.size(), 1, context);
    gpu::internal::upload(moment.codes.data(), host.codes.data(), static_cast<std::size_t>(host.codes.size()), context);
    moment.absmax = gpu::DeviceMatrix<float>::fromHost(host.absmax, context);
    moment.values = gpu::DeviceMatrix<float>::fromHost(host.values, context);
    return moment;
  }
  /** Waits for the stream. */
  Moment8bit toHost(gpu::Context& context = gpu::Context::current()) const {
    Moment8bit host;
    host.codes.resize(codes.size());
    if (codes.view().memory()) codes.view().memory()->beginRead(context);
    gpu::internal::download(host.codes.data(), codes.data(), static_cast<std::size_t>(codes.size()), context);
    host.absmax = absmax.toHost(context);
    host.values = values.toHost(context);
    return host;
  }

  EigenQ::internal::MomentView view() {
    gpu::Context& context = gpu::Context::current();
    if (codes.size() == 0) return {nullptr, nullptr, internal::stepWrites(values.view(), context)};
    codes.view().memory()->beginWrite(context);
    return {codes.data(), internal::stepWrites(absmax.view(), context), nullptr};
  }
};

namespace internal {
template <>
struct Rules8bit<Device> {
  static const float* reading(const gpu::DeviceMatrix<float>& gradient) {
    return stepReads(gradient, gpu::Context::current());
  }
  static float* writing(gpu::DeviceView<float> value) { return stepWrites(value, gpu::Context::current()); }
  static void run(const EigenQ::internal::AdamStep& step, OptimizerReplay<Device>& replay, std::size_t i) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::runAdam(step, replay.inputs(i, context), context);
  }
  static void run(const EigenQ::internal::LionStep& step, OptimizerReplay<Device>& replay, std::size_t i) {
    gpu::Context& context = gpu::Context::current();
    gpu::internal::runLion(step, replay.inputs(i, context), context);
  }
};
}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_DEVICE_MOMENTS_H
