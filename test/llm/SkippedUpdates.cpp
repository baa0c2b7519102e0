// SPDX-License-Identifier: MPL-2.0
// Updates whose gradient is not finite: what they leave alone, where they show, and when there are too many.
#define BOOST_TEST_MODULE llm_SkippedUpdates
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include <boost/test/unit_test.hpp>

#include <eigen_q/Io>

#include "TinyModel.h"

namespace {

using namespace EigenQ;
using llm::Example;
using Trainer = llm::Trainer<llm::Llama<float>>;

constexpr int kBadToken = 31;
/** Updates of four examples each, of which there are 20: the bad ones are in the second to fourth update of five. */
const std::set<std::size_t> kBadExamples = {5, 9, 14};
const std::vector<Index> kBadUpdates = {2, 3, 4, 7, 8, 9, 12};

/** One token's embedding is infinite, as that of a broken checkpoint or of an activation that overflows. */
class BrokenWeights : public test::TinyWeights {
 public:
  using TinyWeights::TinyWeights;

  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    Eigen::MatrixXf columns = TinyWeights::embedding(name, hidden, vocabulary);
    columns.col(kBadToken).setConstant(std::numeric_limits<float>::infinity());
    return columns;
  }
};

llm::Llama<float> brokenModel() {
  llm::LoadOptions load;
  load.format = llm::WeightFormat::kNF4;
  BrokenWeights weights(test::tinyConfig(llm::LlamaFamily::kMistral), 3, load);  // whose head is not the embedding
  llm::Llama<float> model(weights);
  llm::LoraConfig config;
  config.r = 4;
  config.dropout = 0.1;
  config.targetModules = llm::ModuleFilter::allLinear();
  llm::attachLora(model, config, 7);
  return model;
}

std::vector<Example> data(const std::set<std::size_t>& bad = kBadExamples, std::size_t count = 20) {
  std::mt19937_64 random(1);
  std::vector<Example> examples;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<int> ids(8);
    for (int& id : ids) id = static_cast<int>(random() % kBadToken);
    examples.push_back({{ids.begin(), ids.end() - 1}, {ids.begin() + 1, ids.end()}});
    if (bad.count(i) != 0) examples.back().tokens[3] = kBadToken;
  }
  return examples;
}

llm::TrainOptions options(bool optimizer8bit = false) {
  llm::TrainOptions o;
  o.steps = 12;
  o.microBatch = 2;
  o.accumulation = 2;
  o.shuffle = false;
  o.adamw.learningRate = 0.01;
  o.warmup = 2;
  o.evaluateEvery = 4;
  o.optimizer8bit = optimizer8bit;
  return o;
}

/** Parameters and moments, entry by entry. */
std::vector<float> numbers(Trainer& trainer) {
  std::vector<float> all;
  const auto add = [&all](const auto& m) { all.insert(all.end(), m.data(), m.data() + m.size()); };
  for (const llm::TrainerState::Parameter& p : trainer.state().parameters) {
    add(p.value);
    for (const ad::Moment8bit* moment : {&p.firstMoment, &p.secondMoment}) {
      add(moment->values);
      add(moment->absmax);
      add(moment->codes);
    }
  }
  return all;
}

const auto ignore = [](const Trainer&) {};

}  // namespace

BOOST_AUTO_TEST_CASE(skippedUpdatesLeaveEverythingAlone) {
  for (const bool optimizer8bit : {false, true}) {
    auto model = brokenModel();
    const llm::TrainOptions o = options(optimizer8bit);
    Trainer trainer(model, data(), data({}, 4), o);
    std::vector<float> before = numbers(trainer);
    std::vector<Index> unchanged;
    llm::runTraining(trainer, {}, [&](Trainer& t) {
      const std::vector<float> after = numbers(t);
      if (after == before) unchanged.push_back(t.step());
      before = after;
    });
    const llm::TrainHistory& history = trainer.history();
    BOOST_TEST(history.skipped == kBadUpdates, boost::test_tools::per_element());
    BOOST_TEST(unchanged == kBadUpdates, boost::test_tools::per_element());
    BOOST_TEST(std::isnan(history.trainLoss[1]));
    BOOST_TEST(std::isfinite(history.trainLoss[0]));
    const ad::Schedule schedule = o.schedule();  // which went on
    for (Index step = 0; step < o.steps; ++step)
      BOOST_TEST(history.learningRate[static_cast<std::size_t>(step)] == schedule(step));
    BOOST_TEST(trainer.state().parameters[0].steps == o.steps);
    BOOST_TEST(history.heldOut.back().loss < history.heldOut.front().loss);
  }
}

