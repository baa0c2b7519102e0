// SPDX-License-Identifier: MPL-2.0
// Small valid files, from which fuzzing starts.
#ifndef EIGENQ_TEST_FUZZ_SEEDS_H
#define EIGENQ_TEST_FUZZ_SEEDS_H

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

inline std::vector<std::string> trainerStateSeeds() {
  llm::TrainerState state;
  state.step = 1;
  state.history = {{1e-3}, {2.5}, {{0, 3.0}, {1, 2.0}}};
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
