// SPDX-License-Identifier: MPL-2.0
// Fine-tuning: what is learnt from, what an update is, and runs that are stopped, killed and resumed.
#define BOOST_TEST_MODULE llm_Training
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/test/unit_test.hpp>

#include "TinyModel.h"

namespace {

using namespace EigenQ;
namespace fs = std::filesystem;
using llm::Example;
using Trainer = llm::Trainer<llm::Llama<float>>;

constexpr int kIgnored = llm::kIgnoredTarget;

/** Tokens with something to learn: each is often the one before, plus one. */
std::vector<Example> data(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Example> examples;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<int> ids(7 + random() % 6);
    ids[0] = static_cast<int>(random() % 32);
    for (std::size_t t = 1; t < ids.size(); ++t)
      ids[t] = random() % 8 == 0 ? static_cast<int>(random() % 32) : (ids[t - 1] + 1) % 32;
    examples.push_back({{ids.begin(), ids.end() - 1}, {ids.begin() + 1, ids.end()}});
    std::fill_n(examples.back().targets.begin(), random() % 4, kIgnored);
  }
  return examples;
}

llm::LoraConfig loraConfig(double dropout = 0) {
  llm::LoraConfig config;
  config.r = 4;
  config.dropout = dropout;
  config.targetModules = llm::ModuleFilter::allLinear();
  return config;
}

llm::Llama<float> tinyModel(const llm::LlamaConfig& config, double dropout, llm::WeightFormat format,
                            std::uint64_t seed) {
  llm::LoadOptions load;
  load.format = format;
  test::TinyWeights weights(config, seed, load);
  llm::Llama<float> model(weights);
  llm::attachLora(model, loraConfig(dropout), 7);
  return model;
}

llm::Llama<float> tinyModel(double dropout = 0, llm::WeightFormat format = llm::WeightFormat::kNF4,
                            std::uint64_t seed = 3) {
  return tinyModel(test::tinyConfig(llm::LlamaFamily::kLlama), dropout, format, seed);
}

llm::TrainOptions options(Index steps) {
  llm::TrainOptions o;
  o.steps = steps;
  o.microBatch = 2;
  o.accumulation = 2;
  o.adamw.learningRate = 0.01;
  o.warmup = 2;
  return o;
}

/** Everything that training changed. */
std::vector<Eigen::MatrixXf> parameters(llm::Llama<float>& model) {
  std::vector<Eigen::MatrixXf> all;
  for (const auto* p : model.trainable()) all.push_back(p->value());
  return all;
}

bool same(const std::vector<Eigen::MatrixXf>& a, const std::vector<Eigen::MatrixXf>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

double relativeDifference(const std::vector<Eigen::MatrixXf>& a, const std::vector<Eigen::MatrixXf>& b) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]).cast<double>().squaredNorm();
    size += a[i].cast<double>().squaredNorm();
  }
  return std::sqrt(difference / size);
}

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

const auto ignore = [](const Trainer&) {};

}  // namespace

BOOST_AUTO_TEST_CASE(windowsPredictEveryTokenOnce) {
  const std::vector<Example> examples = llm::windows({1, 2, 3, 4, 5, 6, 7, 8}, 3);
  BOOST_TEST(examples.size() == 2u);  // 8 would need a successor
  BOOST_TEST(examples[0].tokens == std::vector<int>({1, 2, 3}));
  BOOST_TEST(examples[0].targets == std::vector<int>({2, 3, 4}));
  BOOST_TEST(examples[1].targets == std::vector<int>({5, 6, 7}));
  BOOST_TEST(llm::windows({1, 2, 3}, 3).empty());
}

