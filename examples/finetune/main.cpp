// SPDX-License-Identifier: MPL-2.0
// Trains a small language model in float, quantises it to int8 and NF4, compares the three, and fine-tunes LoRA
// adapters through the frozen NF4 weights. doc/finetune.md explains the run.
#include <iostream>

#include "Job.h"
#include "OnDevice.h"

int main(int argc, char** argv) try {
  int status = 0;
  const std::optional<finetune::Options> options = finetune::parseOptions(argc, argv, status);
  if (!options) return status;
  return options->device == "cuda" ? finetune::runOnDevice(*options) : finetune::run<finetune::Host>(*options);
} catch (const std::exception& e) {
  std::cerr << "finetune: " << e.what() << '\n';
  return 1;
}
