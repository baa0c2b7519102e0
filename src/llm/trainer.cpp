// SPDX-License-Identifier: MPL-2.0
// trainer.cpp: what a trainer checks and describes, and the trainer of the host, compiled once for all who use it.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <set>

#include <unsupported/eigen_q/src/llm/Trainer.h>

namespace EigenQ {
namespace llm {
namespace {

void require(bool holds, const char* option, const std::string& message) {
  if (!holds) throw std::invalid_argument(std::string("TrainOptions: ") + option + ": " + message);
}

void requireAtLeast(const char* option, Index least, Index found) {
  require(found >= least, option, "expected " + std::to_string(least) + " or more, found " + std::to_string(found));
}

void requireAtMost(const char* option, Index most, const std::string& what, Index found) {
  require(found <= most, option,
          "expected at most " + std::to_string(most) + ", " + what + ", found " + std::to_string(found));
}

/** All digits that distinguish a double. */
std::string exact(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", x);
  return text;
}

/** For messages: no sign of a NaN, which depends on the processor. */
std::string inWords(double x) { return std::isnan(x) ? "NaN" : std::isinf(x) ? "infinite" : std::to_string(x); }

std::string hexadecimal(std::uint64_t x) {
  char text[24];
  std::snprintf(text, sizeof text, "%016" PRIx64, x);
  return text;
}

const char* nameOf(TrainOptions::Decay decay) {
  switch (decay) {
    case TrainOptions::Decay::kConstant:
      return "constant";
    case TrainOptions::Decay::kLinear:
      return "linear";
    case TrainOptions::Decay::kCosine:
      break;
  }
  return "cosine";
}

std::string describe(const RopeScaling& s) {
  if (s.type == RopeScaling::Type::kDefault) return "default";
  if (s.type == RopeScaling::Type::kLinear) return "linear, factor " + exact(s.factor);
  return "llama3, factor " + exact(s.factor) + ", low_freq_factor " + exact(s.lowFreqFactor) + ", high_freq_factor " +
         exact(s.highFreqFactor) + ", original_max_position_embeddings " +
         std::to_string(s.originalMaxPositionEmbeddings);
}

/** "none in 28 layers, 4096 in 4 layers". */
std::string describeWindows(const LlamaConfig& config) {
  std::string text;
  for (Index first = 0, end = 0; first < config.numHiddenLayers; first = end) {
    const Index window = config.window(first);
    while (end < config.numHiddenLayers && config.window(end) == window) ++end;
    text += (text.empty() ? "" : ", ") + (window > 0 ? std::to_string(window) : "none") + " in " +
            std::to_string(end - first) + " layers";
  }
  return text;
}

}  // namespace

void TrainOptions::validate() const {
  requireAtLeast("steps", 1, steps);
  requireAtMost("steps", kMostSteps, "more than any run takes", steps);
  requireAtLeast("microBatch", 1, microBatch);
  requireAtLeast("accumulation", 1, accumulation);
  requireAtLeast("warmup", 0, warmup);
  require(warmup <= steps, "warmup",
          "expected at most steps = " + std::to_string(steps) + ", found " + std::to_string(warmup));
  requireAtLeast("mostSkipped", 0, mostSkipped);
  requireAtLeast("evaluateEvery", 0, evaluateEvery);
  requireAtLeast("patience", 0, patience);
  require(patience == 0 || evaluateEvery > 0, "patience",
          "expected 0 where evaluateEvery is 0, found " + std::to_string(patience));
  require(clip >= 0 && std::isfinite(clip), "clip", "expected 0 or more, found " + exact(clip));
  require(lossScale > 0 && std::isfinite(lossScale), "lossScale",
          "expected a number above 0, found " + exact(lossScale));
  require(minLearningRate >= 0, "minLearningRate", "expected 0 or more, found " + exact(minLearningRate));
}

ad::Schedule TrainOptions::schedule() const {
  if (decay == Decay::kConstant) return ad::Schedule::constant(adamw.learningRate, warmup);
  if (decay == Decay::kLinear) return ad::Schedule::linear(adamw.learningRate, steps, warmup, minLearningRate);
  return ad::Schedule::cosine(adamw.learningRate, steps, warmup, minLearningRate);
}

TrainerState::Settings TrainOptions::settings() const {
  TrainerState::Settings settings = {
      {"micro_batch", std::to_string(microBatch)},
      {"accumulation", std::to_string(accumulation)},
      {"shuffle", shuffle ? "yes" : "no"},
      {"seed", std::to_string(seed)},
      {"learning_rate", exact(adamw.learningRate)},
      {"beta1", exact(adamw.beta1)},
      {"beta2", exact(adamw.beta2)},
      {"eps", exact(adamw.eps)},
      {"weight_decay", exact(adamw.weightDecay)},
      {"optimizer", optimizer8bit ? "adamw8bit" : "adamw"},
      {"schedule", nameOf(decay)},
      {"warmup", std::to_string(warmup)},
      {"min_learning_rate", exact(minLearningRate)},
      {"clip", exact(clip)},
      {"loss_scale", exact(lossScale)},
      {"evaluate_every", std::to_string(evaluateEvery)},
      {"patience", std::to_string(patience)},
  };
  // Under a constant rate a longer run begins as a shorter one does: it can be prolonged. But with patience the shorter
  // one ends with the parameters of its best evaluation, and the last of its evaluations may not be one of the longer.
  if (decay != Decay::kConstant || patience > 0) settings.emplace_back("steps", std::to_string(steps));
  return settings;
}

Index mostAccumulation(Index examples, Index microBatch) { return (examples - 1) / microBatch + 1; }

namespace internal {

void checkTraining(const TrainOptions& options, std::size_t parameters, std::size_t examples, std::size_t heldOut) {
  options.validate();
  if (parameters == 0) throw std::invalid_argument("Trainer: nothing in the model is trainable");
  if (examples == 0) throw std::invalid_argument("Trainer: there are no examples");
  require(options.patience == 0 || heldOut > 0, "patience", "expected 0 where nothing is held out");
  const auto count = static_cast<Index>(examples);
  // The default works with fewer, some of which are then in an update twice.
  requireAtMost("microBatch", std::max(count, TrainOptions().microBatch), "the number of examples, or 4",
                options.microBatch);
  requireAtMost("accumulation", mostAccumulation(count, options.microBatch),
                "the micro-batches that " + std::to_string(count) + " examples fill", options.accumulation);
}

TrainerState::Settings modelSettings(const LlamaConfig& config, Index bytes, const std::set<std::string>& formats,
                                     const std::vector<ad::LoraOptions>& adapters, std::uint64_t checksum,
                                     ScalarType activations) {
  std::set<std::string> distinct;
  for (const ad::LoraOptions& options : adapters)
    distinct.insert("scale " + exact(options.scale) + ", dropout " + exact(options.dropout));
  const auto joined = [](const std::set<std::string>& texts) {
    std::string all;
    for (const std::string& text : texts) all += (all.empty() ? "" : "; ") + text;
    return all;
  };
  return {{"hidden_size", std::to_string(config.hiddenSize)},
          {"num_hidden_layers", std::to_string(config.numHiddenLayers)},
          {"vocab_size", std::to_string(config.vocabSize)},
          {"model_bytes", std::to_string(bytes)},
          {"weights", joined(formats)},
          {"adapters", joined(distinct)},
          {"base_model", "checksum " + hexadecimal(checksum)},
          {"activations", EigenQ::internal::scalarName(activations)},
          // What sizes and weights do not tell, under its names in config.json.
          {"num_attention_heads", std::to_string(config.numAttentionHeads)},
          {"num_key_value_heads", std::to_string(config.numKeyValueHeads)},
          {"rms_norm_eps", exact(config.rmsNormEps)},
          {"rope_theta", exact(config.ropeTheta)},
          {"rope_scaling", describe(config.ropeScaling)},
          {"sliding_window", describeWindows(config)}};
}

void requireParameter(const TrainerState& state, std::size_t i, const std::string& name, Index rows, Index cols,
                      const std::string& where) {
  if (i >= state.parameters.size()) throw FormatError(where, name, "expected this parameter, found no more");
  const TrainerState::Parameter& p = state.parameters[i];
  const auto shape = [](Index m, Index n) { return std::to_string(m) + "x" + std::to_string(n); };
  if (p.name != name || p.value.rows() != rows || p.value.cols() != cols)
    throw FormatError(where, name,
                      "expected this parameter, " + shape(rows, cols) + ", found " + p.name + ", " +
                          shape(p.value.rows(), p.value.cols()));
}

void requireFinite(double value, Index step) {
  if (!std::isfinite(value))
    throw std::runtime_error("step " + std::to_string(step) + ": the loss is not finite; try a smaller learning rate");
}

void requireFewSkipped(const TrainHistory& history, Index most, double norm, double loss) {
  const auto count = static_cast<Index>(history.skipped.size());
  Index first = history.skipped.back();  // of those in a row
  for (Index i = count - 2; i >= 0 && history.skipped[static_cast<std::size_t>(i)] == first - 1; --i) --first;
  const Index last = history.skipped.back(), skipped = last - first + 1;
  if (skipped <= most) return;
  throw std::runtime_error("step " + std::to_string(last) + ": the gradient is not finite, its norm " + inWords(norm) +
                           ", the loss " + inWords(loss) + "; expected at most " + std::to_string(most) +
                           " such steps in a row, found " + std::to_string(skipped) + ", from step " +
                           std::to_string(first) +
                           " on; try bfloat16 instead of half or a smaller loss scale, a smaller learning rate, and "
                           "look at the examples of these steps");
}

}  // namespace internal

template class Trainer<Llama<float, ad::Host>>;
template double meanLoss(Llama<float, ad::Host>&, const std::vector<Example>&, Index);

}  // namespace llm
}  // namespace EigenQ
