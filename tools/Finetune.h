// SPDX-License-Identifier: MPL-2.0
// Low-rank adapters trained on a text.
#ifndef EIGENQ_TOOLS_FINETUNE_H
#define EIGENQ_TOOLS_FINETUNE_H

#include <cmath>
#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <unistd.h>

#include <finetune/Progress.h>
#include <finetune/pretrained/Batches.h>
#include <finetune/pretrained/History.h>

#include "Interrupt.h"
#include "ModelOptions.h"
#include "Text.h"

namespace EigenQ {
namespace tools {

constexpr Index kUsualBatch = 4;  // sequences, where they are so many and no --batch is given

struct FinetuneOptions {
  ModelOptions model;
  std::string out;
  std::string text, jsonl;  // one of them
  std::string eval;         // of the same kind; empty: a share of the others
  double holdOut = 0.05;
  Index length = 256;  // tokens of a sequence
  double epochs = 1;   // without --steps
  llm::LoraConfig lora;
  llm::TrainOptions train;
  Index saveEvery = 0;
  bool resume = false, force = false;
};

struct TrainingTexts {
  std::vector<llm::Example> train, heldOut;
};

/** Sequences of at most \a length tokens. Throws std::runtime_error where there are too few. */
TrainingTexts readTexts(const FinetuneOptions& options, const llm::LlamaConfig& config, Index length);
/** What --steps says, or as many as the epochs take. */
Index stepsFor(const FinetuneOptions& options, std::size_t examples);
/** Throws std::runtime_error where the folder holds a run that is neither resumed nor to be replaced. */
void checkFolder(const FinetuneOptions& options);
/** Makes the folder; a state that is not to be resumed goes. */
llm::RunFiles beginRun(const FinetuneOptions& options);
/** loss.csv and loss.svg. */
void writeCurve(const llm::TrainHistory& history, const std::string& folder);
void printStart(const TrainingTexts& texts, const FinetuneOptions& options, Index trainable);
void printEnd(const llm::TrainHistory& history, bool stoppedEarly, const std::string& folder);

/** Shows progress; at an interrupt it keeps what was learnt and throws Interrupted. */
template <typename Trainer>
class TrainingWatch {
 public:
  explicit TrainingWatch(const llm::RunFiles& files) : m_files(files) {}

  void operator()(Trainer& trainer) {
    if (interrupted()) {
      writeTrainerState(trainer.state(), m_files.state);
      std::fprintf(stderr, "%s: update %td; --resume goes on\n", m_files.state.c_str(), trainer.step());
      throwIfInterrupted();
    }
    if (!m_progress)  // now, since a resumed run does not begin at 0
      m_progress.emplace(std::cerr, ::isatty(STDERR_FILENO) != 0, "finetune",
                         static_cast<long>(trainer.options().steps), static_cast<long>(trainer.step() - 1), m_start);
    // A look at the losses of a device waits for it.
    constexpr Index kEvery = std::is_same_v<typename Trainer::Place, ad::Host> ? 1 : 20;
    if (trainer.done() || trainer.step() % kEvery == 0)
      m_progress->update(static_cast<long>(trainer.step()), static_cast<long>(trainer.tokens()),
                         trainer.history().trainLoss.back(), static_cast<long>(trainer.history().skipped.size()));
  }

 private:
  llm::RunFiles m_files;
  finetune::Progress::Clock::time_point m_start = finetune::Progress::Clock::now();
  std::optional<finetune::Progress> m_progress;
};

template <typename Model>
void finetune(FinetuneOptions options) {
  checkFolder(options);
  Model model = loadModel<Model>(options.model);
  llm::attachLora(model, options.lora, options.train.seed);
  const TrainingTexts texts = readTexts(options, model.config(), std::min(options.length, model.maxPositions()));
  finetune::fitBatches(options.train, texts.train.size(), "--accumulation", kUsualBatch);
  options.train.steps = stepsFor(options, texts.train.size());
  Index trainable = 0;
  for (const auto* p : model.trainable()) trainable += p->value().size();
  printStart(texts, options, trainable);

  llm::Trainer<Model> trainer(model, texts.train, texts.heldOut, options.train);
  const llm::RunFiles files = beginRun(options);
  TrainingWatch<llm::Trainer<Model>> watch(files);
  llm::runTraining(trainer, files, [&watch](llm::Trainer<Model>& t) { watch(t); });
  llm::saveAdapter(model, options.lora, options.out);
  writeCurve(trainer.history(), options.out);
  printEnd(trainer.history(), trainer.stoppedEarly(), options.out);
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_FINETUNE_H