BOOST_AUTO_TEST_CASE(theNormIsLookedAtWithoutClippingToo) {
  auto model = brokenModel();
  llm::TrainOptions o = options();
  o.clip = 0;
  Trainer trainer(model, data(), {}, o);
  llm::runTraining(trainer, {}, ignore);
  BOOST_TEST(trainer.history().skipped == kBadUpdates, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(resumedRunsSkipWhatOthersSkip) {
  for (const bool optimizer8bit : {false, true}) {
    auto whole = brokenModel();
    Trainer trainer(whole, data(), data({}, 4), options(optimizer8bit));
    llm::runTraining(trainer, {}, ignore);
    for (const Index stop : {1, 2, 3, 5, 8}) {
      auto first = brokenModel(), second = brokenModel();
      Trainer before(first, data(), data({}, 4), options(optimizer8bit));
      while (before.step() < stop) before.advance();
      llm::writeTrainerState(before.state(), "skipped.safetensors");
      Trainer after(second, data(), data({}, 4), options(optimizer8bit));
      llm::runTraining(after, {"skipped.safetensors", 0, true}, ignore);
      BOOST_TEST((numbers(after) == numbers(trainer)));
      BOOST_TEST(after.history().skipped == kBadUpdates, boost::test_tools::per_element());
      BOOST_TEST(after.history().heldOut.back().loss == trainer.history().heldOut.back().loss);
    }
  }
}

BOOST_AUTO_TEST_CASE(runsThatSkipTooMuchEnd) {
  const auto endsSaying = [](const std::vector<Example>& examples, Index most, Index stop, const std::string& message) {
    llm::TrainOptions o = options();
    o.mostSkipped = most;
    auto first = brokenModel(), second = brokenModel();
    Trainer before(first, examples, {}, o), after(second, examples, {}, o);
    while (before.step() < stop) before.advance();
    after.setState(before.state());
    BOOST_CHECK_EXCEPTION(llm::runTraining(after, {}, ignore), std::runtime_error, [&](const std::runtime_error& e) {
      BOOST_TEST_MESSAGE(e.what());
      return std::string(e.what()).rfind(message, 0) == 0;
    });
  };
  const std::string found = ": the gradient is not finite, its norm NaN, the loss NaN; expected at most ";
  for (const Index stop : {0, 3})  // in a row, whoever made them
    endsSaying(data(), 2, stop, "step 4" + found + "2 such steps in a row, found 3, from step 2 on; try ");
  endsSaying(data(), 0, 0, "step 2" + found + "0 such steps in a row, found 1, from step 2 on; try ");
  std::set<std::size_t> all;
  for (std::size_t i = 0; i < 20; ++i) all.insert(i);
  endsSaying(data(all), llm::TrainOptions().mostSkipped, 0, "step 11" + found + "10 such steps in a row");
}

BOOST_AUTO_TEST_CASE(filesSayWhatWasSkippedWhereSomethingWas) {
  for (const bool bad : {false, true}) {
    auto model = brokenModel();
    Trainer trainer(model, bad ? data() : data({}), {}, options());
    while (trainer.step() < 2) trainer.advance();
    llm::writeTrainerState(trainer.state(), "some.safetensors");
    BOOST_TEST(io::SafetensorsFile("some.safetensors").has("history.skipped") == bad);  // as in files of before
    BOOST_TEST(llm::readTrainerState("some.safetensors").history.skipped.size() == (bad ? 1u : 0u));
  }
  auto model = brokenModel();
  Trainer trainer(model, data(), {}, options());
  llm::TrainerState state = trainer.state();
  state.history.skipped = {1};  // of no update
  llm::writeTrainerState(state, "some.safetensors");
  BOOST_CHECK_THROW(llm::readTrainerState("some.safetensors"), FormatError);
}
