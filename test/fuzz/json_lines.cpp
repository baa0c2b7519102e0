// SPDX-License-Identifier: MPL-2.0
// Prompts and completions to train on, a JSON object a line.
#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/src/llm/TrainingData.h>

#include "fuzz/FileInput.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    EigenQ::llm::readJsonLines(EigenQ::fuzz::fileOf(data, size));
  } catch (const EigenQ::FormatError&) {
  }
  return 0;
}
