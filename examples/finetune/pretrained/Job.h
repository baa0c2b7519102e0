// SPDX-License-Identifier: MPL-2.0
// From a folder of Hugging Face to an adapter of PEFT.
#ifndef EIGENQ_FINETUNE_PRETRAINED_JOB_H
#define EIGENQ_FINETUNE_PRETRAINED_JOB_H

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Tokenizer>

#include "../Plot.h"
#include "../Progress.h"
#include "Batches.h"
#include "History.h"
#include "Options.h"

namespace finetune {

namespace llm = EigenQ::llm;

/** Sequences to learn, and those at the end of the file that the model is judged by. */
struct Sequences {
  std::vector<llm::Example> train, heldOut;
};

inline std::vector<llm::Example> readSequences(const PretrainedOptions& o, const llm::LlamaConfig& config) {
  const auto tokenizer = llm::Tokenizer::fromFile(o.model + "/tokenizer.json");
  if (!o.text.empty()) {
    std::ifstream file(o.text, std::ios::binary);
    if (!file) throw std::runtime_error(o.text + ": cannot be opened");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    return llm::windows(tokenizer.encode(text), o.length);
  }
  const auto encode = [&](const std::string& text, bool special) { return tokenizer.encode(text, special); };
  std::optional<int> end;
  if (!config.eosTokenIds.empty()) end = config.eosTokenIds.front();
  std::vector<llm::Example> examples;
  for (const llm::PromptCompletion& text : llm::readJsonLines(o.jsonl))
    if (auto example = llm::lesson(text, encode, end, o.length)) examples.push_back(std::move(*example));
  return examples;
}

inline Sequences split(std::vector<llm::Example> all, double holdOut) {
  const auto heldOut = std::lround(holdOut * static_cast<double>(all.size()));
  Sequences sequences;
  sequences.heldOut.assign(all.end() - heldOut, all.end());
  all.resize(all.size() - static_cast<std::size_t>(heldOut));
  sequences.train = std::move(all);
  if (sequences.train.empty()) throw std::runtime_error("the text is shorter than a sequence of --length tokens");
  return sequences;
}

inline void writeCurves(const llm::TrainHistory& history, const std::filesystem::path& folder) {
  const Phase phase = phaseOf(history, "fine-tuning");
  EigenQ::io::writeFileAtomically((folder / "loss.csv").string(), toCsv({phase}));
  EigenQ::io::writeFileAtomically((folder / "loss.svg").string(), plotLosses({phase}, "token"));
}

inline void printLosses(const llm::TrainHistory& history) {
  if (history.heldOut.empty()) return;
  const auto& [first, before] = history.heldOut.front();
  const auto best = std::min_element(history.heldOut.begin(), history.heldOut.end(),
                                     [](const auto& a, const auto& b) { return a.loss < b.loss; });
  std::printf("held out, nats per token: %.5f before, %.5f after %ld updates (best: %.5f after %ld)\n", before,
              history.heldOut.back().loss, static_cast<long>(history.heldOut.back().step), best->loss,
              static_cast<long>(best->step));
}

/** \tparam Model  llm::Llama of the scalar and the place to compute in. */
template <typename Model>
int runPretrained(const PretrainedOptions& o) {
  Model model = llm::loadLlama<typename Model::Scalar, typename Model::Place>(o.model, o.load());
  llm::LoraConfig lora = o.lora;
  if (o.initial.empty())
    llm::attachLora(model, lora, o.train.seed);
  else
    lora = llm::loadAdapter(model, o.initial);

  Sequences sequences = split(readSequences(o, model.config()), o.holdOut);
  std::printf("%s: %.1f MB of weights; %zu sequences, and %zu held out\n", o.model.c_str(),
              static_cast<double>(model.sizeInBytes()) / 1e6, sequences.train.size(), sequences.heldOut.size());
  llm::TrainOptions train = o.train;
  fitBatches(train, sequences.train.size(), "--accumulate", kUsualBatch);
  llm::Trainer<Model> trainer(model, std::move(sequences.train), std::move(sequences.heldOut), train);
  const std::filesystem::path folder = o.adapter;
  const llm::RunFiles files{(folder / "trainer_state.safetensors").string(), o.saveEvery, o.resume};
  llm::resumeTraining(trainer, files);

  Progress progress(std::cerr, isatty(STDERR_FILENO) != 0, "fine-tuning", static_cast<long>(o.train.steps),
                    static_cast<long>(trainer.step()));
  const EigenQ::Index interval = std::max<EigenQ::Index>(1, o.train.steps / 50);  // a look waits for a device
  llm::runTraining(trainer, files, [&](auto& t) {
    if (t.done() || t.step() % interval == 0)
      progress.update(static_cast<long>(t.step()), static_cast<long>(t.tokens()), t.history().trainLoss.back(),
                      static_cast<long>(t.history().skipped.size()));
  });
  llm::saveAdapter(model, lora, o.adapter);
  writeCurves(trainer.history(), folder);
  printLosses(trainer.history());
  printSkipped(trainer.history());
  std::printf("wrote %s: adapter, loss.csv, loss.svg\n", o.adapter.c_str());
  return 0;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PRETRAINED_JOB_H
