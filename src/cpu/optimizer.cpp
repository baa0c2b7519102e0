// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/OptimizerKernels.h>

#include <algorithm>
#include <iterator>

#include "cpu_features.h"
#include "kernels.h"
#include "moment_map.h"
#include "parallel.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr OptimizerLowering kHostOptimizers[] = {
#if defined(EIGENQ_HAVE_X86_KERNELS)
    {"avx512.optimizer", cpuLacksAvx512, runAdamAvx512, runLionAvx512},
    {"avx2.optimizer", cpuLacksAvx2, runAdamAvx2, runLionAvx2},
#endif
    {"portable.optimizer", cpuLacksNothing, runAdamPortable, runLionPortable},
};

const OptimizerLowering& chosen() {
  const OptimizerLowering* row = kHostOptimizers;
  while (row->refuse()) ++row;
  return *row;
}

/** Values that one thread takes at a time: some ten microseconds of work. */
constexpr Index kChunk = 64 * kOptimizerBlockSize;

template <typename Step>
struct Work {
  const Step& step;
  void (*run)(const Step&);

  static void part(void* context, Index i) {
    const Work& work = *static_cast<const Work*>(context);
    const Index begin = i * kChunk;
    work.run(work.step.part(begin, std::min(kChunk, work.step.size - begin)));
  }
};

template <typename Step>
void runParts(const Step& step, void (*run)(const Step&)) {
  Work<Step> work{step, run};
  parallelFor((step.size + kChunk - 1) / kChunk, Work<Step>::part, &work);
}

}  // namespace

MomentMap signedMomentMap() {
  static const ByteThresholds thresholds = byteThresholds(signedDynamicMap().data());
  return {signedDynamicMap().data(), thresholds.data()};
}

MomentMap unsignedMomentMap() {
  static const ByteThresholds thresholds = byteThresholds(unsignedDynamicMap().data());
  return {unsignedDynamicMap().data(), thresholds.data()};
}

LoweringTable<OptimizerLowering> hostOptimizers() { return {std::begin(kHostOptimizers), std::end(kHostOptimizers)}; }

void runAdam(const AdamStep& step) { runParts(step, chosen().adam); }
void runLion(const LionStep& step) { runParts(step, chosen().lion); }

}  // namespace internal
}  // namespace EigenQ
