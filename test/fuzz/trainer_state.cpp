// SPDX-License-Identifier: MPL-2.0
// The state of a training run.
#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/TrainerState.h>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    EigenQ::llm::readTrainerState(EigenQ::io::SafetensorsFile({data, data + size}, "fuzz"));
  } catch (const EigenQ::FormatError&) {
  }
  return 0;
}
