// SPDX-License-Identifier: MPL-2.0
// Bringing rows of W from memory. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_ROW_STREAM_H
#define EIGENQ_CPU_ROW_STREAM_H

#include "tasks.h"

namespace EigenQ {
namespace internal {
namespace {

/** Reads a byte of each line of codes [depth, depth + count) of rows [output, output + outputs), row after row. Whoever
 * takes 16 or 128 bytes of many rows in turn shows the hardware no stream: left to that, AVX2 decodes 4096×4096 4-bit
 * weights from memory in 3.4 ms, behind this in 1.4. Prefetch instructions start no streams either; spread over the
 * products before, they took 8 rows of int8 activations from 5.7 to 6.2 ms (11008×4096). */
inline void streamRows(const WeightView& w, Index output, Index outputs, Index depth, Index count) {
  constexpr Index kLine = 64;
  const Index bits = w.format == WeightFormat::kFourBit ? 4 : 8;
  const Index end = least(w.rows, output + outputs), bytes = count * bits / 8;
  for (Index row = output; row < end; ++row) {
    const auto* codes =
        static_cast<const volatile std::uint8_t*>(w.codes) + (w.offset + row * w.stride + depth) * bits / 8;
    for (Index at = 0; at < bytes; at += kLine) static_cast<void>(codes[at]);
  }
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_ROW_STREAM_H
