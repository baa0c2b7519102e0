// SPDX-License-Identifier: MPL-2.0
// seeds FOLDER: writes the files that fuzzing starts from, a folder for each target.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "fuzz/Seeds.h"

namespace {

void write(const std::filesystem::path& folder, const std::vector<std::string>& seeds) {
  std::filesystem::create_directories(folder);
  for (std::size_t i = 0; i < seeds.size(); ++i)
    std::ofstream(folder / std::to_string(i), std::ios::binary) << seeds[i];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: seeds FOLDER\n";
    return 2;
  }
  const std::filesystem::path folder = argv[1];
  write(folder / "safetensors", EigenQ::fuzz::safetensorsSeeds());
  write(folder / "shard_index", EigenQ::fuzz::indexSeeds());
  write(folder / "quantised", EigenQ::fuzz::quantisedSeeds());
  write(folder / "lora_config", EigenQ::fuzz::loraConfigSeeds());
  write(folder / "llama_config", EigenQ::fuzz::llamaConfigSeeds());
  write(folder / "llama2c", EigenQ::fuzz::llama2cSeeds());
  write(folder / "json_lines", EigenQ::fuzz::jsonLinesSeeds());
  write(folder / "tokenizer", EigenQ::fuzz::tokenizerSeeds());
  write(folder / "trainer_state", EigenQ::fuzz::trainerStateSeeds());
}
