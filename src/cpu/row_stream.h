// SPDX-License-Identifier: MPL-2.0
// Bringing rows of W from memory. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_ROW_STREAM_H
#define EIGENQ_CPU_ROW_STREAM_H

#include "tasks.h"

namespace EigenQ {
namespace internal {
namespace {

/** Reads a byte of each line: the hardware sees a stream, and follows it. */
inline void touchLines(const void* from, Index bytes) {
  constexpr Index kLine = 64;
  for (Index at = 0; at < bytes; at += kLine) static_cast<void>(static_cast<const volatile std::uint8_t*>(from)[at]);
}

/** Touches the lines of codes [depth, depth + count) of rows [output, output + outputs), row after row. Whoever
 * takes 16 or 128 bytes of many rows in turn shows the hardware no stream: left to that, AVX2 decodes 4096×4096 4-bit
 * weights from memory in 3.4 ms, behind this in 1.4. Prefetch instructions start no streams either. Spread over
 * the products before, they bring 8 rows of int8 activations neither gain nor loss. */
inline void streamRows(const WeightView& w, Index output, Index outputs, Index depth, Index count) {
  const Index bits = w.format == WeightFormat::kFourBit ? 4 : 8;
  const Index end = least(w.rows, output + outputs);
  for (Index row = output; row < end; ++row) {
    touchLines(static_cast<const std::uint8_t*>(w.codes) + (w.offset + row * w.stride + depth) * bits / 8,
               count * bits / 8);
  }
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_ROW_STREAM_H
