// SPDX-License-Identifier: MPL-2.0
// Greedy decoding and QLoRA steps of a Llama with random NF4 weights on the device, beside bench/model_rivals.py.
// doc/perf.md, "Whole models".
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>
#include <nlohmann/json.hpp>
#include <src/cuda/check.h>
#include <unsupported/eigen_q/LlmCuda>

namespace {

using namespace EigenQ;
using Eigen::bfloat16;
using Json = nlohmann::json;
using Model = llm::Llama<bfloat16, ad::Device>;

constexpr Index kRank = 16;
constexpr int kPromptTokens = 16, kTimedGenerations = 3, kWarmSteps = 2;
constexpr Index kLength = 1024;  // tokens of a sequence that is trained on
constexpr double kGiB = 1024.0 * 1024 * 1024;

llm::LlamaConfig configOf(const std::string& shape) {
  llm::LlamaConfig c;
  if (shape != "1B" && shape != "8B") throw std::invalid_argument("expected shape 1B or 8B, found " + shape);
  const bool large = shape == "8B";
  c.hiddenSize = large ? 4096 : 2048;
  c.intermediateSize = large ? 14336 : 8192;
  c.numHiddenLayers = large ? 32 : 16;
  c.numAttentionHeads = 32;
  c.numKeyValueHeads = 8;
  c.headDim = c.hiddenSize / c.numAttentionHeads;
  c.vocabSize = 32000;
  c.maxPositionEmbeddings = 4096;
  c.tieWordEmbeddings = false;
  return c;
}

/** Random weights, one matrix for each shape: speed does not depend on what is in them, and quantising takes long. */
class RepeatedWeights : public llm::WeightSource {
 public:
  explicit RepeatedWeights(const llm::LlamaConfig& config) : m_random(config, 1, options()) {}

  const llm::LlamaConfig& config() const override { return m_random.config(); }
  Eigen::VectorXf vector(const std::string& name, Index size) override { return m_random.vector(name, size); }
  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    return m_random.embedding(name, hidden, vocabulary);
  }
  llm::HostWeight projection(const std::string& module, Index out, Index in) override {
    if (module == "lm_head") return m_random.projection(module, out, in);
    auto [found, isNew] = m_made.try_emplace({out, in});
    if (isNew) found->second = std::get<NF4Matrix>(m_random.projection(module, out, in));
    return found->second;
  }

 private:
  static llm::LoadOptions options() {
    llm::LoadOptions o;
    o.format = llm::WeightFormat::kNF4;
    o.statistics = Statistics::kNested;
    return o;
  }

  llm::RandomWeights m_random;
  std::map<std::pair<Index, Index>, NF4Matrix> m_made;
};

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}
double usedGiB() {
  std::size_t free = 0, total = 0;
  EIGENQ_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<double>(total - free) / kGiB;
}

Json decode(const std::string& shape, Index tokens) {
  const double before = usedGiB();
  RepeatedWeights source(configOf(shape));
  Model model(source);
  llm::Generator<Model> generate(model, 1, kPromptTokens + tokens);
  std::vector<int> prompt;
  for (int i = 1; i <= kPromptTokens; ++i) prompt.push_back(i);
  llm::GenerateOptions options;
  options.maxNewTokens = tokens;
  options.sampling.temperature = 0;
  (void)generate({prompt}, options);  // makes plans and the graph
  std::vector<double> rates;
  for (int i = 0; i < kTimedGenerations; ++i) {
    const double start = seconds();
    const std::size_t count = generate({prompt}, options)[0].size();
    rates.push_back(static_cast<double>(count) / (seconds() - start));
  }
  return {{"kind", "decode"},
          {"shape", shape},
          {"tokens", tokens},
          {"tokens_per_second", median(rates)},
          {"peak_gib", usedGiB() - before}};
}

/** Greedy steps alone, from an empty cache, with the blocks of the model as one kernel or op by op. */
Json decodeSteps(const std::string& kind, const std::string& shape, Index tokens) {
  RepeatedWeights source(configOf(shape));
  Model model(source);
  Model::Cache cache(model.config(), 1, kPromptTokens + tokens);
  llm::internal::DecodeStep<bfloat16, ad::Device> step(model, cache, kind == "decode-fused");
  std::vector<double> rates;
  for (int i = 0; i <= kTimedGenerations; ++i) {
    cache.clear();
    step.restart();
    Eigen::VectorXi token = Eigen::VectorXi::Ones(1);
    double start = 0;
    for (Index t = 0; t < kPromptTokens + tokens; ++t) {
      if (t == kPromptTokens) start = seconds();
      token = step.greedy(token, {true});
    }
    if (i > 0)
      rates.push_back(static_cast<double>(tokens) / (seconds() - start));  // the first makes plans and the graph
  }
  return {{"kind", kind}, {"shape", shape}, {"tokens", tokens}, {"tokens_per_second", median(rates)}};
}

