// SPDX-License-Identifier: MPL-2.0
// One projection of the decoder, whatever its weight is stored as.
#ifndef EIGENQ_FINETUNE_LINEAR_H
#define EIGENQ_FINETUNE_LINEAR_H

#include <optional>
#include <utility>
#include <variant>

#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

#include "ModelOptions.h"

namespace finetune {

using Tape = EigenQ::ad::Tape<float>;
using Var = EigenQ::ad::Var<float>;
using Parameter = EigenQ::ad::Parameter<float>;

using Weight = std::variant<Parameter, EigenQ::Int8Matrix, EigenQ::NF4Matrix>;

/** A low-rank update B A beside a weight. */
struct Adapter {
  Parameter a;  // r×in
  Parameter b;  // out×r
  EigenQ::ad::LoraOptions options;
};

/** Parameters do not copy by accident: whoever wants a second one says so. */
inline Parameter clone(const Parameter& p) { return Parameter(p.value(), p.name(), p.requiresGrad()); }
inline Weight clone(const Weight& weight) {
  if (const auto* p = std::get_if<Parameter>(&weight)) return clone(*p);
  if (const auto* q = std::get_if<EigenQ::Int8Matrix>(&weight)) return *q;
  return std::get<EigenQ::NF4Matrix>(weight);
}

/** y = W x, or W x + scale·B A dropout(x) where an adapter is attached. W is out×in. */
struct Linear {
  Weight weight;
  std::optional<Adapter> adapter;

  Var operator()(const Var& x) {
    return std::visit([&](auto& w) { return adapter ? adapted(w, x) : EigenQ::ad::linear(w, x); }, weight);
  }

  Index rows() const {
    return std::visit([](const auto& w) { return w.rows(); }, weight);
  }
  Index cols() const {
    return std::visit([](const auto& w) { return w.cols(); }, weight);
  }

  /** Bytes of W as it is stored, statistics included. */
  Index weightBytes() const {
    if (const auto* p = std::get_if<Parameter>(&weight)) return p->size() * Index(sizeof(float));
    if (const auto* q = std::get_if<EigenQ::Int8Matrix>(&weight)) return q->sizeInBytes();
    return std::get<EigenQ::NF4Matrix>(weight).sizeInBytes();
  }

 private:
  template <typename W>
  Var adapted(W& w, const Var& x) {
    EigenQ::ad::LoraOptions options = adapter->options;
    if (!x.tape().gradEnabled()) options.dropout = 0;  // under a NoGradGuard nobody trains
    return EigenQ::ad::loraLinear(w, adapter->a, adapter->b, x, options);
  }
};

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_LINEAR_H
