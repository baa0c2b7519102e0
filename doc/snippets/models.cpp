// SPDX-License-Identifier: MPL-2.0
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <unsupported/eigen_q/Llm>

using namespace EigenQ;

namespace {

/** A folder to load from: a model that knows nothing. */
void makeModel(const std::string& folder) {
  llm::LlamaConfig config;
  config.vocabSize = 64;
  config.hiddenSize = 128;
  config.intermediateSize = 192;
  config.numHiddenLayers = 2;
  config.numAttentionHeads = 4;
  config.numKeyValueHeads = 2;
  config.headDim = 32;
  llm::RandomWeights weights(config, /*seed=*/1);
  llm::Llama<> model(weights);
  llm::saveLlama(model, folder);
}

}  // namespace

int main() {
  makeModel("a-model");
  {
    auto model = llm::loadLlama("a-model");
    std::printf("float: %td bytes\n", model.sizeInBytes());
  }

  llm::LoadOptions options;
  options.format = llm::WeightFormat::kNF4;
  options.statistics = Statistics::kNested;
  auto model = llm::loadLlama("a-model", options);
  std::printf("NF4: %td bytes\n", model.sizeInBytes());

  const std::vector<int> prompt = {1, 5, 9};
  llm::Generator generate(model);
  llm::GenerateOptions how;
  how.maxNewTokens = 8;
  how.sampling.temperature = 0.8;
  how.sampling.topP = 0.95;
  how.sampling.repetitionPenalty = 1.1;
  how.stopTokens = model.config().eosTokenIds;
  const auto tokens = generate({prompt}, how, [](Index, int) {
    std::printf(".");  // a streaming decoder would print text here
    return true;
  });
  std::printf(" %s\n", tokens[0].size() <= 8 ? "generated" : "too many");

  model.forEachLinear([](llm::Linear<float>& linear) {
    if (linear.shortName() != "q_proj" && linear.shortName() != "v_proj") return;
    linear.adapter() = llm::Adapter<float>{
        ad::Parameter<float>(Eigen::MatrixXf::Random(8, linear.cols()) / std::sqrt(float(linear.cols())), "lora_A"),
        ad::Parameter<float>(Eigen::MatrixXf::Zero(linear.rows(), 8), "lora_B"),
        {/*scale=*/2, /*dropout=*/0}};
  });
  ad::AdamW<float> optimizer(model.trainable(), {1e-2});
  ad::Tape<float> tape;
  const llm::Batch batch = llm::packForTraining({{1, 5, 9, 33, 2}, {1, 7, 2}});
  float before = 0, after = 0;
  for (int step = 0; step < 20; ++step) {
    tape.clear();
    optimizer.zeroGrad();
    const auto loss = model.loss(tape, batch, ad::Reduction::Mean, {/*checkpointLayers=*/true});
    tape.backward(loss);
    optimizer.step();
    (step == 0 ? before : after) = loss.item();
  }
  std::printf("loss %s\n", after < before ? "falls" : "does not fall");

  llm::saveLlama(model, "a-model-nf4");
  auto again = llm::loadLlama("a-model-nf4");
  std::printf("saved and loaded: %td bytes\n", again.sizeInBytes());
}
