// SPDX-License-Identifier: MPL-2.0
// fourbit_groups.cpp: quantize_4bit, nested_4bit and the weights of matmul_4bit.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include <eigen_q/src/BlockScale.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

std::vector<std::uint8_t> unpacked(const std::vector<std::uint8_t>& packed) {
  std::vector<std::uint8_t> codes;
  for (const std::uint8_t pair : packed) {
    codes.push_back(static_cast<std::uint8_t>(pair >> 4));
    codes.push_back(static_cast<std::uint8_t>(pair & 0xf));
  }
  return codes;
}

void comparePacked(const std::vector<float>& values, const std::vector<float>& absmax, const QuantState& state,
                   const test::Tensor& expected, const ByteVector& found, CaseReport& report) {
  const auto reciprocalAt = [&](std::size_t i) {
    return internal::blockReciprocal(
        absmax[std::min(i, values.size() - 1) / static_cast<std::size_t>(state.blockSize())]);
  };
  const auto quotientAt = [&](std::size_t i) {  // an odd count is padded with a zero
    return internal::normalized(i < values.size() ? values[i] : 0.0f, reciprocalAt(i));
  };
  const auto encode = [&](float v) { return internal::encodeFourBit(state.type(), v); };
  compareCodes(report, "packed", unpacked(expected.bytesU8()), unpacked(toVector(found)), kBlockQuotientUlps,
               quotientAt, encode, [&](std::size_t i) { return reciprocalAt(i) < FLT_MIN; });
}

/** The file's codes and state must decode to the file's values. */
void compareDecoded(const Case& c, const QuantState& state, CaseReport& report) {
  const test::Tensor& expected = c.tensor("dequantized");
  const ByteVector packed = toEigen(c.tensor("packed").bytesU8());
  report.compareFloats("dequantized", widened(expected), c.backend().dequantize4bit(packed, state, scalarOf(expected)));
}

NestedAbsmax fileNested(const Case& c, const char* codesKey, Index nestedBlockSize) {
  const std::vector<float> offset = c.tensor("absmax_offset").floats();
  if (offset.size() != 1) throw FormatError(c.name(), "absmax_offset", "expected one value");
  Eigen::VectorXf table = dynamicMap();
  if (c.has("nested_code")) table = toEigen(c.tensor("nested_code").floats());
  return {toEigen(c.tensor(codesKey).bytesU8()), toEigen(c.tensor("nested_absmax").floats()), std::move(table),
          nestedBlockSize, offset[0]};
}

/** How far the mean of \a count values may be from the exact one when it is summed in float by pairs: an ulp for each
 * level, and one for the division (Higham, section 4.2). */
double offsetUlps(Index count) { return std::ceil(std::log2(static_cast<double>(std::max<Index>(count, 1)))) + 1; }

/** Our double quantisation of \a absmax against the file's. The original sums the mean in float, so its offset may be
 * a few ulps away; codes are compared given its offset. */
void compareNested(const Eigen::VectorXf& absmax, const NestedAbsmax& file, const Backend& backend,
                   CaseReport& report) {
  const float ours = backend.meanOf(absmax);
  const double ulps = ulpsApart(ours, file.offset);
  char text[120];
  std::snprintf(text, sizeof text, "offset: the file holds %.9g, ours %.9g", static_cast<double>(file.offset),
                static_cast<double>(ours));
  if (ulps > offsetUlps(absmax.size())) {
    report.fail(text);
  } else if (ulps > 0) {
    report.note(text, ulps);
  }

  const NestedAbsmax found = backend.quantizeAbsmax(absmax, file.offset, file.blockSize);
  report.compareFloats("nested_code", toVector(file.codeTable), toVector(Eigen::VectorXf(dynamicMap())));
  report.compareFloats("nested_absmax", toVector(file.absmax), toVector(found.absmax));
  const internal::ByteThresholds thresholds = internal::byteThresholds(file.codeTable.data());
  const auto quotientAt = [&](std::size_t i) {
    const float blockAbsmax = found.absmax[static_cast<Index>(i) / file.blockSize];
    return internal::normalized(absmax[static_cast<Index>(i)] - file.offset, internal::blockReciprocal(blockAbsmax));
  };
  compareCodes(report, "absmax_codes", toVector(file.codes), toVector(found.codes), kBlockQuotientUlps, quotientAt,
               [&](float v) { return internal::encodeByte(v, thresholds.data()); });
}

/** Our plain quantisation of the input, its codes compared with the file's. */
FourBitQuantized quantizeInput(const Case& c, const test::Tensor& input, CaseReport& report) {
  const FourBitType type = c.fourBitType();
  const auto blockSize = c.parameter<Index>("blocksize");
  FourBitQuantized ours = c.backend().quantize4bit(viewOf(input), type, blockSize);
  comparePacked(widened(input), toVector(ours.state.absmax()), ours.state, c.tensor("packed"), ours.packed, report);
  return ours;
}

QuantState withNested(const QuantState& plain, NestedAbsmax nested) {
  return QuantState(plain.type(), plain.blockSize(), plain.dtype(), plain.shape(), std::move(nested));
}

}  // namespace

void checkQuantize4bit(const Case& c, CaseReport& report) {
  const FourBitQuantized ours = quantizeInput(c, c.tensor("input"), report);
  report.compareFloats("absmax", c.tensor("absmax").floats(), toVector(ours.state.absmax()));
  const QuantState file(ours.state.type(), ours.state.blockSize(), ours.state.dtype(), ours.state.shape(),
                        toEigen(c.tensor("absmax").floats()));
  compareDecoded(c, file, report);
}

void checkNested4bit(const Case& c, CaseReport& report) {
  const FourBitQuantized ours = quantizeInput(c, c.tensor("input"), report);
  NestedAbsmax nested = fileNested(c, "absmax_codes", c.parameter<Index>("nested_blocksize"));
  compareNested(ours.state.absmax(), nested, c.backend(), report);
  compareDecoded(c, withNested(ours.state, std::move(nested)), report);
}

QuantState checkMatmul4bitWeights(const Case& c, CaseReport& report) {
  const QuantState ours = quantizeInput(c, c.tensor("W"), report).state;
  if (c.parameter<bool>("nested")) {
    NestedAbsmax nested = fileNested(c, "absmax", 256);
    compareNested(ours.absmax(), nested, c.backend(), report);
    return withNested(ours, std::move(nested));
  }
  const Eigen::VectorXf absmax = toEigen(c.tensor("absmax").floats());
  report.compareFloats("absmax", toVector(absmax), toVector(ours.absmax()));
  return QuantState(ours.type(), ours.blockSize(), ours.dtype(), ours.shape(), absmax);
}

}  // namespace golden
}  // namespace EigenQ
