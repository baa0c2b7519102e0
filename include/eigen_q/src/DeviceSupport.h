// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_DEVICESUPPORT_H
#define EIGENQ_DEVICESUPPORT_H

#include <string>

namespace EigenQ {

/** What is asked of a GPU before its kernels are. */
struct DeviceProperties {
  int major = 0;  // compute capability
  int minor = 0;
  std::string name;  // as the driver reports it, for example "NVIDIA GeForce GTX 1660 Ti"
};

/** Whether cuBLASLt's int8 product runs there: from compute capability 7.5 on, but for the GeForce GTX 16 series
 * (1630, 1650, 1660), which is 7.5 without the tensor cores. Source: bitsandbytes 0.43.0, supports_igemmlt. */
inline bool supportsIgemmlt(const DeviceProperties& device) {
  if (device.major < 7 || (device.major == 7 && device.minor < 5)) return false;
  for (const char* model : {"GTX 1630", "GTX 1650", "GTX 1660"}) {
    if (device.name.find(model) != std::string::npos) return false;
  }
  return true;
}

}  // namespace EigenQ

#endif  // EIGENQ_DEVICESUPPORT_H
