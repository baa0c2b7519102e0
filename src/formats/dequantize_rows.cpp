// SPDX-License-Identifier: MPL-2.0
// dequantize_rows.cpp: codes to values where both run along rows; the loops over a block are those of convert.h.
//
//   row of W │ block │ block │ … ─ table·absmax ─▶ float: straight into the row of Y
//                                              ─▶ others: through 256 floats in L1
//
// Traffic  half a byte (4-bit) or a byte in and 2 or 4 B out for each value: writing is the limit.
// Shape    threads take rows.
#include <algorithm>

#include <eigen_q/src/Lowering.h>

#include "../cpu/kernels.h"
#include "../cpu/tasks.h"
#include "convert.h"

namespace EigenQ {
namespace internal {
namespace {

constexpr Index kTaskValues = Index{1} << 16;
constexpr Index kBufferValues = 256;

bool isIdentity(const Epilogue& e) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return e.alpha == 1 && e.biasAxis == BiasAxis::kNone && e.activation == Activation::kNone && e.lower == -kInfinity &&
         e.upper == kInfinity && e.sign == 1 && !e.residual.data;
}

/** \a count values from flat position \a begin on, all of one absmax. */
void decodePart(const WeightView& w, Index row, Index begin, Index count, float* out) {
  const ConvertKernels& kernels = convertKernels();
  if (w.format == WeightFormat::kInt8) {
    kernels.decodeInt8(static_cast<const std::int8_t*>(w.codes) + begin, count, w.rowAbsmax[row], out);
  } else {
    const auto* const packed = static_cast<const std::uint8_t*>(w.codes) + begin / 2;
    kernels.decodeFourBit(packed, count, w.codeTable, w.absmax(begin >> w.blockShift), out);
  }
}

/** Calls \a f(flat begin, count, column) for each piece of a row that has one absmax and no more than \a most values.
 */
template <typename F>
void forEachPart(const WeightView& w, Index row, Index most, const F& f) {
  const Index rowBegin = w.offset + row * w.stride, rowEnd = rowBegin + w.cols;
  for (Index begin = rowBegin; begin < rowEnd;) {
    Index end = std::min(rowEnd, begin + most);
    if (w.format == WeightFormat::kFourBit) end = std::min(end, ((begin >> w.blockShift) + 1) << w.blockShift);
    f(begin, end - begin, begin - rowBegin);
    begin = end;
  }
}

void decodeRow(const WeightView& w, Index row, const DenseView& y) {
  if (y.scalar == ScalarType::kFloat) {
    float* const out = static_cast<float*>(y.data) + row * y.rowStride;
    forEachPart(w, row, w.cols,
                [&](Index begin, Index count, Index col) { decodePart(w, row, begin, count, out + col); });
    return;
  }
  const Index bytes = y.scalar == ScalarType::kDouble ? 8 : 2;
  char* const out = static_cast<char*>(y.data) + row * y.rowStride * bytes;
  float buffer[kBufferValues];
  forEachPart(w, row, kBufferValues, [&](Index begin, Index count, Index col) {
    decodePart(w, row, begin, count, buffer);
    convertKernels().fromFloat(buffer, count, y.scalar, out + col * bytes);
  });
}

}  // namespace

const char* refuseDequantizeRows(const WeightView& w, const DenseView& y, const Epilogue& epilogue) {
  if (y.colStride != 1) return "Y does not run along the rows of W";
  if (!isIdentity(epilogue)) return "more is wanted than the values";
  if (w.format == WeightFormat::kFourBit && (w.offset | w.stride) % 2 != 0) {
    return "rows of W begin in the middle of a byte";
  }
  return nullptr;
}

void dequantizeRows(const WeightView& w, const DenseView& y, const Epilogue&) {
  const Index rows = std::max<Index>(1, kTaskValues / std::max<Index>(1, y.cols));
  forEachTask(ceilDiv(y.rows, rows), 4 * y.rows * y.cols, [&](Index task) {
    const Index end = std::min(y.rows, (task + 1) * rows);
    for (Index row = task * rows; row < end; ++row) decodeRow(w, row, y);
  });
}

}  // namespace internal
}  // namespace EigenQ
