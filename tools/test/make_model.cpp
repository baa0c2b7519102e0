// SPDX-License-Identifier: MPL-2.0
// Writes a tiny model with random weights into a folder, with a tokenizer whose tokens are bytes.
#include <cstdio>
#include <exception>
#include <string>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Llm>

namespace {

using namespace EigenQ;

constexpr int kBytes = 256, kBegin = 256, kEnd = 257;

llm::LlamaConfig tinyConfig() {
  llm::LlamaConfig config;
  config.vocabSize = 260;
  config.hiddenSize = 32;
  config.intermediateSize = 48;
  config.numHiddenLayers = 2;
  config.numAttentionHeads = 4;
  config.numKeyValueHeads = 2;
  config.headDim = 8;
  config.maxPositionEmbeddings = 64;
  config.bosTokenId = kBegin;
  config.eosTokenIds = {kEnd};
  return config;
}

std::string specialToken(int id, const char* name) {
  return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + name +
         "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}";
}

std::string byteTokenizer() {
  std::string vocabulary;
  for (int byte = 0; byte < kBytes; ++byte) {
    char entry[32];
    std::snprintf(entry, sizeof entry, "\"<0x%02X>\":%d,", static_cast<unsigned>(byte), byte);
    vocabulary += entry;
  }
  return "{\"version\":\"1.0\",\"added_tokens\":[" + specialToken(kBegin, "<s>") + "," + specialToken(kEnd, "</s>") +
         "],\"normalizer\":null,\"pre_tokenizer\":null,\"post_processor\":null,\"decoder\":{\"type\":\"Sequence\","
         "\"decoders\":[{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"model\":{\"type\":\"BPE\",\"byte_"
         "fallback\":"
         "true,\"vocab\":{" +
         vocabulary + "\"<s>\":256,\"</s>\":257},\"merges\":[]}}";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  llm::RandomWeights weights(tinyConfig(), /*seed=*/1);
  llm::Llama<> model(weights);
  llm::saveLlama(model, folder);
  io::writeFileAtomically(folder + "/tokenizer.json", byteTokenizer());
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
