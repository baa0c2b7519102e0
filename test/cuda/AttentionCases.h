// SPDX-License-Identifier: MPL-2.0
// Problems of causal attention over packed sequences, what they are exactly, and every kernel's run of them.
#ifndef EIGENQ_TEST_CUDA_ATTENTIONCASES_H
#define EIGENQ_TEST_CUDA_ATTENTIONCASES_H

#include <src/cuda/op_attention.h>

#include <map>
#include <string>
#include <vector>

#include "AttentionBounds.h"

namespace EigenQ {
namespace test {

using gpu::internal::CausalAttention;
using gpu::internal::CausalAttentionBackward;

inline std::vector<std::int32_t> offsetsOf(const std::vector<int>& lengths) {
  std::vector<std::int32_t> offsets = {0};
  for (const int n : lengths) offsets.push_back(offsets.back() + n);
  return offsets;
}

struct Inputs {
  Heads heads;
  std::vector<std::int32_t> offsets;
  Eigen::MatrixXd q, k, v;

  /** Calls f(head, kvHead, first token, tokens) for each head of each sequence. */
  template <typename F>
  void forEachHead(F f) const {
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      for (Index h = 0; h < heads.heads; ++h)
        if (offsets[s] < offsets[s + 1]) f(h, h / heads.group(), offsets[s], offsets[s + 1] - offsets[s]);
  }
  Eigen::MatrixXd part(const Eigen::MatrixXd& m, Index head, Index first, Index tokens) const {
    return m.block(head * heads.headDim, first, heads.headDim, tokens);
  }
};

struct Forward {
  Bounded o, lse;

  Forward(const Inputs& in, const Arithmetic& arithmetic)
      : o(in.q.rows(), in.q.cols()), lse(in.heads.heads, in.q.cols()) {
    const Index d = in.heads.headDim;
    in.forEachHead([&](Index h, Index kv, Index first, Index tokens) {
      const Eigen::MatrixXd q = in.part(in.q, h, first, tokens), k = in.part(in.k, kv, first, tokens),
                            v = in.part(in.v, kv, first, tokens);
      for (Index j = 0; j < tokens; ++j) {
        const Index seen = in.heads.firstSeen(j), count = j + 1 - seen;
        const Attended a =
            attend(q.col(j), k.middleCols(seen, count), v.middleCols(seen, count), in.heads.scale(), arithmetic);
        o.exact.block(h * d, first + j, d, 1) = a.o;
        o.error.block(h * d, first + j, d, 1) = a.oError;
        lse.exact(h, first + j) = a.lse;
        lse.error(h, first + j) = a.lseError;
      }
    });
  }
};

/** The pullback with o and lse as given, which are rounded. */
struct Backward {
  Bounded dq, dk, dv;

  Backward(const Inputs& in, const Eigen::MatrixXd& o, const Eigen::MatrixXd& lse, const Eigen::MatrixXd& d_o,
           const Arithmetic& arithmetic)
      : dq(in.q.rows(), in.q.cols()), dk(in.k.rows(), in.k.cols()), dv(in.k.rows(), in.k.cols()) {
    const Index d = in.heads.headDim;
    const double scale = in.heads.scale();
    in.forEachHead([&](Index h, Index kv, Index first, Index n) {
      const Eigen::MatrixXd q = in.part(in.q, h, first, n), k = in.part(in.k, kv, first, n),
                            v = in.part(in.v, kv, first, n), g = in.part(d_o, h, first, n),
                            out = in.part(o, h, first, n);
      const Eigen::MatrixXd s = scale * (k.transpose() * q), dp = v.transpose() * g;  // keys×queries
      const Eigen::MatrixXd sError = arithmetic.gamma(d + 3) * scale * (k.cwiseAbs().transpose() * q.cwiseAbs());
      const Eigen::MatrixXd dpError = arithmetic.gamma(d + 1) * (v.cwiseAbs().transpose() * g.cwiseAbs());
      Eigen::MatrixXd p = Eigen::MatrixXd::Zero(n, n), ds = p, pError = p, dsError = p;
      for (Index j = 0; j < n; ++j) {
        const double norm = lse(h, first + j), delta = out.col(j).dot(g.col(j));
        const double deltaError = gammaFloat(d + 1) * out.col(j).cwiseAbs().dot(g.col(j).cwiseAbs());
        for (Index i = in.heads.firstSeen(j); i <= j; ++i) {
          p(i, j) = std::exp(s(i, j) - norm);
          ds(i, j) = p(i, j) * (dp(i, j) - delta);
          const double relative = sError(i, j) + 6 * kUnit * (std::abs(s(i, j)) + std::abs(norm) + 1) + 2 * kExpError;
          const double atDs = relative * std::abs(dp(i, j) - delta) + dpError(i, j) + deltaError +
                              3 * kUnit * (std::abs(dp(i, j)) + std::abs(delta));
          pError(i, j) = p(i, j) * (relative + arithmetic.weights) + arithmetic.weightUnderflow;
          dsError(i, j) = p(i, j) * atDs * (1 + arithmetic.weights) + arithmetic.weights * std::abs(ds(i, j)) +
                          arithmetic.weightUnderflow;
        }
      }
      const double ofRow = arithmetic.gamma(n + 6), ofGroup = arithmetic.gamma(in.heads.group() * (n + 6));
      const auto add = [&](Bounded& to, Index head, const Eigen::MatrixXd& exact, const Eigen::MatrixXd& error) {
        to.exact.block(head * d, first, d, n) += exact;
        to.error.block(head * d, first, d, n) += error;
      };
      add(dq, h, scale * (k * ds), scale * (k.cwiseAbs() * (dsError + ofRow * ds.cwiseAbs())));
      add(dk, kv, scale * (q * ds.transpose()),
          scale * (q.cwiseAbs() * (dsError + ofGroup * ds.cwiseAbs()).transpose()));
      add(dv, kv, g * p.transpose(), g.cwiseAbs() * (pError + ofGroup * p).transpose());
    });
  }
};

/** The operands of one problem, for any layout. */
struct Case {
  ScalarType scalar;
  Inputs in;
  Eigen::MatrixXd d_o;
  Eigen::MatrixXd o, lse;  // as the backward pass finds them

