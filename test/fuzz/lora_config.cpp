// SPDX-License-Identifier: MPL-2.0
// An adapter_config.json, whose patterns are tried on a few modules.
#include <string>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/src/llm/LoraConfig.h>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const auto config = EigenQ::llm::LoraConfig::fromJson(std::string(data, data + size), "fuzz");
    for (const char* module : {"lm_head", "model.layers.10.self_attn.q_proj"}) {
      config.targets(module);
      config.scaleOf(module);
    }
    EigenQ::llm::LoraConfig::fromJson(config.toJson(), "written");
  } catch (const EigenQ::FormatError& e) {
    if (e.where() == "written") throw;  // what was accepted is what is written
  }
  return 0;
}
