// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_TRAINER_IMPL_H
#define EIGENQ_LLM_TRAINER_IMPL_H

#include <iterator>
#include <set>
#include <string>
#include <variant>

#include "Trainer.h"

namespace EigenQ {
namespace llm {

namespace internal {
template <typename Scalar, typename Place>
double meanLoss(ad::Tape<Scalar, Place>& tape, Llama<Scalar, Place>& model, const std::vector<Example>& examples,
                Index atOnce) {
  const auto count = static_cast<Index>(examples.size());
  double sum = 0;
  Index counted = 0;
  for (Index first = 0; first < count; first += atOnce) {
    std::vector<const Example*> some;
    for (Index i = first; i < std::min(count, first + atOnce); ++i)
      some.push_back(&examples[static_cast<std::size_t>(i)]);
    tape.clear();
    const ad::NoGradGuard<Scalar, Place> guard(tape);
    const Batch batch = packExamples(some);
    const Index n = ad::countedTargets(batch.targets, kIgnoredTarget);
    sum += static_cast<double>(model.loss(tape, batch).item()) * static_cast<double>(n);
    counted += n;
  }
  tape.clear();
  return counted > 0 ? sum / static_cast<double>(counted) : 0;
}

/** Throws std::invalid_argument for what a trainer cannot begin with, invalid options among it. */
void checkTraining(const TrainOptions& options, std::size_t parameters, std::size_t examples, std::size_t heldOut);
/** What a projection is stored as: models of NF4 and of FP4 have the same sizes. */
template <typename Weight>
std::string formatName(const Weight& weight) {
  constexpr const char* kNames[] = {"dense", "int8-weights", "int8", "nf4", "fp4"};  // as in eigenq --quantize
  static_assert(std::variant_size_v<Weight> == std::size(kNames));
  const std::string name = kNames[weight.index()];
  const auto* const int8 = std::get_if<2>(&weight);
  return int8 ? name + " with threshold " + std::to_string(int8->threshold) : name;
}

/** The settings of the model: its sizes, the formats of its projections, scale and dropout of its adapters, the
 * checksum of its frozen weights, the scalar of its activations and what else in its config changes its function. */
TrainerState::Settings modelSettings(const LlamaConfig& config, Index bytes, const std::set<std::string>& formats,
                                     const std::vector<ad::LoraOptions>& adapters, std::uint64_t checksum,
                                     ScalarType activations);
/** Throws FormatError where the parameters of \a state are not \a name, \a rows × \a cols at \a i. */
void requireParameter(const TrainerState& state, std::size_t i, const std::string& name, Index rows, Index cols,
                      const std::string& where);
/** Throws std::runtime_error where \a value is not finite. */
void requireFinite(double value, Index step);
/** Throws std::runtime_error where the last updates of \a history, more than \a most, were skipped.
 * \param norm, loss  of the last */
void requireFewSkipped(const TrainHistory& history, Index most, double norm, double loss);

/** A norm that clipGradNorm() returned. From a device it waits. */
inline double onHost(double norm) { return norm; }
template <typename Norm>
double onHost(const Norm& norm) {
  return norm.toHost();
}
}  // namespace internal

template <typename Scalar, typename Place>
double meanLoss(Llama<Scalar, Place>& model, const std::vector<Example>& examples, Index atOnce) {
  ad::Tape<Scalar, Place> tape;
  return internal::meanLoss(tape, model, examples, atOnce);
}

template <typename Model>
Trainer<Model>::Trainer(Model& model, std::vector<Example> train, std::vector<Example> heldOut,
                        const TrainOptions& options)
    : m_model(model),
      m_train(std::move(train)),
      m_heldOut(std::move(heldOut)),
      m_options(
          (internal::checkTraining(options, model.trainable().size(), m_train.size(), m_heldOut.size()), options)),
      m_schedule(options.schedule()),
      m_optimizer(model.trainable(), options),
      m_order(static_cast<Index>(m_train.size()), options.seed, options.shuffle),
      m_dataChecksum(checksum(m_train) ^ (checksum(m_heldOut) * 31)),
      m_losses(options.accumulation, kStepsPerLook),
      m_shares(options.accumulation, kStepsPerLook) {}

template <typename Model>
Batch Trainer<Model>::microBatch(Index k) {
  std::vector<const Example*> some;
  for (Index i = 0; i < m_options.microBatch; ++i)
    some.push_back(&m_train[static_cast<std::size_t>(m_order(k * m_options.microBatch + i))]);
  return packExamples(some);
}

template <typename Model>
void Trainer<Model>::backward(const Batch& batch, Index i, double share) {
  ForwardOptions forward;
  forward.checkpointLayers = m_options.checkpointLayers;
  m_tape.clear();
  const auto loss = m_model.loss(m_tape, batch, ad::Reduction::Mean, forward);
  m_tape.backward(loss * (share * m_options.lossScale));
  m_losses.block(i, m_pending, 1, 1).noalias() = loss.value();
  m_shares(i, m_pending) = share;
  m_tokens += batch.size();
}

template <typename Model>
void Trainer<Model>::update() {
  m_optimizer->setLearningRate(m_schedule(m_step));
  m_optimizer->zeroGrad();
  // Dropout is a function of seed and step, so that a resumed run need not know how many masks were drawn.
  m_tape.setSeed(m_options.seed ^ (0x9E3779B97F4A7C15u * static_cast<std::uint64_t>(m_step + 1)));
  std::vector<Batch> batches;
  Index counted = 0;
  for (Index i = 0; i < m_options.accumulation; ++i) {
    batches.push_back(microBatch(m_step * m_options.accumulation + i));
    counted += ad::countedTargets(batches.back().targets, kIgnoredTarget);
  }
  for (Index i = 0; i < m_options.accumulation; ++i) {
    const Batch& batch = batches[static_cast<std::size_t>(i)];
    const auto own = static_cast<double>(ad::countedTargets(batch.targets, kIgnoredTarget));
    backward(batch, i, counted > 0 ? own / static_cast<double>(counted) : 0);
  }
  m_tape.clear();
  const double clip = m_options.clip > 0 ? m_options.clip : std::numeric_limits<double>::infinity();
  m_norms.push_back(clipGradNorm(m_optimizer->parameters(), clip * m_options.lossScale));
  m_optimizer->stepIfFinite(m_norms.back(), static_cast<float>(1 / m_options.lossScale));
  m_history.learningRate.push_back(m_optimizer->learningRate());
  ++m_step;
  if (++m_pending == kStepsPerLook) lookAtLosses();
}

template <typename Model>
void Trainer<Model>::lookAtLosses() {
  if (m_pending == 0) return;
  const Eigen::MatrixXd losses = Place::toHost(m_losses).template cast<double>();
  const Index pending = std::exchange(m_pending, 0);
  const std::vector<Norm> norms = std::exchange(m_norms, {});
  for (Index j = 0; j < pending; ++j) {
    const double loss = losses.col(j).dot(m_shares.col(j)), norm = internal::onHost(norms[static_cast<std::size_t>(j)]);
    m_history.trainLoss.push_back(loss);
    const auto step = static_cast<Index>(m_history.trainLoss.size());
    if (std::isfinite(norm)) {
      internal::requireFinite(loss, step);
    } else {
      m_history.skipped.push_back(step);
      internal::requireFewSkipped(m_history, m_options.mostSkipped, norm, loss);
    }
  }
}

template <typename Model>
const TrainHistory& Trainer<Model>::history() {
  lookAtLosses();
  return m_history;
}

template <typename Model>
void Trainer<Model>::evaluate() {
  if (m_heldOut.empty()) return;
  lookAtLosses();
  const double loss = internal::meanLoss(m_tape, m_model, m_heldOut, m_options.microBatch);
  internal::requireFinite(loss, m_step);
  auto& heldOut = m_history.heldOut;
  heldOut.push_back({m_step, loss});
  if (m_options.patience == 0) return;
  const auto best =
      std::min_element(heldOut.begin(), heldOut.end(), [](const auto& x, const auto& y) { return x.loss < y.loss; });
  const auto since = heldOut.end() - best - 1;
  if (since == 0) keepBest();
  m_stoppedEarly = since >= m_options.patience;
}

template <typename Model>
void Trainer<Model>::keepBest() {
  m_best.clear();
  for (const Parameter* p : m_optimizer->parameters()) m_best.push_back(Place::toHost(p->value()));
}

template <typename Model>
void Trainer<Model>::restoreBest() {
  for (std::size_t i = 0; i < m_best.size(); ++i)
    m_optimizer->parameters()[i]->mutableValue() = Place::template fromHost<float>(m_best[i]);
}

template <typename Model>
void Trainer<Model>::advance() {
  eigen_assert(!done() && "Trainer::advance: the run is over");
  if (m_step == 0) evaluate();
  update();
  const bool last = m_step == m_options.steps;
  if (last || (m_options.evaluateEvery > 0 && m_step % m_options.evaluateEvery == 0)) evaluate();
  if (done()) restoreBest();
}

template <typename Model>
TrainerState::Settings Trainer<Model>::settings() const {
  TrainerState::Settings settings = m_options.settings();
  settings.emplace_back("data", std::to_string(m_dataChecksum));
  std::vector<ad::LoraOptions> adapters;
  std::set<std::string> formats;
  m_model.forEachLinear([&](const Linear<Scalar, Place>& linear) {
    if (linear.adapter()) adapters.push_back(linear.adapter()->options);
    formats.insert(internal::formatName(linear.weight()));
  });
  for (auto& setting : internal::modelSettings(m_model.config(), m_model.sizeInBytes(), formats, adapters,
                                               m_model.checksum(), EigenQ::internal::ScalarTypeOf<Scalar>::value))
    settings.push_back(std::move(setting));
  return settings;
}

template <typename Model>
TrainerState Trainer<Model>::state() {
  TrainerState state;
  state.step = m_step;
  state.stoppedEarly = m_stoppedEarly;
  state.history = history();
  state.settings = settings();
  for (std::size_t i = 0; i < m_optimizer->parameters().size(); ++i) {
    const Parameter& p = *m_optimizer->parameters()[i];
    state.parameters.emplace_back();
    state.parameters.back().name = p.name();
    state.parameters.back().value = Place::toHost(p.value());
    if (!state.parameters.back().value.allFinite())  // and must not replace a state from which a run could go on
      throw std::runtime_error(p.name() + ": not finite after step " + std::to_string(m_step));
    if (!m_best.empty()) state.parameters.back().best = m_best[i];
  }
  m_optimizer.store(state.parameters);
  return state;
}

template <typename Model>
void Trainer<Model>::setState(const TrainerState& state, const std::string& where) {
  requireSameSettings(settings(), state.settings, where);
  const auto& parameters = m_optimizer->parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    internal::requireParameter(state, i, parameters[i]->name(), parameters[i]->rows(), parameters[i]->cols(), where);
  try {
    m_optimizer.load(state.parameters);
  } catch (const std::invalid_argument& e) {
    throw FormatError(where, "moments", e.what());
  }
  m_best.clear();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    parameters[i]->mutableValue() = Place::template fromHost<float>(state.parameters[i].value);
    if (state.parameters[i].best.size() > 0) m_best.push_back(state.parameters[i].best);
  }
  if (m_best.size() != parameters.size()) m_best.clear();
  m_step = state.step;
  m_stoppedEarly = state.stoppedEarly;
  m_history = state.history;
  m_pending = 0;
  m_norms.clear();
}

// The host's is compiled in EigenQ::Llm.
extern template class Trainer<Llama<float, ad::Host>>;
extern template double meanLoss(Llama<float, ad::Host>&, const std::vector<Example>&, Index);

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TRAINER_IMPL_H
