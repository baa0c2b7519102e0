// SPDX-License-Identifier: MPL-2.0
// Steps of AdamW on random windows of a text, and the loss on a text that is not trained on.
#ifndef EIGENQ_FINETUNE_TRAINER_H
#define EIGENQ_FINETUNE_TRAINER_H

#include <deque>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "Batch.h"
#include "Model.h"
#include "Parallel.h"

namespace finetune {

/** How one phase learns. shards divides batch. */
struct TrainOptions {
  Index steps = 0;
  Index warmup = 0;
  Index batch = 8;   // windows in a step
  Index shards = 2;  // parts of the batch that run side by side
  double learningRate = 0;
  double weightDecay = 0.01;
  double clip = 1;  // largest norm of the gradient
  std::uint64_t seed = 1;
  int threads = 1;
};

/** Trains what is trainable in a model. The batch is split into shards, each with a tape and a replica of its own;
 * their gradients are added in the order of the shards. So the losses depend on the number of shards, not of threads.
 */
class Trainer {
 public:
  /** \a model and \a text outlive the trainer; the text is longer than a window. */
  Trainer(Model& model, const std::string& text, const TrainOptions& options)
      : m_model(model),
        m_text(text),
        m_options(options),
        m_optimizer(model.trainable(), optimizerOptions(options)),
        m_schedule(EigenQ::ad::Schedule::cosine(options.learningRate, options.steps, options.warmup,
                                                options.learningRate / 20)),
        m_random(options.seed),
        m_shards(static_cast<std::size_t>(options.shards)) {
    for (std::size_t s = 0; s < m_shards.size(); ++s) {
      if (s > 0) m_shards[s].replica = std::make_unique<Model>(model.replica());
      m_shards[s].tape.setSeed(options.seed * m_shards.size() + s);
    }
  }

  /** One update. \returns the mean loss of its batch before it, in nats per byte. Throws std::runtime_error where that
   * is no number any more. */
  double step() {
    m_learningRate = m_schedule(m_step++);
    m_optimizer.setLearningRate(m_learningRate);
    m_optimizer.zeroGrad();
    const double loss = backward();
    if (!std::isfinite(loss))
      throw std::runtime_error("step " + std::to_string(m_step) +
                               ": the loss is not finite; try a smaller learning rate");
    EigenQ::ad::clipGradNorm(m_optimizer.parameters(), m_options.clip);
    m_optimizer.step();
    return loss;
  }

  double learningRate() const { return m_learningRate; }
  Index tokensPerStep() const { return m_options.batch * m_model.options().context; }

 private:
  struct Shard {
    Tape tape;
    std::unique_ptr<Model> replica;  // the first shard works on the model itself
    double loss = 0;
  };

  static EigenQ::ad::AdamWOptions optimizerOptions(const TrainOptions& o) {
    EigenQ::ad::AdamWOptions adamw;
    adamw.learningRate = o.learningRate;
    adamw.beta2 = 0.99;  // runs of a few hundred steps: a second moment over the last hundred
    adamw.weightDecay = o.weightDecay;
    return adamw;
  }

  /** Leaves the gradient of the mean loss in the model's parameters. \returns that loss. */
  double backward() {
    const Index length = m_model.options().context;
    const std::vector<Index> starts = randomStarts(m_text, m_options.batch, length, m_random);
    const auto part = static_cast<std::ptrdiff_t>(starts.size() / m_shards.size());
    parallelFor(m_shards.size(), m_options.threads, [&](std::size_t s, std::size_t) {
      const auto first = starts.begin() + static_cast<std::ptrdiff_t>(s) * part;
      backward(m_shards[s], windows(m_text, {first, first + part}, length));
    });
    double loss = 0;
    for (const Shard& shard : m_shards) loss += shard.loss / static_cast<double>(m_shards.size());
    addReplicas();
    return loss;
  }

  void backward(Shard& shard, const Batch& batch) {
    if (shard.replica) copyValues(*shard.replica);
    Model& model = shard.replica ? *shard.replica : m_model;
    shard.tape.clear();
    const Var loss = model.loss(shard.tape, batch);
    shard.tape.backward(loss / static_cast<double>(m_shards.size()));
    shard.loss = static_cast<double>(loss.item());
  }

  void copyValues(Model& replica) const {
    const std::vector<Parameter*> copies = replica.trainable();
    for (std::size_t i = 0; i < copies.size(); ++i) {
      copies[i]->mutableValue() = m_optimizer.parameters()[i]->value();
      copies[i]->zeroGrad();
    }
  }

  void addReplicas() {
    for (Shard& shard : m_shards) {
      if (!shard.replica) continue;
      const std::vector<Parameter*> copies = shard.replica->trainable();
      for (std::size_t i = 0; i < copies.size(); ++i) m_optimizer.parameters()[i]->mutableGrad() += copies[i]->grad();
    }
  }

  Model& m_model;
  const std::string& m_text;
  TrainOptions m_options;
  EigenQ::ad::AdamW<float> m_optimizer;
  EigenQ::ad::Schedule m_schedule;
  std::mt19937_64 m_random;
  std::deque<Shard> m_shards;  // tapes do not move
  Index m_step = 0;
  double m_learningRate = 0;
};

/** Mean loss in nats per byte, without dropout, over consecutive windows of a text: all of them, or \a limit evenly
 * spread ones. */
inline double heldOutLoss(Model& model, const std::string& text, int threads,
                          Index limit = std::numeric_limits<Index>::max()) {
  constexpr std::size_t kWindows = 8;  // in one batch
  const Index length = model.options().context;
  const std::vector<Index> starts = consecutiveStarts(text, length, limit);
  const std::size_t batches = (starts.size() + kWindows - 1) / kWindows;
  std::vector<double> sums(batches);
  std::deque<Tape> tapes(static_cast<std::size_t>(threads));
  parallelFor(batches, threads, [&](std::size_t b, std::size_t member) {
    const auto first = starts.begin() + static_cast<std::ptrdiff_t>(b * kWindows);
    const auto last = starts.begin() + static_cast<std::ptrdiff_t>(std::min(starts.size(), (b + 1) * kWindows));
    Tape& tape = tapes[member];
    tape.clear();
    const EigenQ::ad::NoGradGuard<float> guard(tape);
    sums[b] = static_cast<double>(model.loss(tape, windows(text, {first, last}, length)).item()) *
              static_cast<double>(last - first);
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(starts.size());
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_TRAINER_H
