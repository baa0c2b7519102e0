// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_ROPE_H
#define EIGENQ_OPS_ROPE_H

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <eigen_q/src/FloatKernels.h>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

/** Which entries of a head turn together: i and i + headDim/2 (Hugging Face checkpoints), or 2i and 2i + 1 (the
 * original paper, llama2.c, GGUF's Llama). A checkpoint made for one is wrong under the other. */
enum class RopePairs : std::uint8_t { Half, Adjacent };

/** Cosines and sines of the angles position·frequency(i), for every position below a limit. */
template <typename Scalar_, typename Place = Host>
class RopeTable {
 public:
  using Scalar = Scalar_;
  using Matrix = Eigen::MatrixX<Scalar>;

  /** Frequencies theta^(-2i/headDim). Throws std::invalid_argument for an odd or non-positive \a headDim.
   * Source: Su et al., RoFormer, arXiv:2104.09864. */
  RopeTable(Eigen::Index headDim, Eigen::Index maxPositions, double theta = 10000, RopePairs pairs = RopePairs::Half)
      : RopeTable(frequencies(headDim, theta), maxPositions, pairs) {}

  /** Given frequencies, headDim/2 of them, for scaled variants. */
  RopeTable(const Eigen::Ref<const Eigen::VectorXd>& frequencies, Eigen::Index maxPositions,
            RopePairs pairs = RopePairs::Half)
      : m_cos(frequencies.size(), maxPositions), m_sin(frequencies.size(), maxPositions), m_pairs(pairs) {
    for (Eigen::Index t = 0; t < maxPositions; ++t) {  // angles in double: float loses them at long positions
      const Eigen::ArrayXd angles = static_cast<double>(t) * frequencies.array();
      m_cos.col(t) = angles.cos().matrix().template cast<Scalar>();
      m_sin.col(t) = angles.sin().matrix().template cast<Scalar>();
    }
  }

  Eigen::Index headDim() const { return 2 * m_cos.rows(); }
  Eigen::Index maxPositions() const { return m_cos.cols(); }
  RopePairs pairs() const { return m_pairs; }
  const Matrix& cos() const { return m_cos; }  // headDim/2 × maxPositions
  const Matrix& sin() const { return m_sin; }

 private:
  static Eigen::VectorXd frequencies(Eigen::Index headDim, double theta) {
    if (headDim <= 0 || headDim % 2 != 0)
      throw std::invalid_argument("RopeTable: expected an even head dimension, found " + std::to_string(headDim));
    const Eigen::Index half = headDim / 2;
    const Eigen::ArrayXd exponents =
        Eigen::ArrayXd::LinSpaced(half, 0, static_cast<double>(half - 1)) / -static_cast<double>(half);
    return (exponents * std::log(theta)).exp();
  }

  Matrix m_cos;
  Matrix m_sin;
  RopePairs m_pairs;
};

