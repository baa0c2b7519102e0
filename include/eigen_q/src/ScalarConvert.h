// SPDX-License-Identifier: MPL-2.0
// Conversions between float, double and the bits of half and bfloat16: to nearest, ties to even, subnormals kept.
#ifndef EIGENQ_SCALARCONVERT_H
#define EIGENQ_SCALARCONVERT_H

#include <cstdint>
#include <cstring>

#include "Macros.h"
#include "Views.h"

namespace EigenQ {
namespace internal {

EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint32_t bitsOf(float v) {
  std::uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float floatOf(std::uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

constexpr std::uint32_t kFloatSign = 0x80000000u;
constexpr std::uint32_t kFloatInfinity = 0x7f800000u;

EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE bool isFinite(float v) { return (bitsOf(v) & ~kFloatSign) < kFloatInfinity; }

EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float bfloat16ToFloat(std::uint16_t b) { return floatOf(std::uint32_t{b} << 16); }

/** NaNs stay NaNs: they keep their upper payload bits and turn quiet. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint16_t floatToBFloat16(float v) {
  const std::uint32_t bits = bitsOf(v);
  const std::uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);  // half an ulp, and the tie to even
  const bool nan = (bits & ~kFloatSign) > kFloatInfinity;
  return static_cast<std::uint16_t>((nan ? bits | 0x400000 : rounded) >> 16);
}

EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE float halfToFloat(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t{h & 0x8000u} << 16;
  const std::uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00) return floatOf(sign | kFloatInfinity | magnitude << 13);  // infinity, NaN
  // Exponents move from bias 15 to bias 127. A subnormal gets a leading one for the move and gives it back, so that
  // no subnormal float occurs, which a flushing backend would lose.
  const std::uint32_t moved = (magnitude << 13) + 0x38000000u;
  return floatOf(sign | (magnitude < 0x400 ? bitsOf(floatOf(moved + 0x800000u) - 0x1p-14f) : moved));
}

/** NaNs stay NaNs: they keep their upper payload bits and turn quiet. */
EIGENQ_HOST_DEVICE EIGENQ_STRONG_INLINE std::uint16_t floatToHalf(float v) {
  const std::uint32_t bits = bitsOf(v);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & ~kFloatSign;
  std::uint32_t half;
  if (magnitude > kFloatInfinity) {
    half = 0x7e00 | (magnitude >> 13 & 0x3ff);
  } else if (magnitude >= 0x47800000u) {  // 65536 and above; 65520 to 65535 round up to infinity below
    half = 0x7c00;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits
    half = bitsOf(floatOf(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

/** Rounded to odd: a later rounding to at most 22 bits gives what one rounding of \a d would have given. */
EIGENQ_HOST_DEVICE inline float roundToOdd(double d) {
  const float nearest = static_cast<float>(d);
  const double back = static_cast<double>(nearest);
  if (back == d || d != d) return nearest;
  std::uint32_t bits = bitsOf(nearest);
  if ((d < 0 ? -back : back) > (d < 0 ? -d : d)) --bits;  // towards zero: magnitudes order like their bits
  return floatOf(bits | 1);
}

EIGENQ_HOST_DEVICE inline std::uint16_t doubleToHalf(double d) { return floatToHalf(roundToOdd(d)); }
EIGENQ_HOST_DEVICE inline std::uint16_t doubleToBFloat16(double d) { return floatToBFloat16(roundToOdd(d)); }

/** The storage type of a ScalarType and its exact or once-rounded conversions. */
template <ScalarType>
struct ScalarTraits;

template <>
struct ScalarTraits<ScalarType::kFloat> {
  using Storage = float;
  EIGENQ_HOST_DEVICE static float toFloat(float v) { return v; }
  EIGENQ_HOST_DEVICE static double toDouble(float v) { return static_cast<double>(v); }
  EIGENQ_HOST_DEVICE static float fromFloat(float v) { return v; }
  EIGENQ_HOST_DEVICE static float fromDouble(double v) { return static_cast<float>(v); }
};

template <>
struct ScalarTraits<ScalarType::kDouble> {
  using Storage = double;
  EIGENQ_HOST_DEVICE static float toFloat(double v) { return static_cast<float>(v); }
  EIGENQ_HOST_DEVICE static double toDouble(double v) { return v; }
  EIGENQ_HOST_DEVICE static double fromFloat(float v) { return static_cast<double>(v); }
  EIGENQ_HOST_DEVICE static double fromDouble(double v) { return v; }
};

template <>
struct ScalarTraits<ScalarType::kHalf> {
  using Storage = std::uint16_t;
  EIGENQ_HOST_DEVICE static float toFloat(std::uint16_t v) { return halfToFloat(v); }
  EIGENQ_HOST_DEVICE static double toDouble(std::uint16_t v) { return static_cast<double>(halfToFloat(v)); }
  EIGENQ_HOST_DEVICE static std::uint16_t fromFloat(float v) { return floatToHalf(v); }
  EIGENQ_HOST_DEVICE static std::uint16_t fromDouble(double v) { return doubleToHalf(v); }
};

template <>
struct ScalarTraits<ScalarType::kBFloat16> {
  using Storage = std::uint16_t;
  EIGENQ_HOST_DEVICE static float toFloat(std::uint16_t v) { return bfloat16ToFloat(v); }
  EIGENQ_HOST_DEVICE static double toDouble(std::uint16_t v) { return static_cast<double>(bfloat16ToFloat(v)); }
  EIGENQ_HOST_DEVICE static std::uint16_t fromFloat(float v) { return floatToBFloat16(v); }
  EIGENQ_HOST_DEVICE static std::uint16_t fromDouble(double v) { return doubleToBFloat16(v); }
};

/** Calls \a f with ScalarTraits<scalar>{}: one switch, outside the loops. */
template <typename F>
decltype(auto) dispatchScalar(ScalarType scalar, F&& f) {
  switch (scalar) {
    case ScalarType::kHalf:
      return f(ScalarTraits<ScalarType::kHalf>{});
    case ScalarType::kBFloat16:
      return f(ScalarTraits<ScalarType::kBFloat16>{});
    case ScalarType::kDouble:
      return f(ScalarTraits<ScalarType::kDouble>{});
    case ScalarType::kFloat:
      break;
  }
  return f(ScalarTraits<ScalarType::kFloat>{});
}

/** The element \a offset elements after \a data. */
inline double readScalar(const void* data, ScalarType scalar, Index offset) {
  return dispatchScalar(scalar, [=](auto traits) {
    return traits.toDouble(static_cast<const typename decltype(traits)::Storage*>(data)[offset]);
  });
}

/** Rounds \a value once, to the nearest of the type. */
inline void writeScalar(void* data, ScalarType scalar, Index offset, double value) {
  dispatchScalar(scalar, [=](auto traits) {
    static_cast<typename decltype(traits)::Storage*>(data)[offset] = traits.fromDouble(value);
  });
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_SCALARCONVERT_H