BOOST_AUTO_TEST_CASE(lessonsTeachTheCompletionAlone) {
  const llm::Encode encode = [](const std::string& text, bool special) {
    std::vector<int> ids(text.begin(), text.end());
    if (special) ids.insert(ids.begin(), 1);
    return ids;
  };
  const auto example = llm::lesson({"ab", "cd"}, encode, 2, 100);
  BOOST_TEST(example->tokens == std::vector<int>({1, 'a', 'b', 'c', 'd'}));
  BOOST_TEST(example->targets == std::vector<int>({kIgnored, kIgnored, 'c', 'd', 2}));
  BOOST_TEST(example->counted() == 3);
  const auto cut = llm::lesson({"ab", "cd"}, encode, 2, 3);
  BOOST_TEST(cut->targets == std::vector<int>({kIgnored, kIgnored, 'c'}));
  BOOST_TEST(!llm::lesson({"ab", "cd"}, encode, 2, 2).has_value());
  const auto all = llm::lesson({"", "cd"}, encode, std::nullopt, 100);
  BOOST_TEST(all->targets == std::vector<int>({'c', 'd'}));
}

BOOST_AUTO_TEST_CASE(jsonLinesSayWhichLineIsWrong) {
  std::ofstream("good.jsonl") << "{\"prompt\": \"a\", \"completion\": \"b\", \"id\": 3}\n\n{\"text\": \"c\"}\n";
  const auto texts = llm::readJsonLines("good.jsonl");
  BOOST_TEST(texts.size() == 2u);
  BOOST_TEST(texts[0].completion == "b");
  BOOST_TEST((texts[1].prompt.empty() && texts[1].completion == "c"));
  for (const char* line :
       {"{\"prompt\": \"a\"}", "[1]", "{", "{\"text\": \"a\", \"prompt\": \"b\"}", "{\"text\": 1}"}) {
    std::ofstream("bad.jsonl") << "{\"text\": \"fine\"}\n" << line << "\n";
    BOOST_CHECK_EXCEPTION(llm::readJsonLines("bad.jsonl"), FormatError, [](const FormatError& e) {
      return std::string(e.what()).find("bad.jsonl:2") != std::string::npos;
    });
  }
}

BOOST_AUTO_TEST_CASE(everyRoundHasEveryExampleOnce) {
  llm::ShuffledOrder order(50, 9), again(50, 9);
  std::vector<std::vector<Index>> rounds;
  for (Index round = 0; round < 3; ++round) {
    rounds.emplace_back();
    for (Index i = 0; i < 50; ++i) rounds.back().push_back(order(50 * round + i));
    BOOST_TEST((std::set<Index>(rounds.back().begin(), rounds.back().end()).size() == 50u));
  }
  BOOST_TEST((rounds[0] != rounds[1] && rounds[1] != rounds[2]));
  BOOST_TEST(again(149) == rounds[2][49]);  // without what came before
  BOOST_TEST(llm::ShuffledOrder(50, 9, false)(73) == 23);
}

// The targets of a micro-batch differ in number, so that a mean of means would be another gradient.
BOOST_AUTO_TEST_CASE(accumulationIsOneLargeBatch) {
  const auto train = [](Index microBatch, Index accumulation, bool checkpointLayers) {
    auto model = tinyModel();
    llm::TrainOptions o = options(6);
    o.microBatch = microBatch;
    o.accumulation = accumulation;
    o.checkpointLayers = checkpointLayers;
    Trainer trainer(model, data(20, 1), {}, o);
    llm::runTraining(trainer, {}, ignore);
    BOOST_TEST(trainer.history().trainLoss.size() == 6u);
    return parameters(model);
  };
  const auto whole = train(4, 1, false), parts = train(1, 4, false);
  BOOST_TEST(relativeDifference(whole, parts) < 1e-4);
  BOOST_TEST(relativeDifference(whole, parameters(*std::make_unique<llm::Llama<float>>(tinyModel()))) > 0.05);
  BOOST_TEST(same(whole, train(4, 1, true)));  // checkpoints change no bit
}

BOOST_AUTO_TEST_CASE(trainingLearns) {
  auto model = tinyModel();
  llm::TrainOptions o = options(60);
  o.evaluateEvery = 20;
  Trainer trainer(model, data(64, 1), data(16, 2), o);
  llm::runTraining(trainer, {}, ignore);
  const auto& heldOut = trainer.history().heldOut;
  BOOST_TEST(heldOut.size() == 4u);  // at 0, 20, 40 and 60
  BOOST_TEST(heldOut.back().loss < heldOut.front().loss - 0.5);
  BOOST_TEST(heldOut.back().loss == llm::meanLoss(model, data(16, 2)), boost::test_tools::tolerance(1e-6));
  BOOST_TEST(trainer.history().learningRate[0] == 0.005);
}