namespace internal {
inline void checkPositionCount(Eigen::Index positions, Eigen::Index tokens) {
  if (positions != tokens)
    throw std::invalid_argument("rope: expected " + std::to_string(tokens) + " positions, one per token, found " +
                                std::to_string(positions));
}
inline void checkPositions(const Eigen::Ref<const Eigen::VectorXi>& positions, Eigen::Index tokens,
                           Eigen::Index maxPositions) {
  checkPositionCount(positions.size(), tokens);
  if (positions.size() > 0 && (positions.minCoeff() < 0 || positions.maxCoeff() >= maxPositions))
    throw std::out_of_range("rope: expected positions from 0 to " + std::to_string(maxPositions - 1) + ", found " +
                            std::to_string(positions.minCoeff()) + " to " + std::to_string(positions.maxCoeff()));
}

/** Turns each pair (a, b) of each head of one token to (a cos ∓ b sin, b cos ± a sin), by its angle or back.
 * Half and Adjacent differ in strides only. \param direction  +1: the rotation; -1: its inverse and transpose. */
template <typename Scalar, typename Column>
void rotateToken(RopePairs pairs, Scalar direction, Eigen::Index heads, const Scalar* x, const Column& c,
                 const Column& s, Scalar* y) {
  const Eigen::Index half = c.size();
  const auto rotate = [&](auto a, auto b, auto outA, auto outB) {
    outA = a.colwise() * c - direction * (b.colwise() * s);
    outB = b.colwise() * c + direction * (a.colwise() * s);
  };
  using Array = Eigen::ArrayXX<Scalar>;
  if (pairs == RopePairs::Half) {
    using Strided = Eigen::OuterStride<>;
    const Strided stride(2 * half);
    using In = Eigen::Map<const Array, 0, Strided>;
    using Out = Eigen::Map<Array, 0, Strided>;
    rotate(In(x, half, heads, stride), In(x + half, half, heads, stride), Out(y, half, heads, stride),
           Out(y + half, half, heads, stride));
  } else {
    using Strided = Eigen::Stride<Eigen::Dynamic, 2>;
    const Strided stride(2 * half, 2);
    using In = Eigen::Map<const Array, 0, Strided>;
    using Out = Eigen::Map<Array, 0, Strided>;
    rotate(In(x, half, heads, stride), In(x + 1, half, heads, stride), Out(y, half, heads, stride),
           Out(y + 1, half, heads, stride));
  }
}

inline void ropeByKernel(const RopeTable<float>& table, const Eigen::Map<const Eigen::VectorXi>& positions,
                         float direction, const Eigen::Map<const Eigen::MatrixXf>& x,
                         const EigenQ::internal::FloatGradient& y) {
  EigenQ::internal::FloatRope call;
  call.half = table.headDim() / 2;
  call.heads = x.rows() / table.headDim();
  call.tokens = x.cols();
  call.adjacent = table.pairs() == RopePairs::Adjacent;
  call.direction = direction;
  call.cos = table.cos().data();
  call.sin = table.sin().data();
  call.positions = positions.data();
  call.x = x.data();
  call.y = y;
  EigenQ::internal::floatKernels().rope(call);
}

template <typename Scalar>
void applyRope(const RopeTable<Scalar>& table, const Eigen::Map<const Eigen::VectorXi>& positions, Scalar direction,
               const Eigen::Map<const Eigen::MatrixX<Scalar>>& x, Eigen::Map<Eigen::MatrixX<Scalar>> y) {
  if constexpr (std::is_same_v<Scalar, float>)
    return ropeByKernel(table, positions, direction, x, {y.data(), /*accumulate=*/false});
  const Eigen::Index heads = x.rows() / table.headDim();
  for (Eigen::Index t = 0; t < x.cols(); ++t) {
    const auto c = table.cos().col(positions(t)).array();
    const auto s = table.sin().col(positions(t)).array();
    rotateToken(table.pairs(), direction, heads, x.data() + t * x.rows(), c, s, y.data() + t * y.rows());
  }
}
}  // namespace internal

/** Rotary position embedding of queries or keys.
 * \param x  (heads·headDim)×tokens. \param positions  of each token in its own sequence.
 * \param table  outlives the tape's next clear().
 * Throws std::invalid_argument for a wrong number of positions, std::out_of_range for a position beyond the table. */
template <typename Scalar>
Var<Scalar> rope(const Var<Scalar>& x, const RopeTable<Scalar>& table,
                 const Eigen::Ref<const Eigen::VectorXi>& positions) {
  eigen_assert(x.rows() % table.headDim() == 0 && "rope: rows are not a multiple of the head dimension");
  internal::checkPositions(positions, x.cols(), table.maxPositions());
  Tape<Scalar>& tape = x.tape();
  const auto kept = tape.keep(positions);
  const RopeTable<Scalar>* const angles = &table;
  ArenaMatrix<Scalar> y = tape.newMatrix(x.rows(), x.cols());
  internal::applyRope<Scalar>(table, kept, Scalar(1), x.value(), y);
  return tape.record("rope", {x}, y, [=](const auto& dy) {
    if constexpr (std::is_same_v<Scalar, float>) {
      internal::ropeByKernel(*angles, kept, -1, dy, internal::floatGradient(x));
    } else {
      Scratch<Scalar> scratch(x.tape());
      auto dx = scratch.matrix(x.rows(), x.cols());
      internal::applyRope<Scalar>(*angles, kept, Scalar(-1), dy, dx);
      x.addGrad(dx);
    }
  });
}

/** A temporary table would dangle. */
template <typename Scalar>
Var<Scalar> rope(const Var<Scalar>& x, const RopeTable<Scalar>&& table,
                 const Eigen::Ref<const Eigen::VectorXi>& positions) = delete;

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_ROPE_H
