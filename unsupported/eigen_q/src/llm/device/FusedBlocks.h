// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_DEVICE_FUSED_BLOCKS_H
#define EIGENQ_LLM_DEVICE_FUSED_BLOCKS_H

#include <memory>
#include <utility>
#include <variant>

#include <eigen_q/src/gpu/DecoderKernels.h>

#include "../../ops/device/cached_attention.h"
#include "../../ops/device/helpers.h"
#include "../DecodeStep.h"
#include "DeviceWeight.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** All blocks of a model as one kernel, for a token of each sequence: what Llama::features() does between embedding and
 * last norm, but for the order of its sums. Weights in 4 bits, nothing that trains, no adapter. */
template <typename Scalar>
class FusedBlocks {
 public:
  using Model = Llama<Scalar, ad::Device>;
  using Cache = KvCache<Scalar, ad::Device>;
  using Var = ad::Var<Scalar, ad::Device>;

  /** Null where the kernel is not for this model, cache or device, and then \a refusal says why; EIGENQ_LOG=lowering
   * prints the choice. Waits for the device; outlived by both. Throws CudaOutOfMemory. */
  static std::unique_ptr<FusedBlocks> make(Model& model, Cache& cache, gpu::Context& context, const char*& refusal) {
    gpu::internal::Decoder decoder;
    refusal = describe(model, cache, context, decoder);
    if (!refusal) refusal = gpu::internal::refuseDecoder(decoder, context);
    gpu::internal::logDecoder(decoder, refusal);
    return refusal ? nullptr : std::unique_ptr<FusedBlocks>(new FusedBlocks(decoder, context));
  }

  /** \param x  hidden×sequences. \param positions  one a sequence. One call after the other. */
  Var operator()(const Var& x, const int* positions) {
    auto& tape = x.tape();
    ad::ArenaMatrix<Scalar, ad::Device> y = tape.newMatrix(x.rows(), x.cols());
    gpu::internal::DecoderStep op;
    op.x = ad::internal::reading(x).data;
    op.y = ad::internal::writing<Scalar>(y, tape.context()).data;
    op.positions = positions;
    op.step = std::as_const(m_number).data();
    m_kernel.run(op, tape.context());
    ad::advance(m_number, 1, tape.context());
    return tape.record("fusedBlocks", {}, y, [](const auto&) {});
  }

 private:
  using Projection = typename Model::Projection;
  using Dense = typename Model::Dense;

  FusedBlocks(const gpu::internal::Decoder& decoder, gpu::Context& context)
      : m_kernel(decoder, context), m_number(1, 1, context) {
    ad::setIntegers(m_number, Eigen::VectorXi::Ones(1), context);
  }

  /** \returns why there is nothing to describe; null: all is in \a d. */
  static const char* describe(Model& model, Cache& cache, gpu::Context& context, gpu::internal::Decoder& d) {
    sizes(model, cache, d);
    const auto& rope = model.ropeTable();
    d.cos = static_cast<const float*>(ad::internal::reading(rope.cos().view(), context).data);
    d.sin = static_cast<const float*>(ad::internal::reading(rope.sin().view(), context).data);
    d.maxPositions = rope.maxPositions();
    d.adjacent = rope.pairs() == ad::RopePairs::Adjacent;
    ad::Tape<Scalar, ad::Device> tape(context);
    std::size_t at = 0;
    for (auto& layer : model.layers()) {
      gpu::internal::DecoderBlock& block = d.blocks[at];
      Index m = 0;
      for (Projection* linear :
           {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down}) {
        if (linear->adapter()) return "a projection has an adapter";
        if (!takeWeight(linear->weight(), block.weights[m], context)) return "a weight is not in 4 bits";
        if (linear->bias() && !takeDense(*linear->bias(), block.biases[m], tape)) return "a bias is trained";
        ++m;
      }
      if (!takeDense(layer.attentionNorm, block.attentionGain, tape) || !takeDense(layer.ffnNorm, block.ffnGain, tape))
        return "a gain is trained";
      auto& cached = cache.layer(static_cast<Index>(at++));
      block.keys = ad::internal::writing(cached.mutableKeys().view(), context);
      block.values = ad::internal::writing(cached.mutableValues().view(), context);
      block.window = cached.heads().window;
    }
    return nullptr;
  }

  static void sizes(Model& model, Cache& cache, gpu::internal::Decoder& d) {
    const LlamaConfig& c = model.config();
    d.hidden = c.hiddenSize;
    d.ffn = c.intermediateSize;
    d.heads = c.numAttentionHeads;
    d.kvHeads = c.numKeyValueHeads;
    d.headDim = c.headDim;
    d.sequences = cache.sequences();
    d.capacity = cache.capacity();
    d.scalar = gpu::internal::ScalarTypeOf<Scalar>::value;
    d.eps = c.rmsNormEps;
    d.blocks.resize(model.layers().size());
  }

  static bool takeWeight(const Weight<Scalar, ad::Device>& weight, gpu::internal::WeightView& view,
                         gpu::Context& context) {
    return std::visit([&](const auto& w) { return take(w, view, context); }, weight);
  }
  template <FourBitType kType>
  static bool take(const gpu::FourBitMatrix<kType>& w, gpu::internal::WeightView& view, gpu::Context& context) {
    const gpu::internal::WeightOperand operand = w.operand();
    operand.block->beginRead(context);
    view = operand.view.weights;
    return true;
  }
  template <typename W>
  static bool take(const W&, gpu::internal::WeightView&, gpu::Context&) {
    return false;
  }
  static bool takeDense(Dense& dense, gpu::internal::ConstDenseView& view, ad::Tape<Scalar, ad::Device>& tape) {
    if (dense.trainable()) return false;
    view = ad::internal::reading(dense.on(tape));
    return true;
  }

  gpu::internal::DecoderKernel m_kernel;
  gpu::DeviceMatrix<int> m_number;  // of the step
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_DEVICE_FUSED_BLOCKS_H