BOOST_AUTO_TEST_CASE(patienceStopsAtTheBest) {
  auto model = tinyModel();
  llm::TrainOptions o = options(400);
  o.adamw.learningRate = 0.05;
  o.decay = llm::TrainOptions::Decay::kConstant;
  o.evaluateEvery = 5;
  o.patience = 2;
  Trainer trainer(model, data(4, 1), data(16, 2), o);  // four examples: it learns them by heart
  llm::runTraining(trainer, {}, ignore);
  const auto& heldOut = trainer.history().heldOut;
  BOOST_TEST(trainer.stoppedEarly());
  BOOST_TEST(trainer.step() < 400);
  double best = heldOut.front().loss;
  for (const auto& h : heldOut) best = std::min(best, h.loss);
  BOOST_TEST(heldOut.back().loss > best);
  BOOST_TEST(llm::meanLoss(model, data(16, 2), o.microBatch) == best);
}

// Dropout, evaluation, several rounds of the data, moments in float or in 8 bits: to the bit.
BOOST_AUTO_TEST_CASE(resumedRunsAreThoseThatWereNotStopped) {
  for (const bool optimizer8bit : {false, true}) {
    llm::TrainOptions o = options(12);
    o.optimizer8bit = optimizer8bit;
    o.evaluateEvery = 4;
    o.patience = 3;
    auto whole = tinyModel(0.1);
    Trainer trainer(whole, data(10, 1), data(6, 2), o);
    llm::runTraining(trainer, {}, ignore);
    for (const Index stop : {1, 5, 8}) {
      fs::remove("stopped.safetensors");
      auto first = tinyModel(0.1);
      Trainer before(first, data(10, 1), data(6, 2), o);
      while (before.step() < stop) before.advance();
      llm::writeTrainerState(before.state(), "stopped.safetensors");
      auto second = tinyModel(0.1);
      Trainer after(second, data(10, 1), data(6, 2), o);
      llm::runTraining(after, {"stopped.safetensors", 0, true}, ignore);
      BOOST_TEST(same(parameters(second), parameters(whole)));
      BOOST_TEST(after.history().trainLoss == trainer.history().trainLoss);
      BOOST_TEST(after.history().heldOut.back().loss == trainer.history().heldOut.back().loss);
    }
  }
}

BOOST_AUTO_TEST_CASE(runsUnderAConstantRateAreProlonged) {
  llm::TrainOptions shorter = options(6), longer = options(9);
  for (llm::TrainOptions* o : {&shorter, &longer}) o->decay = llm::TrainOptions::Decay::kConstant;
  auto whole = tinyModel(0.1), part = tinyModel(0.1), prolonged = tinyModel(0.1);
  Trainer trainer(whole, data(10, 1), data(6, 2), longer), before(part, data(10, 1), data(6, 2), shorter);
  llm::runTraining(trainer, {}, ignore);
  llm::runTraining(before, {}, ignore);
  Trainer after(prolonged, data(10, 1), data(6, 2), longer);
  after.setState(before.state());
  llm::runTraining(after, {}, ignore);
  BOOST_TEST(same(parameters(prolonged), parameters(whole)));
}

// Its end took it back to its best: the longer run would go on from there.
BOOST_AUTO_TEST_CASE(runsWithPatienceAreNotProlonged) {
  llm::TrainOptions shorter = options(6), longer = options(9);
  for (llm::TrainOptions* o : {&shorter, &longer}) {
    o->decay = llm::TrainOptions::Decay::kConstant;
    o->evaluateEvery = 2;
    o->patience = 5;
  }
  auto model = tinyModel(), prolonged = tinyModel();
  Trainer before(model, data(10, 1), data(6, 2), shorter);
  llm::runTraining(before, {}, ignore);
  Trainer after(prolonged, data(10, 1), data(6, 2), longer);
  BOOST_CHECK_EXCEPTION(after.setState(before.state()), FormatError,
                        [](const FormatError& e) { return e.key() == std::string("steps"); });
}

