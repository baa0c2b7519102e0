// SPDX-License-Identifier: MPL-2.0
// Steps of AdamW on random windows of a text, and the loss on a text that is not trained on.
#ifndef EIGENQ_FINETUNE_TRAINER_H
#define EIGENQ_FINETUNE_TRAINER_H

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <memory>
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

/** Trains what is trainable in a model. The batch is split into shards, each with a tape and random numbers of its own;
 * their gradients are added in the order of the shards. So the losses depend on the number of shards, not of threads.
 * On the host shards run side by side, each on a replica; on a device, one after another on the model itself. */
template <typename Place>
class Trainer {
 public:
  /** \a model and \a text outlive the trainer; the text is longer than a window. */
  Trainer(Model<Place>& model, const std::string& text, const TrainOptions& options)
      : m_model(model),
        m_text(text),
        m_options(options),
        m_optimizer(model.trainable(), optimizerOptions(options)),
        m_schedule(EigenQ::ad::Schedule::cosine(options.learningRate, options.steps, options.warmup,
                                                options.learningRate / 20)),
        m_random(options.seed),
        m_shards(static_cast<std::size_t>(options.shards)),
        m_losses(options.shards, options.steps) {
    for (std::size_t s = 0; s < m_shards.size(); ++s) {
      if constexpr (PlaceTraits<Place>::kReplicas)
        if (s > 0) m_shards[s].replica = std::make_unique<Model<Place>>(model.replica());
      m_shards[s].tape.setSeed(options.seed * m_shards.size() + s);
    }
  }

  /** One of the options' steps: an update. */
  void step() {
    m_learningRate = m_schedule(m_step);
    m_optimizer.setLearningRate(m_learningRate);
    drawBatches();
    m_repeated([this] { update(); },
               [this] {
                 m_optimizer.prepareReplay();
                 for (Shard& shard : m_shards) shard.tape.prepareReplay();
               });
    for (std::size_t s = 0; s < m_shards.size(); ++s)
      m_losses.block(static_cast<Index>(s), m_step, 1, 1).noalias() = m_shards[s].loss.value();
    ++m_step;
  }

  /** The mean losses of the steps since the last call, each of its batch before the update, in nats per byte. Waits for
   * a device. Throws std::runtime_error where one is no number any more. */
  std::vector<double> takeLosses() {
    const Eigen::MatrixXf ofShards = PlaceTraits<Place>::toHost(m_losses.middleCols(m_taken, m_step - m_taken));
    std::vector<double> means;
    for (Index i = 0; i < ofShards.cols(); ++i) {
      double mean = 0;
      for (const float loss : ofShards.col(i)) mean += static_cast<double>(loss) / static_cast<double>(m_shards.size());
      if (!std::isfinite(mean))
        throw std::runtime_error("step " + std::to_string(m_taken + i + 1) +
                                 ": the loss is not finite; try a smaller learning rate");
      means.push_back(mean);
    }
    m_taken = m_step;
    return means;
  }

  double learningRate() const { return m_learningRate; }
  Index tokensPerStep() const { return m_options.batch * m_model.options().context; }

 private:
  struct Shard {
    EigenQ::ad::Tape<float, Place> tape;
    std::unique_ptr<Model<Place>> replica;  // null: works on the model itself
    typename PlaceTraits<Place>::StepBatch batch;
    EigenQ::ad::Var<float, Place> loss;
  };

  static EigenQ::ad::AdamWOptions optimizerOptions(const TrainOptions& o) {
    EigenQ::ad::AdamWOptions adamw;
    adamw.learningRate = o.learningRate;
    adamw.beta2 = 0.99;  // runs of a few hundred steps: a second moment over the last hundred
    adamw.weightDecay = o.weightDecay;
    return adamw;
  }

