// SPDX-License-Identifier: MPL-2.0
// --device cuda, in builds with EigenQ::Cuda: the same job over matrices in device memory.
#include <unsupported/eigen_q/AutodiffCuda>

#include "Job.h"
#include "OnDevice.h"

namespace finetune {

using EigenQ::ad::Device;

template <>
struct PlaceTraits<Device> {
  using Int8Matrix = EigenQ::gpu::Int8Matrix;
  using NF4Matrix = EigenQ::gpu::NF4Matrix;

  static constexpr bool kReplicas = false;    // one stream: gradients of shards simply add up
  static constexpr Index kStepsPerLook = 40;  // a look waits for all that is queued
  static constexpr bool kPadPrompts = true;   // cuBLASLt's plans are made once for each shape

  template <typename OnDevice>
  static auto toHost(const OnDevice& x) {
    return x.toHost();
  }
};

int runOnDevice(Options options) {
  EigenQ::gpu::Context::current();  // throws here, before any text is read, where there is no device
  options.threads = 1;              // one queues all of the device's work
  return run<Device>(options);
}

}  // namespace finetune
