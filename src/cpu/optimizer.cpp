// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/DynamicMap.h>
#include <eigen_q/src/OptimizerKernels.h>
#include <eigen_q/src/ScalarConvert.h>

#include <algorithm>
#include <iterator>
#include <vector>

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

/** The largest magnitude from \a first to \a last with first's code, which magnitudes behind it have no more. */
std::uint32_t lastOfCode(std::uint32_t first, std::uint32_t last, std::uint32_t sign, const float* thresholds) {
  const auto codeOf = [=](std::uint32_t magnitude) { return encodeByte(floatOf(magnitude | sign), thresholds); };
  const std::uint8_t code = codeOf(first);
  while (first < last) {
    const std::uint32_t middle = first + (last - first + 1) / 2;
    if (codeOf(middle) == code) {
      first = middle;
    } else {
      last = middle - 1;
    }
  }
  return last;
}

/** The buckets of a map; moment_map.h. */
std::vector<std::uint32_t> bucketsOf(const ByteCodeTable& levels, int compared) {
  const ByteThresholds thresholds = byteThresholds(levels.data());
  const std::uint32_t mask = (1u << compared) - 1;
  std::vector<std::uint32_t> buckets;
  for (const std::uint32_t sign : {0u, kFloatSign}) {
    for (std::uint32_t first = kLeastMagnitude; first <= kOneMagnitude; first += mask + 1) {
      const unsigned code = encodeByte(floatOf(first | sign), thresholds.data());
      const std::uint32_t last = std::min<std::uint32_t>(first | mask, kOneMagnitude);
      buckets.push_back(code << MomentMap::kCodeShift | (lastOfCode(first, last, sign, thresholds.data()) & mask));
    }
  }
  return buckets;
}

// As many bits as buckets of one threshold allow: the unsigned map has twice as many levels a decade.
constexpr int kComparedSigned = 17, kComparedUnsigned = 16;

}  // namespace

MomentMap signedMomentMap() {
  static const std::vector<std::uint32_t> buckets = bucketsOf(signedDynamicMap(), kComparedSigned);
  return {signedDynamicMap().data(), buckets.data(), kComparedSigned};
}

MomentMap unsignedMomentMap() {
  static const std::vector<std::uint32_t> buckets = bucketsOf(unsignedDynamicMap(), kComparedUnsigned);
  return {unsignedDynamicMap().data(), buckets.data(), kComparedUnsigned};
}

LoweringTable<OptimizerLowering> hostOptimizers() { return {std::begin(kHostOptimizers), std::end(kHostOptimizers)}; }

void runAdam(const AdamStep& step) { runParts(step, chosen().adam); }
void runLion(const LionStep& step) { runParts(step, chosen().lion); }

}  // namespace internal
}  // namespace EigenQ