Json finetune(const std::string& shape, Index sequences, bool checkpointing, int steps) {
  using Parameter = llm::Adapter<bfloat16, ad::Device>::Parameter;
  const double before = usedGiB();
  RepeatedWeights source(configOf(shape));
  Model model(source);
  std::vector<Parameter*> parameters;
  model.forEachLinear([&](Model::Projection& linear) {
    if (linear.name() == "lm_head") return;
    linear.adapter() = llm::Adapter<bfloat16, ad::Device>{
        Parameter(Eigen::MatrixXf(Eigen::MatrixXf::Random(kRank, linear.cols()) * 0.02f), linear.name() + ".lora_A"),
        Parameter(Eigen::MatrixXf(Eigen::MatrixXf::Zero(linear.rows(), kRank)), linear.name() + ".lora_B"),
        {/*scale=*/2, /*dropout=*/0}};
    parameters.push_back(&linear.adapter()->a);
    parameters.push_back(&linear.adapter()->b);
  });
  ad::AdamW<float, ad::Device> optimizer(parameters, {/*learningRate=*/1e-4});
  std::mt19937 random(1);
  std::uniform_int_distribution<int> token(0, static_cast<int>(model.config().vocabSize) - 1);
  std::vector<std::vector<int>> ids(static_cast<std::size_t>(sequences));
  for (auto& sequence : ids)
    for (Index t = 0; t < kLength; ++t) sequence.push_back(token(random));
  const llm::Batch batch = llm::packForTraining(ids);

  llm::ForwardOptions forward;
  forward.checkpointLayers = checkpointing;
  Model::Tape tape;
  double loss = 0;
  std::vector<double> times;
  for (int step = 0; step < kWarmSteps + steps; ++step) {
    gpu::Context::current().synchronize();
    const double start = seconds();
    const auto l = model.loss(tape, batch, ad::Reduction::Mean, forward);
    tape.backward(l);
    optimizer.step();
    optimizer.zeroGrad();
    loss = static_cast<double>(static_cast<float>(l.item()));
    tape.clear();
    gpu::Context::current().synchronize();
    if (step >= kWarmSteps) times.push_back(seconds() - start);
  }
  return {{"kind", "finetune"},
          {"shape", shape},
          {"sequences", sequences},
          {"length", kLength},
          {"checkpointing", checkpointing},
          {"tokens_per_second", static_cast<double>(sequences * kLength) / median(times)},
          {"loss", loss},
          {"peak_gib", usedGiB() - before}};
}

/** One piece of work a process: memory that was once asked for is kept, and would be counted for the next. */
struct Options {
  std::string work = "decode", shape = "1B", json;
  Index tokens = 64;
  int steps = 3;
};

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--work")
      o.work = value;
    else if (name == "--shape")
      o.shape = value;
    else if (name == "--tokens")
      o.tokens = std::stol(value);
    else if (name == "--steps")
      o.steps = std::stoi(value);
    else if (name == "--json")
      o.json = value;
    else
      throw std::invalid_argument("unknown option " + name);
  }
  if (argc % 2 == 0) throw std::invalid_argument(std::string("an option without its value: ") + argv[argc - 1]);
  return o;
}

Json run(const Options& o) {
  const Index sequences = o.shape == "1B" ? 8 : 4;
  if (o.work == "decode") return decode(o.shape, o.tokens);
  if (o.work == "decode-fused" || o.work == "decode-ops") return decodeSteps(o.work, o.shape, o.tokens);
  if (o.work == "finetune") return finetune(o.shape, sequences, /*checkpointing=*/false, o.steps);
  if (o.work == "finetune-checkpointed") return finetune(o.shape, sequences, /*checkpointing=*/true, o.steps);
  throw std::invalid_argument(
      "expected work decode, decode-fused, decode-ops, finetune or finetune-checkpointed, found " + o.work);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options o = parse(argc, argv);
    if (const char* why = gpu::whyNoDevice()) throw std::runtime_error(why);
    (void)gpu::Context::current();  // its memory is no model's
    const Json result = run(o);
    std::cout << result.dump() << '\n';
    if (!o.json.empty() && !(std::ofstream(o.json) << result.dump(1)))
      throw std::runtime_error("cannot write " + o.json);
  } catch (const std::exception& e) {
    std::cerr << "eigenq_bench_models: " << e.what() << '\n';
    return EXIT_FAILURE;
  }
}
