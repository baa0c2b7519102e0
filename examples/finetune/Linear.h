// SPDX-License-Identifier: MPL-2.0
// One projection of the decoder, whatever its weight is stored as.
#ifndef EIGENQ_FINETUNE_LINEAR_H
#define EIGENQ_FINETUNE_LINEAR_H

#include <optional>
#include <utility>
#include <variant>

#include "Place.h"

namespace finetune {

template <typename Place>
using Weight = std::variant<Parameter<Place>, Int8Matrix<Place>, NF4Matrix<Place>>;

/** A low-rank update B A beside a weight. */
template <typename Place>
struct Adapter {
  Parameter<Place> a;  // r×in
  Parameter<Place> b;  // out×r
  EigenQ::ad::LoraOptions options;
};

/** Parameters do not copy by accident: whoever wants a second one says so. */
template <typename Place>
Parameter<Place> clone(const Parameter<Place>& p) {
  return Parameter<Place>(PlaceTraits<Place>::toHost(p.value()), p.name(), p.requiresGrad());
}
inline Weight<Host> clone(const Weight<Host>& weight) {
  if (const auto* p = std::get_if<Parameter<Host>>(&weight)) return clone(*p);
  if (const auto* q = std::get_if<EigenQ::Int8Matrix>(&weight)) return *q;
  return std::get<EigenQ::NF4Matrix>(weight);
}

/** y = W x, or W x + scale·B A dropout(x) where an adapter is attached. W is out×in. */
template <typename Place>
struct Linear {
  using Var = EigenQ::ad::Var<float, Place>;

  Weight<Place> weight;
  std::optional<Adapter<Place>> adapter;

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
    if (const auto* p = std::get_if<Parameter<Place>>(&weight)) return p->size() * Index(sizeof(float));
    if (const auto* q = std::get_if<Int8Matrix<Place>>(&weight)) return q->sizeInBytes();
    return std::get<NF4Matrix<Place>>(weight).sizeInBytes();
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
