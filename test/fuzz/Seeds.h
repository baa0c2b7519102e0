// SPDX-License-Identifier: MPL-2.0
// Small valid files, from which fuzzing starts.
#ifndef EIGENQ_TEST_FUZZ_SEEDS_H
#define EIGENQ_TEST_FUZZ_SEEDS_H

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/TrainerState.h>

#include "support/TemporaryFolder.h"

namespace EigenQ {
namespace fuzz {

inline std::string contentOf(const io::SafetensorsWriter& writer) {
  const test::TemporaryFolder folder;
  writer.write(folder.path("f"));
  return test::readFile(folder.path("f"));
}

inline std::vector<std::string> safetensorsSeeds() {
  io::SafetensorsWriter several;
  several.setMetadata("format", "pt");
  several.setMetadata("tied.weight", "a");
  several.add("a", Eigen::MatrixXf::Identity(2, 3));
  several.add("b", Eigen::VectorXd::Ones(2).eval());
  several.add("naïve \"c\"\n", (Eigen::Matrix<std::int8_t, 2, 2>() << 1, 2, 3, 4).finished());
  several.addReference("empty", io::DType::kBF16, {3, 0, 5}, nullptr);
  several.addReference("scalar", io::DType::kU8, {}, "x");
  several.addReference("fp4", io::DType::kF4, {2, 2}, "xy");
  return {contentOf(several), contentOf(io::SafetensorsWriter())};
}

inline std::vector<std::string> indexSeeds() {
  return {R"({"metadata":{"total_size":1200},"weight_map":{"x":"model-00002-of-00002.safetensors",)"
          R"("y":"model-00001-of-00002.safetensors","\u00e9":"model-00001-of-00002.safetensors"}})",
          R"({"new":[null,true,-1.5e3,{}],"weight_map":{}})"};
}

inline std::vector<std::string> quantisedSeeds() {
  const Eigen::MatrixXf w = Eigen::VectorXf::LinSpaced(66, -1, 1).reshaped(6, 11);
  const NF4Matrix plain(w, 32), nested(w, 32, Statistics::kNested);
  const FP4Matrix fp4(w, 64);
  const Int8Matrix int8(w);
  io::SafetensorsWriter a, b, c, d, tiled;
  addFourBit(a, "w.weight", plain);
  addFourBit(b, "w.weight", nested);
  addFourBit(c, "w.weight", fp4);
  addInt8(d, "w.weight", int8);
  const TiledBuffer<std::int8_t> buffer = toTiles(int8.codes(), TileOrder::kColTuring);
  tiled.add("w.weight", Eigen::Map<const Int8Codes>(buffer.buffer.data(), 8, 32));
  tiled.add("w.SCB", int8.rowAbsmax());
  tiled.addReference("w.weight_format", io::DType::kU8, {}, "\2");
  return {contentOf(a), contentOf(b), contentOf(c), contentOf(d), contentOf(tiled)};
}

inline std::vector<std::string> loraConfigSeeds() {
  return {
      R"({"alpha_pattern":{},"auto_mapping":null,"bias":"none","lora_alpha":8,"lora_dropout":0.0,"peft_type":"LORA",)"
      R"("r":4,"target_modules":["q_proj","mlp.down_proj"],"use_rslora":true})",
      R"({"peft_type":"LORA","target_modules":"(a|b)*.{2,3}[k-q]_proj","rank_pattern":{"^x.*[0-9]$":2,"(.*)+(a?){9}":3}})"};
}

/** Those that transformers wrote, and one with what they leave out. */
inline std::vector<std::string> llamaConfigSeeds() {
  std::vector<std::string> seeds = {
      R"({"model_type":"llama","hidden_size":8,"num_attention_heads":2,"num_hidden_layers":1,"intermediate_size":4,)"
      R"("vocab_size":5,"eos_token_id":[1,2],"torch_dtype":"bfloat16","attention_bias":true,"rope_theta":500000.0,)"
      R"("rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
      R"("original_max_position_embeddings":16}})"};
  for (const char* model : {"llama", "llama-int8", "llama-nf4", "mistral", "qwen2"})
    seeds.push_back(test::readFile(std::string(EIGENQ_TEST_DATA_DIR "/llm/") + model + "/config.json"));
  return seeds;
}

/** The recorded tokenizers, each with a text of its own after a zero byte. */
inline std::vector<std::string> tokenizerSeeds() {
  std::vector<std::string> seeds;
  for (const char* family : {"falcon", "few_bytes", "few_bytes_fused", "gpt2", "llama2", "llama3", "metaspace",
                             "mistral", "o200k", "qwen2", "roberta", "smollm", "words"})
    seeds.push_back(test::readFile(std::string(EIGENQ_TEST_DATA_DIR "/tokenizer/") + family + ".json") + '\0' +
                    "a na\u00efve <s> 12 words\n");
  return seeds;
}

/** Two layers of 4 features, tied and not. */
inline std::vector<std::string> llama2cSeeds() {
  const auto file = [](std::int32_t vocabulary) {
    const std::int32_t dim = 4, hidden = 3, layers = 2, context = 2;
    const std::int32_t header[] = {dim, hidden, layers, 2, 1, vocabulary, context};
    const int heads = vocabulary < 0 ? 2 : 1;
    const int floats = heads * std::abs(vocabulary) * dim + layers * (2 * dim + 3 * dim * dim + 3 * hidden * dim) +
                       dim + context * dim / 2;
    return std::string(reinterpret_cast<const char*>(header), sizeof header) +
           std::string(4 * static_cast<std::size_t>(floats), '\0');
  };
  return {file(5), file(-5)};
}

inline std::vector<std::string> jsonLinesSeeds() {
  return {"{\"prompt\":\"a\",\"completion\":\"b\"}\n\n{\"completion\":\"\\u00e9\",\"prompt\":\"\",\"id\":1}\r\n"};
}

inline std::vector<std::string> trainerStateSeeds() {
  llm::TrainerState state;
  state.step = 2;
  state.history = {{1e-3, 2e-3}, {2.5, 2.25}, {{0, 3.0}, {1, 2.0}}, {2}};
  state.settings = {{"seed", "1"}};
  llm::TrainerState::Parameter p;
  p.name = "w";
  p.value = p.best = Eigen::MatrixXf::Ones(2, 3);
  p.firstMoment.values = p.secondMoment.values = Eigen::VectorXf::Ones(6);
  p.steps = 1;
  state.parameters = {p, p};
  state.parameters[1].name = "v";
  state.parameters[1].firstMoment = state.parameters[1].secondMoment = ad::Moment8bit::zeros(6, false);
  const test::TemporaryFolder folder;
  llm::writeTrainerState(state, folder.path("f"));
  return {test::readFile(folder.path("f"))};
}

}  // namespace fuzz
}  // namespace EigenQ

#endif  // EIGENQ_TEST_FUZZ_SEEDS_H
