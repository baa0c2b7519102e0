// SPDX-License-Identifier: MPL-2.0
// The decision thresholds of a 4-bit codec, sorted into bins.
//
//   key     -1      …     -1/16      0      1/16     …      1      NF4: the quotient; FP4: its magnitude
//   bin      1      …       16  │    17   │   18     …     33      ⌊16·key + 17⌋ of a sum rounded to 1/256
//            ╰ at most one threshold in each ╯
//
// Bins are intervals of the key, since rounding is monotone. So the rank of a key, the number of thresholds below it,
// is that of its bin's lower thresholds, and one more where it exceeds the bin's own.
#ifndef EIGENQ_CUDA_FOUR_BIT_BINS_H
#define EIGENQ_CUDA_FOUR_BIT_BINS_H

#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/ScalarConvert.h>

#include <cassert>
#include <cmath>
#include <limits>

namespace EigenQ {
namespace gpu {
namespace internal {

constexpr int kFourBitBins = 34;

/** y = fma(key, kBinScale, kBinOffset) lies in [2¹⁵, 2¹⁶), where the last place is 1/256: bits 8 to 13 are the bin. */
constexpr float kBinScale = 16, kBinOffset = 0x1.8p15f + 17;
constexpr std::uint32_t kBinMask = 0x3f00;
constexpr int kBinShift = 8;

struct FourBitBins {
  float threshold[kFourBitBins];     // infinite in a bin without one
  std::uint32_t rank[kFourBitBins];  // thresholds of lower bins
};

/** Position of an NF4 level among all, or of an FP4 magnitude among the magnitudes, ascending. FP4's magnitudes bear
 * codes 0 1 6 7 4 5 2 3; the exchange undoes itself. */
inline unsigned fourBitRank(FourBitType type, float key) {
  if (type == FourBitType::kNF4) return EigenQ::internal::encodeNF4(key);
  const unsigned code = EigenQ::internal::encodeFP4(key);
  return code ^ (code & 2) << 1;
}

inline int fourBitBin(float key) {
  return static_cast<int>((EigenQ::internal::bitsOf(std::fma(key, kBinScale, kBinOffset)) & kBinMask) >> kBinShift);
}

/** Integers that order as floats do, and back. */
inline std::int64_t orderedBits(float v) {
  const auto bits = static_cast<std::int32_t>(EigenQ::internal::bitsOf(v));
  return bits < 0 ? std::int64_t{std::numeric_limits<std::int32_t>::min()} - bits : bits;
}
inline float orderedFloat(std::int64_t i) {
  const std::int64_t bits = i < 0 ? std::int64_t{std::numeric_limits<std::int32_t>::min()} - i : i;
  return EigenQ::internal::floatOf(static_cast<std::uint32_t>(static_cast<std::int32_t>(bits)));
}

/** The largest key whose rank is below \a rank: a threshold of the codec, found by asking it. */
inline float fourBitThreshold(FourBitType type, unsigned rank) {
  std::int64_t below = orderedBits(type == FourBitType::kNF4 ? -1.0f : 0.0f), above = orderedBits(1.0f);
  while (above - below > 1) {
    const std::int64_t middle = below + (above - below) / 2;
    (fourBitRank(type, orderedFloat(middle)) < rank ? below : above) = middle;
  }
  return orderedFloat(below);
}

inline FourBitBins makeFourBitBins(FourBitType type) {
  FourBitBins bins;
  for (int b = 0; b < kFourBitBins; ++b) {
    bins.threshold[b] = std::numeric_limits<float>::infinity();
    bins.rank[b] = 0;
  }
  for (unsigned rank = 1; rank <= fourBitRank(type, 1.0f); ++rank) {
    const float threshold = fourBitThreshold(type, rank);
    const int bin = fourBitBin(threshold);
    assert(std::isinf(bins.threshold[bin]) && "two thresholds in a bin");
    bins.threshold[bin] = threshold;
    for (int b = bin + 1; b < kFourBitBins; ++b) ++bins.rank[b];
  }
  return bins;
}

inline const FourBitBins& fourBitBins(FourBitType type) {
  static const FourBitBins nf4 = makeFourBitBins(FourBitType::kNF4), fp4 = makeFourBitBins(FourBitType::kFP4);
  return type == FourBitType::kNF4 ? nf4 : fp4;
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOUR_BIT_BINS_H
