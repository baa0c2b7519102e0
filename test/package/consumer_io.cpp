// SPDX-License-Identifier: MPL-2.0
// A user of EigenQ::Io alone: neither its JSON reader nor anything else of its making is asked for.
#include <cstdlib>

#include <eigen_q/Io>

int main() {
  EigenQ::io::SafetensorsWriter writer;
  writer.add("ones", Eigen::MatrixXf::Ones(2, 3));
  writer.write("consumer_io.safetensors");
  const EigenQ::io::Checkpoint checkpoint("consumer_io.safetensors");
  return EigenQ::io::toMatrix<float>(checkpoint.at("ones"), 2, 3).isOnes() ? EXIT_SUCCESS : EXIT_FAILURE;
}
