// SPDX-License-Identifier: MPL-2.0
// What a model's matrices are stored as.
#ifndef EIGENQ_LLM_WEIGHT_H
#define EIGENQ_LLM_WEIGHT_H

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include <eigen_q/Core>

#include "../../Autodiff"

namespace EigenQ {
namespace llm {

namespace internal {
/** Parameters that train are in float where the tape computes in 16 bits. */
template <typename Scalar>
using MasterOf = std::conditional_t<sizeof(Scalar) == 2, float, Scalar>;

/** The quantised matrices of a place, and how those of the host get there. */
template <typename Place>
struct QuantizedIn;

template <>
struct QuantizedIn<ad::Host> {
  using Int8 = Int8Matrix;
  template <FourBitType kType>
  using FourBit = FourBitMatrix<kType>;

  template <typename W>
  static W fromHost(W&& w) {
    return std::move(w);
  }
  template <typename W>
  static const W& toHost(const W& w) {
    return w;
  }
  template <typename W>
  static Index sizeInBytes(const W& w) {
    return w.sizeInBytes();
  }
};
}  // namespace internal

namespace internal {
constexpr std::uint64_t kNoChecksum = 0xCBF29CE484222325u;  // of nothing; Fowler, Noll and Vo's, with their prime
std::uint64_t mixed(std::uint64_t hash, std::uint64_t value);
/** Of the size and about a thousand values, evenly spread. */
std::uint64_t checksumOfDense(const Eigen::Ref<const Eigen::MatrixXf>& w);
}  // namespace internal

/** A dense matrix of a model: rounded to the tape's scalar while it is frozen, in float while it trains. On the host a
 * frozen matrix whose values all fit 16 bits is kept in 16. */
template <typename Scalar_, typename Place_ = ad::Host>
class DenseWeight {
 public:
  using Scalar = Scalar_;
  using Place = Place_;
  using Frozen = ad::Parameter<Scalar, Place>;
  using Master = ad::Parameter<internal::MasterOf<Scalar>, Place>;

  /** Whether narrow() may find something. */
  static constexpr bool kNarrows = std::is_same_v<Scalar, float> && std::is_same_v<Place, ad::Host>;

  DenseWeight() = default;
  DenseWeight(const Eigen::Ref<const Eigen::MatrixXf>& value, const std::string& name, bool trainable = false) {
    set(value, name, trainable);
  }

  Index rows() const { return m_narrow ? m_narrow.rows() : trainable() ? m_master.rows() : m_frozen.rows(); }
  Index cols() const { return m_narrow ? m_narrow.cols() : trainable() ? m_master.cols() : m_frozen.cols(); }
  const std::string& name() const { return trainable() ? m_master.name() : m_frozen.name(); }
  Index sizeInBytes() const {
    if (m_narrow) return m_narrow.sizeInBytes();
    return rows() * cols() * Index(trainable() ? sizeof(typename Master::Scalar) : sizeof(Scalar));
  }

  /** The value in 16 bits, or null where it is not. */
  const ad::NarrowMatrix* narrow() const { return m_narrow ? &m_narrow : nullptr; }

  /** The value on a tape, with a gradient while it trains. A narrow() one is copied there: better to multiply with
   * that itself. */
  ad::Var<Scalar, Place> on(ad::Tape<Scalar, Place>& tape) {
    if constexpr (kNarrows)
      if (m_narrow) return tape.constant(m_narrow.toFloat());
    return trainable() ? tape.parameter(m_master) : tape.parameter(m_frozen);
  }

  bool trainable() const { return m_trainable; }
  /** What an optimiser steps; null while frozen. */
  Master* parameter() { return m_trainable ? &m_master : nullptr; }
  const Master* parameter() const { return m_trainable ? &m_master : nullptr; }

  /** Of the value as it was given, before it was rounded: the same in every place. */
  std::uint64_t checksum() const { return m_checksum; }

  /** Moves the value between its two forms. To freeze is to round; from a device it waits for the current context. */
  void setTrainable(bool trainable) {
    if (trainable != m_trainable) set(toHost(), std::string(name()), trainable);
  }

  /** From a device it waits for the current context. */
  Eigen::MatrixXf toHost() const {
    if (m_narrow) return m_narrow.toFloat();
    if (m_trainable) return Place::toHost(m_master.value()).template cast<float>();
    return Place::toHost(m_frozen.value()).template cast<float>();
  }

 private:
  void set(const Eigen::Ref<const Eigen::MatrixXf>& value, const std::string& name, bool trainable) {
    Frozen frozen;
    Master master;
    ad::NarrowMatrix narrow;
    // Vectors, norms and biases, are read as they are.
    if (kNarrows && !trainable && value.rows() > 1 && value.cols() > 1) narrow = ad::NarrowMatrix(value);
    if (trainable)
      master = Master(value.template cast<typename Master::Scalar>(), name);
    else if (narrow)
      frozen = Frozen(Eigen::MatrixX<Scalar>(), name, /*requiresGrad=*/false);
    else
      frozen = Frozen(value.template cast<Scalar>(), name, /*requiresGrad=*/false);
    m_frozen = std::move(frozen);
    m_master = std::move(master);
    m_narrow = std::move(narrow);
    m_trainable = trainable;
    m_checksum = internal::checksumOfDense(value);
  }

  Frozen m_frozen;
  Master m_master;
  ad::NarrowMatrix m_narrow;
  bool m_trainable = false;
  std::uint64_t m_checksum = internal::kNoChecksum;
};

/** An int8 matrix that multiplies as LLM.int8() does: Int8Matrix::withThreshold(), and the codes with it. */
template <typename Int8>
struct LlmInt8Weight {
  Int8 codes;
  float threshold = 6;

  Index rows() const { return codes.rows(); }
  Index cols() const { return codes.cols(); }
};

/** A weight on the host, before it goes where the model lives: dense as out×in, or quantised. */
using HostWeight = std::variant<Eigen::MatrixXf, Int8Matrix, LlmInt8Weight<Int8Matrix>, NF4Matrix, FP4Matrix>;

namespace internal {
/** Of the size and about a thousand codes and as many statistics, evenly spread. */
std::uint64_t checksumOf(const HostWeight& w);
}  // namespace internal

/** A weight of a projection, out×in. */
template <typename Scalar, typename Place = ad::Host>
using Weight = std::variant<DenseWeight<Scalar, Place>, typename internal::QuantizedIn<Place>::Int8,
                            LlmInt8Weight<typename internal::QuantizedIn<Place>::Int8>,
                            typename internal::QuantizedIn<Place>::template FourBit<FourBitType::kNF4>,
                            typename internal::QuantizedIn<Place>::template FourBit<FourBitType::kFP4>>;

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_WEIGHT_H
