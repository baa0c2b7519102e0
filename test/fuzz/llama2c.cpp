// SPDX-License-Identifier: MPL-2.0
// A model in llama2.c's format, and its first and last tensors.
#include <unsupported/eigen_q/src/llm/Llama2c.h>

#include "fuzz/FileInput.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const auto source = EigenQ::llm::openLlama2c(EigenQ::fuzz::fileOf(data, size));
    const EigenQ::llm::LlamaConfig& c = source->config();
    source->embedding("model.embed_tokens.weight", c.hiddenSize, c.vocabSize);
    source->projection("model.layers.0.self_attn.k_proj", c.numKeyValueHeads * c.headDim, c.hiddenSize);
    source->vector("model.norm.weight", c.hiddenSize);
    if (!c.tieWordEmbeddings) source->projection("lm_head", c.vocabSize, c.hiddenSize);
  } catch (const EigenQ::FormatError&) {
  }
  return 0;
}
