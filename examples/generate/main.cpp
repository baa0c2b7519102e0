// SPDX-License-Identifier: MPL-2.0
// Continues a prompt with a model of the Llama family, in NF4: generate FOLDER PROMPT [TEMPERATURE [STOP…]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <unsupported/eigen_q/Llm>
#include <unsupported/eigen_q/Tokenizer>

namespace llm = EigenQ::llm;

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

void generate(const std::string& folder, const std::string& prompt, double temperature,
              const std::vector<std::string>& stop) {
  const auto tokenizer = llm::Tokenizer::fromFile(folder + "/tokenizer.json");
  llm::LoadOptions load;
  load.format = llm::WeightFormat::kNF4;
  auto model = llm::loadLlama(folder, load);

  llm::GenerateOptions how;
  how.maxNewTokens = 200;
  how.sampling.temperature = temperature;
  how.stopTokens = model.config().eosTokenIds;

  const std::vector<int> ids = tokenizer.encode(prompt);
  llm::StreamDecoder text(tokenizer);
  for (const int id : ids) std::cout << text.push(id);
  text.stopAt(stop);

  const double start = now();
  double first = 0;
  llm::Generator<llm::Llama<>> generator(model);
  const auto tokens = generator({ids}, how, [&](EigenQ::Index, int token) {
    if (first == 0) first = now();
    std::cout << text.push(token) << std::flush;
    return !text.stopped();
  });
  std::cout << text.finish() << '\n';
  std::fprintf(stderr, "prompt %.0f tokens/s, decode %.0f tokens/s\n",
               static_cast<double>(ids.size()) / (first - start),
               static_cast<double>(tokens[0].size() - 1) / (now() - first));
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::fprintf(stderr, "usage: generate FOLDER PROMPT [TEMPERATURE [STOP…]]\n");
    return 2;
  }
  const std::vector<std::string> stop(argv + std::min(argc, 4), argv + argc);
  generate(argv[1], argv[2], argc > 3 ? std::atof(argv[3]) : 0, stop);
} catch (const std::exception& e) {
  std::fprintf(stderr, "generate: %s\n", e.what());
  return 1;
}
