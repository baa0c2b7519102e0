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

  static Index sizeInBytes(const Int8& w) { return w.rows() * w.cols() + w.rows() * Index(sizeof(float)); }
  template <FourBitType kType>
  static Index sizeInBytes(const FourBit<kType>& w) {
    constexpr Index kFloat = sizeof(float);
    const Index values = w.rows() * w.cols(), blocks = EigenQ::internal::blockCount(values, w.blockSize());
    const Index nested =
        blocks + (EigenQ::internal::blockCount(blocks, 256) + EigenQ::internal::kByteLevels + 1) * kFloat;
    return EigenQ::internal::packedSize(values) + (w.isNested() ? nested : blocks * kFloat);
  }
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_DEVICE_WEIGHT_H
