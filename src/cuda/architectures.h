// SPDX-License-Identifier: MPL-2.0
// Which devices a build has code for.
#ifndef EIGENQ_CUDA_ARCHITECTURES_H
#define EIGENQ_CUDA_ARCHITECTURES_H

#include <eigen_q/src/DeviceSupport.h>

#include <string>

namespace EigenQ {
namespace gpu {
namespace internal {

/** Whether code for \a architectures, a list as in CMAKE_CUDA_ARCHITECTURES ("80,90a"), runs on a device of compute
 * capability major.minor. Machine code runs on later minors of its major, PTX (which "80-real" has none of) on whatever
 * is later; "90a" on 9.0 alone, "100f" on its major. Words that are no number, such as native, are taken to fit. */
bool runsOn(const std::string& architectures, int major, int minor);

/** Why a build for \a architectures does not run on device number \a index, and what to do; empty where it does. */
std::string whyNoCode(const std::string& architectures, const DeviceProperties& device, int index);

/** What this library was built for. */
const std::string& builtArchitectures();

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_ARCHITECTURES_H
