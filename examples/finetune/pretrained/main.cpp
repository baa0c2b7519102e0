// SPDX-License-Identifier: MPL-2.0
// finetune --model DIR: LoRA adapters for a model from its folder. doc/peft.md explains the run.
#include <iostream>

#include "Job.h"

int main(int argc, char** argv) try {
  int status = 0;
  const auto options = finetune::parsePretrainedOptions(argc, argv, status);
  if (!options) return status;
  if (options->device == "cuda") return finetune::runPretrainedOnDevice(*options);
  return finetune::runPretrained<EigenQ::llm::Llama<float>>(*options);
} catch (const std::exception& e) {
  std::cerr << "finetune: " << e.what() << '\n';
  return 1;
}
