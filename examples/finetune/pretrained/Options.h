// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_PRETRAINED_OPTIONS_H
#define EIGENQ_FINETUNE_PRETRAINED_OPTIONS_H

#include <optional>
#include <string>

#include <unsupported/eigen_q/Llm>

namespace finetune {

/** What `finetune --model` can be asked for. */
struct PretrainedOptions {
  std::string model;        // a folder of Hugging Face
  std::string text, jsonl;  // one of them
  std::string adapter = "finetune-adapter";
  std::string initial;  // an adapter to begin with; empty: a fresh one
  std::string quantize = "none";
  std::string device = "cpu";
  double holdOut = 0.05;
  EigenQ::Index length = 256;  // tokens of a sequence
  EigenQ::Index saveEvery = 50;
  bool resume = false;
  EigenQ::llm::LoraConfig lora;
  EigenQ::llm::TrainOptions train;

  EigenQ::llm::LoadOptions load() const;
};

constexpr EigenQ::Index kUsualBatch = 8;  // sequences, where they are so many and no --batch is given

/** Reads the command line. \returns nothing when there is nothing more to do; \a status is then the exit status. */
std::optional<PretrainedOptions> parsePretrainedOptions(int argc, char** argv, int& status);

/** --device cuda; in builds without EigenQ::Cuda it says so. \returns the exit status. */
int runPretrainedOnDevice(const PretrainedOptions& options);

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PRETRAINED_OPTIONS_H
