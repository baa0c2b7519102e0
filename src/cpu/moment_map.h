// SPDX-License-Identifier: MPL-2.0
// The dynamic maps of optimiser moments with the thresholds of the search, made once, by code for the baseline
// instruction set.
#ifndef EIGENQ_CPU_MOMENT_MAP_H
#define EIGENQ_CPU_MOMENT_MAP_H

namespace EigenQ {
namespace internal {

struct MomentMap {
  const float* levels;      // 256
  const float* thresholds;  // 255
};

MomentMap signedMomentMap();
MomentMap unsignedMomentMap();

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_MOMENT_MAP_H
