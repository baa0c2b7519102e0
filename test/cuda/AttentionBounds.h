// SPDX-License-Identifier: MPL-2.0
// What attention of one query is exactly, and how far a kernel may be from it.
#ifndef EIGENQ_TEST_CUDA_ATTENTIONBOUNDS_H
#define EIGENQ_TEST_CUDA_ATTENTIONBOUNDS_H

#include <algorithm>
#include <cmath>
#include <string>

#include <src/cuda/op_attention.h>

#include "OpOperands.h"

namespace EigenQ {
namespace test {

struct Heads {
  Index heads, kvHeads, headDim, window = 0;

  Index group() const { return heads / kvHeads; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(headDim)); }
  /** The first key that the token at \a position sees. */
  Index firstSeen(Index position) const { return window > 0 ? std::max<Index>(0, position + 1 - window) : 0; }
  std::string name() const {
    return std::to_string(heads) + "/" + std::to_string(kvHeads) + " heads of " + std::to_string(headDim) +
           (window > 0 ? ", window " + std::to_string(window) : "");
  }
};

/** How a kernel computes: the tensor cores truncate where float arithmetic rounds, and round weights to the scalar. */
struct Arithmetic {
  double unit;
  double weights;
  double weightUnderflow;

  double gamma(Index n) const {
    const double nu = static_cast<double>(n) * unit;
    return nu / (1 - nu);
  }
};
constexpr Arithmetic kFloatArithmetic = {kUnit, 0, 0};

inline Arithmetic arithmeticOf(const std::string& row, ScalarType scalar) {
  if (row.find("mma") == std::string::npos) return kFloatArithmetic;
  return {4 * kUnit, unitOf(scalar), scalar == ScalarType::kHalf ? underflowOf(scalar) : 0};
}

/** Why a kernel cannot run, whether or not it would be chosen. */
inline const char* whyNot(const gpu::internal::DeviceLowering<gpu::internal::CausalAttention>& row,
                          const gpu::internal::CausalAttention& op, const gpu::Context& context) {
  using namespace gpu::internal;
  return row.run == runAttentionWgmma ? refuseAttentionWgmmaAtAll(op, context) : row.refuse(op, context);
}
inline const char* whyNot(const gpu::internal::DeviceLowering<gpu::internal::CausalAttentionBackward>& row,
                          const gpu::internal::CausalAttentionBackward& op, const gpu::Context& context) {
  using namespace gpu::internal;
  return row.run == runAttentionBackwardWgmma ? refuseAttentionBackwardWgmmaAtAll(op, context)
                                              : row.refuse(op, context);
}

struct Bounded {
  Eigen::MatrixXd exact, error;

  Bounded() = default;
  Bounded(Index rows, Index cols)
      : exact(Eigen::MatrixXd::Zero(rows, cols)), error(Eigen::MatrixXd::Zero(rows, cols)) {}
};

/** What one query makes of the keys it sees: its output and the log-sum-exp of its scores. */
struct Attended {
  Eigen::VectorXd o, oError;
  double lse, lseError;
};

inline Attended attend(const Eigen::VectorXd& q, const Eigen::MatrixXd& k, const Eigen::MatrixXd& v, double scale,
                       const Arithmetic& arithmetic) {
  const Index n = k.cols(), smallestTile = 32;
  const Eigen::VectorXd s = scale * (k.transpose() * q);
  const Eigen::VectorXd magnitudes = scale * (k.cwiseAbs().transpose() * q.cwiseAbs());
  const double scoreError = arithmetic.gamma(q.size() + 3) * magnitudes.maxCoeff();
  const double top = s.maxCoeff(), range = top - s.minCoeff(), most = s.cwiseAbs().maxCoeff();
  Eigen::VectorXd p = (s.array() - top).exp();
  const double total = p.sum();
  p /= total;
  // The exponents are rounded, and each tile may bring a larger maximum, by which all before it is rescaled.
  const double tiles = static_cast<double>(n / smallestTile + 2);
  const double exponents = kUnit * (3 * range + 4 * most + 8 * tiles * (1 + most) + 16) + kExpError;
  const double weightError = 2 * scoreError + exponents + gammaFloat(n + 16);
  Attended a;
  a.o = v * p;
  a.oError = (weightError + arithmetic.gamma(n + 8) + arithmetic.weights) * (v.cwiseAbs() * p) +
             arithmetic.weightUnderflow * v.cwiseAbs().rowwise().sum();
  a.lse = top + std::log(total);
  a.lseError = scoreError + exponents + gammaFloat(n + 16) + 4 * kUnit * std::abs(a.lse);
  return a;
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_ATTENTIONBOUNDS_H