BOOST_AUTO_TEST_CASE(examplesHaveATargetForEachToken) {
  for (const std::size_t targets : {std::size_t{0}, std::size_t{2}, std::size_t{400}}) {
    const Example example{{1, 2, 3}, std::vector<int>(targets, 4)};
    BOOST_CHECK_THROW(llm::packExamples({&example}), std::invalid_argument);
  }
}

BOOST_AUTO_TEST_CASE(statesOfOtherRunsAreRefused) {
  auto model = tinyModel();
  Trainer trainer(model, data(10, 1), {}, options(9));
  trainer.advance();
  const llm::TrainerState state = trainer.state();
  const auto refusedFor = [&](const char* setting, const std::vector<Example>& examples, const llm::TrainOptions& o,
                              double dropout = 0, llm::WeightFormat format = llm::WeightFormat::kNF4) {
    auto other = tinyModel(dropout, format);
    Trainer resumed(other, examples, {}, o);
    BOOST_CHECK_EXCEPTION(resumed.setState(state), FormatError,
                          [&](const FormatError& e) { return e.key() == std::string(setting); });
  };
  llm::TrainOptions changed = options(9);
  changed.adamw.learningRate = 0.02;
  refusedFor("learning_rate", data(10, 1), changed);
  refusedFor("steps", data(10, 1), options(10));
  refusedFor("data", data(10, 2), options(9));
  refusedFor("adapters", data(10, 1), options(9), 0.5);
  refusedFor("weights", data(10, 1), options(9), 0, llm::WeightFormat::kFP4);  // whose sizes are the same
}

// Sizes, formats and adapters are the same: a fine-tuned model beside the one that it was made from.
BOOST_AUTO_TEST_CASE(statesBesideOtherBaseModelsAreRefused) {
  for (const auto format : {llm::WeightFormat::kNF4, llm::WeightFormat::kDense, llm::WeightFormat::kInt8}) {
    auto model = tinyModel(0, format), same = tinyModel(0, format);
    Trainer trainer(model, data(10, 1), {}, options(9)), resumed(same, data(10, 1), {}, options(9));
    trainer.advance();
    llm::TrainerState state = trainer.state();
    BOOST_TEST(model.checksum() == same.checksum());  // training changes no frozen weight
    BOOST_CHECK_NO_THROW(resumed.setState(state));
    const auto refused = [&](const char* what, const auto& change) {
      BOOST_TEST_CONTEXT(what) {
        auto other = tinyModel(0, format);
        change(other);
        BOOST_TEST(other.checksum() != model.checksum());
        Trainer beside(other, data(10, 1), {}, options(9));
        BOOST_CHECK_EXCEPTION(beside.setState(state, "FILE"), FormatError, [](const FormatError& e) {
          return std::string(e.what()).rfind("FILE: base_model: expected checksum ", 0) == 0;
        });
      }
    };
    const auto scaled = [](auto& dense) { dense = {1.01f * dense.toHost(), dense.name()}; };
    refused("a projection", [&](auto& other) {
      other.layers()[2].down.setWeight(tinyModel(0, format, 4).layers()[2].down.hostWeight());
    });
    refused("a norm", [&](auto& other) { scaled(other.layers()[1].ffnNorm); });
    refused("a bias", [&](auto& other) { scaled(*other.layers()[0].query.bias()); });
    refused("the embedding", [&](auto& other) { scaled(other.embedding()); });

    auto& settings = state.settings;
    const auto activations =
        std::find_if(settings.begin(), settings.end(), [](const auto& s) { return s.first == "activations"; });
    activations->second = "bfloat16";
    BOOST_CHECK_EXCEPTION(resumed.setState(state), FormatError,
                          [](const FormatError& e) { return e.key() == std::string("activations"); });
    settings.erase(activations - 1, settings.end());  // as versions wrote it that looked at neither
    BOOST_CHECK_NO_THROW(resumed.setState(state));
  }
}

