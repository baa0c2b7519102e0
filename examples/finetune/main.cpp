// SPDX-License-Identifier: MPL-2.0
// Trains a small language model in float, quantises it to int8 and NF4, compares the three, and fine-tunes LoRA
// adapters through the frozen NF4 weights. doc/finetune.md explains the run. With --model it fine-tunes a model from
// its folder instead: doc/peft.md.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <system_error>

#include "Job.h"
#include "OnDevice.h"

namespace {

bool wantsModel(int argc, char** argv) {
  return std::any_of(argv + 1, argv + argc, [](const std::string& argument) {
    return argument == "--model" || argument.rfind("--model=", 0) == 0;
  });
}

/** Becomes the program beside this one that links EigenQ::Llm. They are two because that one shares Eigen's matrices
 * with a library, so that both have to be compiled for the same processor; this one is compiled for the machine. */
[[noreturn]] void becomeFinetuneModel(char** argv) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").replace_filename("finetune_model");
  ::execv(program.c_str(), argv);
  throw std::system_error(errno, std::generic_category(),
                          program.string() + ": --model needs it; it is built where EigenQ::Tokenizer is");
}

}  // namespace

int main(int argc, char** argv) try {
  if (wantsModel(argc, argv)) becomeFinetuneModel(argv);
  int status = 0;
  const std::optional<finetune::Options> options = finetune::parseOptions(argc, argv, status);
  if (!options) return status;
  return options->device == "cuda" ? finetune::runOnDevice(*options) : finetune::run<finetune::Host>(*options);
} catch (const std::exception& e) {
  std::cerr << "finetune: " << e.what() << '\n';
  return 1;
}