  Case(ScalarType type, const Heads& heads, const std::vector<int>& lengths, double sharpness = 1) : scalar(type) {
    in.heads = heads;
    in.offsets = offsetsOf(lengths);
    const Index tokens = in.offsets.back(), rows = heads.heads * heads.headDim, kvRows = heads.kvHeads * heads.headDim;
    const auto rounded = [&](const Eigen::MatrixXd& m) { return OpMatrix(type, m).values(); };
    in.q = rounded(gaussian(rows, tokens, 1, 2 * sharpness));
    in.k = rounded(gaussian(kvRows, tokens, 2));
    in.v = rounded(gaussian(kvRows, tokens, 3));
    d_o = rounded(gaussian(rows, tokens, 4));
    const Forward forward(in, kFloatArithmetic);
    o = rounded(forward.o.exact);
    lse = OpMatrix(ScalarType::kFloat, forward.lse.exact).values();
  }
  std::string name(Columns columns) const {
    return in.heads.name() + ", " + std::to_string(in.q.cols()) + " tokens, " + nameOf(scalar) + ", " + nameOf(columns);
  }
};

/** A case on the device. */
struct Upload {
  Setting setting;
  OpMatrix q, k, v, o, lse, d_o, dq, dk, dv;
  DeviceArray<std::int32_t> offsets;
  CausalAttention forward;

  Upload(const Case& c, Columns columns)
      : setting{c.scalar, columns, 0, 0},
        q(setting.matrix(c.in.q, 0)),
        k(setting.matrix(c.in.k, 1)),
        v(setting.matrix(c.in.v, 2)),
        o(setting.matrix(c.o, 0)),
        lse(ScalarType::kFloat, c.lse),
        d_o(setting.matrix(c.d_o, 1)),
        dq(setting.matrix(gaussian(c.in.q.rows(), c.in.q.cols(), 5), 2)),
        dk(setting.matrix(gaussian(c.in.k.rows(), c.in.k.cols(), 6), 0)),
        dv(setting.matrix(gaussian(c.in.k.rows(), c.in.k.cols(), 7), 1)),
        offsets(c.in.offsets) {
    forward.heads = c.in.heads.heads;
    forward.kvHeads = c.in.heads.kvHeads;
    forward.headDim = c.in.heads.headDim;
    forward.window = c.in.heads.window;
    forward.offsets = offsets.data();
    forward.sequences = static_cast<Index>(c.in.offsets.size()) - 1;
    forward.q = q.in();
    forward.k = k.in();
    forward.v = v.in();
    forward.o = o.out();
    forward.lse = static_cast<float*>(lse.out().data);
  }
  CausalAttentionBackward backward(bool accumulate) const {
    CausalAttentionBackward op;
    op.forward = forward;
    op.d_o = d_o.in();
    op.dq = dq.out(), op.dk = dk.out(), op.dv = dv.out();
    op.accumulateQ = op.accumulateK = op.accumulateV = accumulate;
    return op;
  }
};

using Runs = std::map<std::string, int>;

inline void checkForward(const Case& c, gpu::Context& context, Runs& runs) {
  std::map<double, Forward> exact;  // by the arithmetic's unit
  for (const Columns columns : kColumns) {
    Upload device(c, columns);
    for (const auto& row : gpu::internal::attentionForwardLowerings()) {
      if (whyNot(row, device.forward, context)) continue;
      ++runs[row.name];
      const Arithmetic arithmetic = arithmeticOf(row.name, c.scalar);
      const Forward& f = exact.try_emplace(arithmetic.unit, c.in, arithmetic).first->second;
      checkOp(std::string(row.name) + " " + c.name(columns),
              {{"o", &device.o, f.o.exact, f.o.error}, {"lse", &device.lse, f.lse.exact, f.lse.error}}, false, context,
              [&](bool) { row.run(device.forward, context); });
    }
  }
}

inline void checkBackward(const Case& c, gpu::Context& context, Runs& runs) {
  std::map<double, Backward> exact;  // by the arithmetic's unit
  for (const Columns columns : kColumns) {
    Upload device(c, columns);
    for (const auto& row : gpu::internal::attentionBackwardLowerings()) {
      if (whyNot(row, device.backward(false), context)) continue;
      ++runs[row.name];
      const Arithmetic arithmetic = arithmeticOf(row.name, c.scalar);
      const Backward& b = exact.try_emplace(arithmetic.unit, c.in, c.o, c.lse, c.d_o, arithmetic).first->second;
      checkOp(std::string(row.name) + " " + c.name(columns),
              {{"dq", &device.dq, b.dq.exact, b.dq.error},
               {"dk", &device.dk, b.dk.exact, b.dk.error},
               {"dv", &device.dv, b.dv.exact, b.dv.error}},
              true, context, [&](bool accumulate) { row.run(device.backward(accumulate), context); });
    }
  }
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_ATTENTIONCASES_H