// The same tensors, another function.
BOOST_AUTO_TEST_CASE(statesBesideOtherConfigsAreRefused) {
  using Scaling = llm::RopeScaling;
  const auto with = [](const auto& change) {
    llm::LlamaConfig config = test::tinyConfig(llm::LlamaFamily::kLlama);
    change(config);
    return tinyModel(config, 0, llm::WeightFormat::kNF4, 3);
  };
  auto model = tinyModel();
  Trainer trainer(model, data(10, 1), {}, options(9));
  trainer.advance();
  llm::TrainerState state = trainer.state();
  const auto refused = [&](const std::string& message, const auto& change) {
    auto other = with(change);
    BOOST_TEST(other.checksum() == model.checksum());
    Trainer beside(other, data(10, 1), {}, options(9));
    const auto saysSo = [&](const FormatError& e) {
      BOOST_TEST_MESSAGE(e.what());
      return std::string(e.what()).rfind("FILE: " + message, 0) == 0;
    };
    BOOST_CHECK_EXCEPTION(beside.setState(state, "FILE"), FormatError, saysSo);
  };
  refused("num_attention_heads: expected 2, found 4", [](auto& c) {
    c.numAttentionHeads = 2;
    c.numKeyValueHeads = 1;
    c.headDim = 12;
  });
  refused("rms_norm_eps: expected 9.", [](auto& c) { c.rmsNormEps = 9e-6; });
  refused("rope_theta: expected 10000, found 300", [](auto& c) { c.ropeTheta = 10000; });
  refused("rope_scaling: expected linear, factor 2, found default", [](auto& c) {
    c.ropeScaling.type = Scaling::Type::kLinear;
    c.ropeScaling.factor = 2;
  });
  refused("rope_scaling: expected llama3, factor 8, ", [](auto& c) {
    c.ropeScaling.type = Scaling::Type::kLlama3;
    c.ropeScaling.factor = 8;
  });
  refused("sliding_window: expected none in 2 layers, 5 in 1 layers, found none in 3 layers", [](auto& c) {
    c.windows = {0, 0, 5};
  });

  auto same = with([](auto& c) { c.maxPositionEmbeddings = 50; });  // how many are prepared changes nothing
  Trainer resumed(same, data(10, 1), {}, options(9));
  BOOST_CHECK_NO_THROW(resumed.setState(state));
  state.settings.resize(state.settings.size() - 6);  // as versions wrote it that did not look at it
  BOOST_CHECK_NO_THROW(resumed.setState(state));
  auto changed = with([](auto& c) { c.ropeTheta = 10000; });
  Trainer unaware(changed, data(10, 1), {}, options(9));
  BOOST_CHECK_NO_THROW(unaware.setState(state));
}

BOOST_AUTO_TEST_CASE(brokenStatesAreRefused) {
  auto model = tinyModel();
  Trainer trainer(model, data(10, 1), {}, options(9));
  trainer.advance();
  llm::writeTrainerState(trainer.state(), "state.safetensors");
  const std::string whole = readFile("state.safetensors");
  for (std::size_t bytes = 0; bytes < whole.size(); bytes += 997) {
    std::ofstream("state.safetensors", std::ios::binary) << whole.substr(0, bytes);
    BOOST_CHECK_THROW(llm::readTrainerState("state.safetensors"), FormatError);
  }
}

BOOST_AUTO_TEST_CASE(optionsThatContradictThemselvesAreRefused) {
  auto model = tinyModel();
  const auto refused = [&](void (*change)(llm::TrainOptions&)) {
    llm::TrainOptions o = options(9);
    change(o);
    BOOST_CHECK_THROW(Trainer(model, data(3, 1), {}, o), std::invalid_argument);
  };
  refused([](auto& o) { o.steps = 0; });
  refused([](auto& o) { o.accumulation = 0; });
  refused([](auto& o) { o.warmup = 10; });
  refused([](auto& o) { o.patience = 1; });
  refused([](auto& o) { o.clip = -1; });
  const auto refusedSaying = [&](Index microBatch, Index accumulation, const std::string& message) {
    llm::TrainOptions o = options(9);
    o.microBatch = microBatch;
    o.accumulation = accumulation;
    BOOST_CHECK_EXCEPTION(Trainer(model, data(3, 1), {}, o), std::invalid_argument,
                          [&](const auto& e) { return e.what() == "TrainOptions: " + message; });
  };
  constexpr Index kLargest = std::numeric_limits<Index>::max();
  const std::string found = ", found " + std::to_string(kLargest);
  refusedSaying(kLargest, kLargest, "microBatch: expected at most 4, the number of examples, or 4" + found);
  llm::TrainOptions few = options(9);
  few.microBatch = llm::TrainOptions().microBatch;
  few.accumulation = 1;
  BOOST_CHECK_NO_THROW(Trainer(model, data(3, 1), {}, few));
  refusedSaying(2, kLargest, "accumulation: expected at most 2, the micro-batches that 3 examples fill" + found);
  refusedSaying(2, 3, "accumulation: expected at most 2, the micro-batches that 3 examples fill, found 3");
  refused([](auto& o) { o.steps = kLargest; });
  BOOST_CHECK_THROW(Trainer(model, {}, {}, options(9)), std::invalid_argument);
  llm::detachLora(model);
  BOOST_CHECK_THROW(Trainer(model, data(3, 1), {}, options(9)), std::invalid_argument);
}

