// SPDX-License-Identifier: MPL-2.0
// The program of doc/tutorial-finetune.md: teaches a model a text through its NF4 weights.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <unsupported/eigen_q/Llm>
#include <unsupported/eigen_q/Tokenizer>

using namespace EigenQ;

namespace {

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return text;
}

void run(const std::string& folder, const std::string& textFile, const std::string& out, Index steps) {
  // 1. The model, its projections quantised while it loads; and its tokenizer.
  llm::LoadOptions load;
  load.format = llm::WeightFormat::kNF4;
  auto model = llm::loadLlama(folder, load);
  const auto tokenizer = llm::Tokenizer::fromFile(folder + "/tokenizer.json");

  // 2. Sequences of 256 tokens; the last twentieth is for judging.
  std::vector<llm::Example> train = llm::windows(tokenizer.encode(readFile(textFile)), 256);
  const auto kept = static_cast<std::ptrdiff_t>(train.size()) / 20;
  const std::vector<llm::Example> heldOut(train.end() - kept, train.end());
  train.resize(train.size() - heldOut.size());

  // 3. Adapters beside every projection.
  llm::LoraConfig lora;
  lora.r = 16;
  lora.alpha = 32;
  lora.targetModules = llm::ModuleFilter::allLinear();
  lora.baseModel = folder;
  llm::attachLora(model, lora, /*seed=*/1);

  // 4. Training. A run that is killed goes on from its last state.
  llm::TrainOptions how;
  how.steps = steps;
  how.microBatch = 8;
  how.adamw.learningRate = 5e-3;
  how.warmup = steps / 20;
  llm::Trainer<llm::Llama<>> trainer(model, train, heldOut, how);
  llm::runTraining(trainer, {out + ".state", /*saveEvery=*/100, /*resume=*/true}, [](auto& t) {
    if (t.step() % 50 == 0) std::printf("update %td: loss %.3f\n", t.step(), t.history().trainLoss.back());
  });
  const auto& losses = trainer.history().heldOut;
  std::printf("held out: %.3f before, %.3f after\n", losses.front().loss, losses.back().loss);

  // 5. For PEFT, and for ourselves.
  llm::saveAdapter(model, lora, out);

  // 6. A look at what it has learnt.
  llm::GenerateOptions sampled;
  sampled.maxNewTokens = 80;
  sampled.sampling.temperature = 0.7;
  const std::vector<int> prompt = tokenizer.encode("ROMEO:\n");
  llm::StreamDecoder text(tokenizer);
  for (const int id : prompt) std::printf("%s", text.push(id).c_str());
  llm::Generator<llm::Llama<>> generate(model);
  generate({prompt}, sampled, [&text](Index, int token) {
    std::printf("%s", text.push(token).c_str());
    return true;
  });
  std::printf("%s\n", text.finish().c_str());
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4 || argc > 5) {
    std::fprintf(stderr, "usage: tutorial MODEL TEXT OUT [UPDATES]\n");
    return 2;
  }
  run(argv[1], argv[2], argv[3], argc == 5 ? std::atol(argv[4]) : 460);
} catch (const std::exception& e) {
  std::fprintf(stderr, "tutorial: %s\n", e.what());
  return 1;
}