  void drawBatches() {
    const Index length = m_model.options().context;
    const std::vector<Index> starts = randomStarts(m_text, m_options.batch, length, m_random);
    const auto part = static_cast<std::ptrdiff_t>(starts.size() / m_shards.size());
    auto first = starts.begin();
    for (Shard& shard : m_shards) {
      shard.batch = windows(m_text, {first, first + part}, length);
      first += part;
    }
  }

  void update() {
    m_optimizer.zeroGrad();
    parallelFor(m_shards.size(), m_options.threads, [&](std::size_t s, std::size_t) { backward(m_shards[s]); });
    addReplicas();
    clipGradNorm(m_optimizer.parameters(), m_options.clip);
    m_optimizer.step();
  }

  /** Leaves the gradient of the mean loss of a shard in the parameters of its model. */
  void backward(Shard& shard) {
    if (shard.replica) copyValues(*shard.replica);
    shard.tape.clear();
    shard.loss = (shard.replica ? *shard.replica : m_model).loss(shard.tape, PlaceTraits<Place>::view(shard.batch));
    shard.tape.backward(shard.loss / static_cast<double>(m_shards.size()));
  }

  void copyValues(Model<Place>& replica) const {
    const std::vector<Parameter<Place>*> copies = replica.trainable();
    for (std::size_t i = 0; i < copies.size(); ++i) {
      copies[i]->mutableValue() = m_optimizer.parameters()[i]->value();
      copies[i]->zeroGrad();
    }
  }

  void addReplicas() {
    for (Shard& shard : m_shards) {
      if (!shard.replica) continue;
      const std::vector<Parameter<Place>*> copies = shard.replica->trainable();
      for (std::size_t i = 0; i < copies.size(); ++i) m_optimizer.parameters()[i]->mutableGrad() += copies[i]->grad();
    }
  }

  Model<Place>& m_model;
  const std::string& m_text;
  TrainOptions m_options;
  EigenQ::ad::AdamW<float, Place> m_optimizer;
  EigenQ::ad::Schedule m_schedule;
  std::mt19937_64 m_random;
  std::deque<Shard> m_shards;  // tapes do not move
  typename PlaceTraits<Place>::Repeated m_repeated;
  typename Place::template Matrix<float> m_losses;  // shards×steps, where they were computed
  Index m_step = 0;
  Index m_taken = 0;  // steps whose losses have been taken
  double m_learningRate = 0;
};

/** Mean loss in nats per byte, without dropout, over consecutive windows of a text: all of them, or \a limit evenly
 * spread ones. */
template <typename Place>
double heldOutLoss(Model<Place>& model, const std::string& text, int threads,
                   Index limit = std::numeric_limits<Index>::max()) {
  constexpr Index kWindows = 8;  // in one batch
  const Index length = model.options().context;
  const std::vector<Index> starts = consecutiveStarts(text, length, limit);
  const auto count = static_cast<Index>(starts.size()), batches = (count + kWindows - 1) / kWindows;
  const auto endOf = [count](Index b) { return std::min(count, (b + 1) * kWindows); };
  typename Place::template Matrix<float> means(1, batches);
  std::deque<EigenQ::ad::Tape<float, Place>> tapes(static_cast<std::size_t>(threads));
  parallelFor(static_cast<std::size_t>(batches), threads, [&](std::size_t i, std::size_t member) {
    const auto b = static_cast<Index>(i);
    EigenQ::ad::Tape<float, Place>& tape = tapes[member];
    tape.clear();
    const EigenQ::ad::NoGradGuard<float, Place> guard(tape);
    const Batch batch = windows(text, {starts.begin() + b * kWindows, starts.begin() + endOf(b)}, length);
    means.col(b).noalias() = model.loss(tape, batch).value();
  });
  const Eigen::MatrixXf found = PlaceTraits<Place>::toHost(means);
  double sum = 0;
  for (Index b = 0; b < batches; ++b)
    sum += static_cast<double>(found(b)) * static_cast<double>(endOf(b) - b * kWindows);
  return sum / static_cast<double>(count);
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_TRAINER_H
