// SPDX-License-Identifier: MPL-2.0
// A config.json.
#include <string>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/src/llm/LlamaConfig.h>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using EigenQ::llm::LlamaConfig;
  try {
    const LlamaConfig config = LlamaConfig::fromJson(std::string(data, data + size), "fuzz");
    LlamaConfig::fromJson(config.toJson(), "written");
  } catch (const EigenQ::FormatError& e) {
    if (e.where() == "written") throw;  // what was accepted is what is written
  }
  return 0;
}
