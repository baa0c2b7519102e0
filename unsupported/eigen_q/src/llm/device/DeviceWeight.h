// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_DEVICE_WEIGHT_H
#define EIGENQ_LLM_DEVICE_WEIGHT_H

#include <cstdint>

#include "../../device/DevicePlace.h"
#include "../Weight.h"

namespace EigenQ {
namespace llm {
namespace internal {

template <>
struct QuantizedIn<ad::Device> {
  using Int8 = gpu::Int8Matrix;
  template <FourBitType kType>
  using FourBit = gpu::FourBitMatrix<kType>;

  static Int8 fromHost(Int8Matrix&& w) { return Int8::fromHost(w); }
  template <FourBitType kType>
  static FourBit<kType> fromHost(FourBitMatrix<kType>&& w) {
    return FourBit<kType>::fromHost(w);
  }

  template <typename W>
  static auto toHost(const W& w) {
    return w.toHost();
  }

  template <typename W>
  static Index sizeInBytes(const W& w) {
    return w.sizeInBytes();
  }
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_DEVICE_WEIGHT_H
