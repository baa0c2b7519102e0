// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_AUTODIFF_TINY_DECODER_H
#define EIGENQ_TEST_AUTODIFF_TINY_DECODER_H

#include "Support.h"

namespace EigenQ {
namespace test {

/** One block of a Llama-style decoder that touches every op, for the tests of what holds for a whole step. The feed-
 * forward block runs through frozen weights of type Frozen with a LoRA adapter on the way down. */
template <typename Scalar, typename Frozen, typename Place = ad::Host>
struct TinyDecoder {
  static constexpr Eigen::Index kDim = 8, kHidden = 12, kVocabulary = 11, kHeadDim = 2;
  using P = ad::Parameter<Scalar, Place>;
  using V = ad::Var<Scalar, Place>;

  explicit TinyDecoder(Frozen gateWeight, Frozen downWeight)
      : gate(std::move(gateWeight)), down(std::move(downWeight)) {}

  std::vector<P*> parameters() { return {&embeddings, &wq, &wk, &wv, &wo, &bias, &norm, &gain, &shift, &a, &b, &head}; }

  /** The loss of predicting \a targets from \a ids, two packed sequences of five and three tokens. */
  V loss(ad::Tape<Scalar, Place>& tape, const Eigen::VectorXi& ids, const Eigen::VectorXi& targets) {
    V x = ad::embedding(tape, embeddings, ids);
    const V h = ad::rmsNorm(x, norm);
    const V q = ad::rope(ad::linear(wq, h, bias), table, positions), k = ad::rope(ad::linear(wk, h), table, positions);
    const V attended = ad::causalAttention(q, k, ad::linear(wv, h), {4, 2, kHeadDim}, offsets);
    x = x + ad::dropout(ad::linear(wo, attended), 0.1);
    const V g = ad::layerNorm(x, gain, shift);
    const V up = ad::linear(gate, g);
    V y = ad::swiglu(up, ad::gelu(up)) + ad::cwiseProduct(ad::relu(up), ad::tanh(up)) - ad::silu(up) / 2;
    y = ad::loraLinear(down, a, b, y, {2, 0.1}, bias);
    const V logits = ad::transpose(ad::transpose(x + y) * ad::transpose(tape.parameter(head)));
    const V extra = ad::sum(ad::softmax(ad::middleRows(x, 1, 3))) - ad::mean(ad::logSoftmax(ad::middleCols(x, 1, 3)));
    return ad::crossEntropy(logits, targets) + 0.01 * extra;
  }

  P embeddings{randomMatrix<Scalar>(kDim, kVocabulary, 1), "embeddings"};
  P wq{randomMatrix<Scalar>(kDim, kDim, 2), "wq"}, wk{randomMatrix<Scalar>(4, kDim, 3), "wk"};
  P wv{randomMatrix<Scalar>(4, kDim, 4), "wv"}, wo{randomMatrix<Scalar>(kDim, kDim, 5), "wo"};
  P bias{randomMatrix<Scalar>(kDim, 1, 6), "bias"}, norm{randomMatrix<Scalar>(kDim, 1, 7), "norm"};
  P gain{randomMatrix<Scalar>(kDim, 1, 8), "gain"}, shift{randomMatrix<Scalar>(kDim, 1, 9), "shift"};
  P a{randomMatrix<Scalar>(2, kHidden, 10), "a"}, b{randomMatrix<Scalar>(kDim, 2, 11), "b"};
  P head{randomMatrix<Scalar>(kVocabulary, kDim, 12), "head"};
  Frozen gate, down;
  ad::RopeTable<Scalar, Place> table{kHeadDim, 8};
  Eigen::VectorXi positions = integers({0, 1, 2, 3, 4, 0, 1, 2}), offsets = integers({0, 5, 8});
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_AUTODIFF_TINY_DECODER_H
