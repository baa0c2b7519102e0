// SPDX-License-Identifier: MPL-2.0
// Adapters attached, trained, stored, loaded and merged; quoted by doc/peft.md.
#include <cstdio>
#include <filesystem>

#include <unsupported/eigen_q/Llm>

namespace ad = EigenQ::ad;
namespace llm = EigenQ::llm;

namespace {

/** A small model with random weights, in NF4. */
llm::Llama<float> randomModel() {
  llm::LlamaConfig config;
  config.vocabSize = 64;
  config.hiddenSize = 32;
  config.intermediateSize = 64;
  config.numHiddenLayers = 2;
  config.numAttentionHeads = config.numKeyValueHeads = 4;
  config.headDim = 8;
  config.maxPositionEmbeddings = 32;
  llm::LoadOptions nf4;
  nf4.format = llm::WeightFormat::kNF4;
  llm::RandomWeights weights(config, /*seed=*/1, nf4);
  return llm::Llama<float>(weights);
}

/** A text that counts. */
std::vector<int> numbers(int count) {
  std::vector<int> ids;
  for (int i = 0; i < count; ++i) ids.push_back(i % 60);
  return ids;
}

}  // namespace

int main() {
  std::filesystem::remove_all("run");
  auto model = randomModel();
  const std::vector<llm::Example> train = llm::windows(numbers(2000), 16), heldOut = llm::windows(numbers(200), 16);

  llm::LoraConfig lora;
  lora.r = 8;
  lora.alpha = 16;
  lora.targetModules = llm::ModuleFilter::allLinear();  // or {"q_proj", "v_proj"}, or ModuleFilter::matching("regex")
  lora.rankPattern = {{"down_proj", 4}};
  llm::attachLora(model, lora, /*seed=*/1);

  llm::TrainOptions options;
  options.steps = 60;
  options.microBatch = 4;
  options.accumulation = 2;
  options.adamw.learningRate = 1e-2;
  options.evaluateEvery = 20;
  llm::Trainer trainer(model, train, heldOut, options);
  llm::runTraining(trainer, {"run/trainer_state.safetensors", /*saveEvery=*/20, /*resume=*/true}, [](auto& t) {
    if (t.step() % 20 == 0) std::printf("step %ld\n", static_cast<long>(t.step()));
  });
  const auto& measured = trainer.history().heldOut;
  std::printf("learnt: %s\n", measured.back().loss < 0.7 * measured.front().loss ? "yes" : "no");
  llm::saveAdapter(model, lora, "run/adapter");

  auto again = randomModel();
  llm::loadAdapter(again, "run/adapter");
  std::printf("the same loss: %s\n", llm::meanLoss(again, heldOut) == llm::meanLoss(model, heldOut) ? "yes" : "no");

  llm::LoadOptions asStored;  // the formats that the weights have; without it they become dense
  const std::vector<llm::MergedWeight> merged = llm::mergeAdapters(again, asStored);
  std::printf("merged %zu adapters; NF4 again: an error of %.0f %% at worst\n", merged.size(),
              100 * llm::worstOf(merged)->relativeError);
}
