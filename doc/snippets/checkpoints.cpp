// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/Io>
#include <filesystem>
#include <iostream>

namespace io = EigenQ::io;

// A model larger than memory, quantised tensor by tensor: one dense matrix is in memory at a time.
EigenQ::NF4Matrix quantised(const io::Checkpoint& model, const std::string& name) {
  const io::TensorView& tensor = model.at(name);
  EigenQ::NF4Matrix w(io::toMatrix<float>(tensor), 64, EigenQ::Statistics::kNested);
  model.discard(tensor);
  return w;
}

int main() {
  const std::string folder = (std::filesystem::temp_directory_path() / "eigenq-snippet").string();

  // Any Eigen expression becomes a tensor; sources of bytes are asked when their turn comes.
  io::SafetensorsWriter dense;
  dense.add("layer.weight", Eigen::MatrixXf::Identity(128, 256));
  dense.add("layer.bias", Eigen::VectorXf::Ones(128));
  io::writeCheckpoint(dense, folder);  // model.safetensors, or shards of 5 GB with their index

  const io::Checkpoint model(folder);
  for (const std::string& name : model.names())
    std::cout << name << ' ' << io::nameOf(model.at(name).dtype) << ' ' << io::shapeText(model.at(name).shape) << '\n';

  // The keys of bitsandbytes: its Linear4bit opens the result.
  const EigenQ::NF4Matrix w = quantised(model, "layer.weight");
  io::SafetensorsWriter packed;
  addFourBit(packed, "layer.weight", w);
  packed.add(model.at("layer.bias"));
  io::writeCheckpoint(packed, folder + "-nf4");

  const io::Checkpoint stored(folder + "-nf4");
  if (io::storedAs(stored, "layer.weight") == io::StoredAs::kNF4)
    std::cout << io::readNF4(stored, "layer.weight").sizeInBytes() << " bytes in " << stored.names().size()
              << " tensors\n";

  try {
    io::readInt8(stored, "layer.weight");
  } catch (const EigenQ::FormatError& e) {
    std::cout << e.key() << ": " << std::string(e.what()).substr(e.where().size() + e.key().size() + 4) << '\n';
  }
  std::filesystem::remove_all(folder);
  std::filesystem::remove_all(folder + "-nf4");
}
