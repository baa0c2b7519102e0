// SPDX-License-Identifier: MPL-2.0
#include "architectures.h"

#include <cctype>
#include <sstream>

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

bool endsWith(const std::string& word, const std::string& end) {
  return word.size() >= end.size() && word.compare(word.size() - end.size(), end.size(), end) == 0;
}

/** One entry of the list. \param device  10·major + minor */
bool entryRunsOn(const std::string& entry, int device) {
  std::size_t digits = 0;
  while (digits < entry.size() && std::isdigit(static_cast<unsigned char>(entry[digits]))) ++digits;
  if (digits == 0 || digits > 4) return true;
  const int built = std::stoi(entry.substr(0, digits));
  const bool sameMajor = device / 10 == built / 10 && device >= built;
  const char suffix = digits < entry.size() ? entry[digits] : '-';
  if (suffix == 'a') return device == built;
  if (suffix == 'f') return sameMajor;
  const bool machineCode = !endsWith(entry, "-virtual"), ptx = !endsWith(entry, "-real");
  return (machineCode && sameMajor) || (ptx && device >= built);
}

}  // namespace

bool runsOn(const std::string& architectures, int major, int minor) {
  std::istringstream list(architectures);
  for (std::string entry; std::getline(list, entry, ',');)
    if (entryRunsOn(entry, 10 * major + minor)) return true;
  return architectures.empty();
}

std::string whyNoCode(const std::string& architectures, const DeviceProperties& device, int index) {
  if (runsOn(architectures, device.major, device.minor)) return {};
  const std::string major = std::to_string(device.major), minor = std::to_string(device.minor);
  // 90a, not 90: the warpgroup kernels are for it.
  const std::string wanted = major + minor + (device.major == 9 ? "a" : "");
  return "this build of EigenQ::Cuda has code for architectures " + architectures + ", and none for device " +
         std::to_string(index) + ", " + device.name + " of compute capability " + major + "." + minor +
         "; configure it with -D CMAKE_CUDA_ARCHITECTURES=" + wanted;
}

const std::string& builtArchitectures() {
  static const std::string architectures = EIGENQ_CUDA_ARCHITECTURES;
  return architectures;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