// ---- processes that are killed

namespace {

constexpr const char* kFolder = "killed";

/** A whole run, or what is left of one, in a process of its own; its end is its last act. */
pid_t startRun() {
  const pid_t process = ::fork();
  if (process != 0) return process;
  int status = 1;
  try {
    constexpr double kDropout = 0.1;
    auto model = tinyModel(kDropout);
    llm::TrainOptions o = options(30);
    o.evaluateEvery = 10;
    o.patience = 3;
    Trainer trainer(model, data(10, 1), data(4, 2), o);
    llm::runTraining(trainer, {std::string(kFolder) + "/state.safetensors", 1, true}, ignore);
    llm::saveAdapter(model, loraConfig(kDropout), std::string(kFolder) + "/adapter");
    status = 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "the run failed: %s\n", e.what());
  }
  ::_exit(status);
}

/** Waits until the run ends; for at most \a milliseconds, after which it is killed. \returns whether it ended. */
bool ended(pid_t process, double milliseconds) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double, std::milli>(milliseconds);
  int status = 0;
  while (::waitpid(process, &status, WNOHANG) == 0) {
    if (Clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      continue;
    }
    ::kill(process, SIGKILL);
    ::waitpid(process, &status, 0);
    break;
  }
  BOOST_TEST((!WIFEXITED(status) || WEXITSTATUS(status) == 0));
  return WIFEXITED(status);
}

std::string adapterBytes() { return readFile(std::string(kFolder) + "/adapter/adapter_model.safetensors"); }

}  // namespace

// EIGENQ_KILLS=100 for more of them.
BOOST_AUTO_TEST_CASE(killedRunsEndAsIfNothingHadHappened) {
  const char* text = std::getenv("EIGENQ_KILLS");
  const int kills = text ? std::atoi(text) : 5;
  constexpr double kLong = 1e6;
  fs::remove_all(kFolder);
  const auto start = std::chrono::steady_clock::now();
  BOOST_REQUIRE(ended(startRun(), kLong));
  const double whole = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  const std::string expected = adapterBytes();
  BOOST_REQUIRE(!expected.empty());
  fs::remove_all(kFolder);

  std::mt19937_64 random(11);
  std::uniform_real_distribution<double> moment(0, 0.7 * whole);
  int finished = 0;
  for (int killed = 0; killed < kills;) {
    if (!ended(startRun(), moment(random))) {
      ++killed;
      const std::string state = std::string(kFolder) + "/state.safetensors";
      if (fs::exists(state)) BOOST_CHECK_NO_THROW(llm::readTrainerState(state));
      continue;
    }
    ++finished;
    BOOST_TEST((adapterBytes() == expected));
    fs::remove_all(kFolder);
  }
  BOOST_REQUIRE(ended(startRun(), kLong));
  BOOST_TEST((adapterBytes() == expected));
  // A leftover or two of the last kill; those of earlier ones are gone.
  int temporary = 0;
  for (const auto& entry : fs::directory_iterator(kFolder)) temporary += entry.path().extension() == ".tmp" ? 1 : 0;
  BOOST_TEST(temporary == 0);
  BOOST_TEST_MESSAGE(kills << " kills, " << finished + 1 << " runs came to their end, " << whole << " ms each");
}
