// SPDX-License-Identifier: MPL-2.0
// The decoder of examples/finetune: variants of its weights, sharded training, generation.
#define BOOST_TEST_MODULE examplesModel
#include <boost/test/unit_test.hpp>

#include <sstream>

#include "examples/finetune/Report.h"
#include "examples/finetune/Sample.h"
#include "examples/finetune/Trainer.h"

using namespace finetune;

namespace {

ModelOptions smallModel() {
  ModelOptions o;
  o.hidden = 32;
  o.layers = 2;
  o.heads = 4;
  o.kvHeads = 2;
  o.ffn = 64;
  o.context = 8;
  return o;
}

TrainOptions shortTraining(Index shards) {
  TrainOptions o;
  o.steps = 12;
  o.batch = 4;
  o.shards = shards;
  o.learningRate = 1e-2;
  return o;
}

const std::string kText = [] {
  std::string text;
  while (text.size() < 400) text += "abcdefgh ";
  return text;
}();

Model<Host> nf4Of(const Model<Host>& model) {
  return model.withWeights([](const Weight<Host>& w) -> Weight<Host> {
    return EigenQ::NF4Matrix(std::get<Parameter<Host>>(w).value(), 32, EigenQ::Statistics::kNested);
  });
}

/** The dense model of the same values. */
Model<Host> dequantised(const Model<Host>& model) {
  return model.withWeights([](const Weight<Host>& w) -> Weight<Host> {
    return Parameter<Host>(Eigen::MatrixXf(std::get<EigenQ::NF4Matrix>(w)), "dequantised", false);
  });
}

std::vector<double> losses(Model<Host>& model, const TrainOptions& options) {
  Trainer<Host> trainer(model, kText, options);
  for (Index i = 0; i < options.steps; ++i) trainer.step();
  return trainer.takeLosses();
}

}  // namespace

BOOST_AUTO_TEST_CASE(anUntrainedModelKnowsNothing) {
  Model<Host> model(smallModel(), 1);
  // Scores of variance 1: log E exp(score) = 1/2 above that of a uniform guess.
  BOOST_TEST(heldOutLoss(model, kText, 1) == std::log(256.0) + 0.5, boost::test_tools::tolerance(0.15));
}

BOOST_AUTO_TEST_CASE(quantisedModelsComputeWhatTheirValuesSay) {
  const Model<Host> model(smallModel(), 1);
  Model<Host> nf4 = nf4Of(model), dense = dequantised(nf4);
  // Two float forward passes of one function in different orders of summation.
  BOOST_TEST(heldOutLoss(nf4, kText, 1) == heldOutLoss(dense, kText, 1), boost::test_tools::tolerance(1e-5));
  const Variant v = measure("NF4", nf4, 1);
  BOOST_TEST(v.weights == 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64) + 256 * 32);
  BOOST_TEST(v.bytes > v.weights / 2);
}

BOOST_AUTO_TEST_CASE(trainingLearns) {
  Model<Host> model(smallModel(), 1);
  const std::vector<double> all = losses(model, shortTraining(1));
  BOOST_TEST(all.back() < 0.7 * all.front());
}

BOOST_AUTO_TEST_CASE(lossesMayBeTakenNowAndThen) {
  Model<Host> one(smallModel(), 1), two(smallModel(), 1);
  const TrainOptions options = shortTraining(2);
  const std::vector<double> expected = losses(one, options);
  Trainer<Host> trainer(two, kText, options);
  BOOST_TEST(trainer.takeLosses().empty());
  std::vector<double> found;
  for (Index i = 1; i <= options.steps; ++i) {
    trainer.step();
    if (i % 5 != 0 && i != options.steps) continue;
    for (const double loss : trainer.takeLosses()) found.push_back(loss);
  }
  BOOST_TEST(found == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(aLossThatIsNoNumberNamesItsStep) {
  Model<Host> model(smallModel(), 1);
  TrainOptions options = shortTraining(2);
  options.learningRate = 1e30;
  BOOST_CHECK_EXCEPTION(losses(model, options), std::runtime_error, [](const std::exception& e) {
    return std::string(e.what()).find("step 2: the loss is not finite") != std::string::npos;
  });
}

BOOST_AUTO_TEST_CASE(lossesDoNotDependOnThreads) {
  Model<Host> one(smallModel(), 1), two(smallModel(), 1);
  TrainOptions options = shortTraining(4);
  const std::vector<double> expected = losses(one, options);
  options.threads = 3;
  BOOST_TEST(losses(two, options) == expected, boost::test_tools::per_element());
  BOOST_TEST(heldOutLoss(one, kText, 1) == heldOutLoss(two, kText, 3));
}

BOOST_AUTO_TEST_CASE(shardsAddUpToTheWholeBatch) {
  Model<Host> one(smallModel(), 1), four(smallModel(), 1);
  const double whole = losses(one, shortTraining(1))[1], shards = losses(four, shortTraining(4))[1];
  // After one update, by gradients that differ in rounding only.
  BOOST_TEST(whole == shards, boost::test_tools::tolerance(1e-4));
}

BOOST_AUTO_TEST_CASE(freshAdaptersChangeNothing) {
  Model<Host> model = nf4Of(Model<Host>(smallModel(), 1));
  const double before = heldOutLoss(model, kText, 1);
  attachAdapters(model, {4, 8, 0.5}, 1);
  BOOST_TEST(heldOutLoss(model, kText, 1) == before);  // 0.5: and dropout is off where nobody trains
}

BOOST_AUTO_TEST_CASE(fineTuningMovesAdaptersOnly) {
  Model<Host> model = nf4Of(Model<Host>(smallModel(), 1));
  attachAdapters(model, {4, 8, 0.1}, 1);
  const std::uint64_t frozen = frozenChecksum(model);
  BOOST_TEST(model.trainable().size() == 2u * (2 * 7 + 1));
  const std::vector<double> all = losses(model, shortTraining(2));
  BOOST_TEST(all.back() < 0.9 * all.front());
  BOOST_TEST(frozenChecksum(model) == frozen);
}

BOOST_AUTO_TEST_CASE(checksumSeesOneBit) {
  Model<Host> model = nf4Of(Model<Host>(smallModel(), 1));
  attachAdapters(model, {4, 8, 0}, 1);
  const std::uint64_t frozen = frozenChecksum(model);
  bool first = true;
  model.forEachLinear([&first](Linear<Host>& linear) {
    if (!std::exchange(first, false)) return;
    const auto& w = std::get<EigenQ::NF4Matrix>(linear.weight);
    EigenQ::ByteVector packed = w.packed();
    packed(packed.size() - 1) = static_cast<std::uint8_t>(packed(packed.size() - 1) ^ 1);
    linear.weight = EigenQ::NF4Matrix(packed, w.state());
  });
  BOOST_TEST(frozenChecksum(model) != frozen);
}

BOOST_AUTO_TEST_CASE(drawsFollowTheScores) {
  const Eigen::Vector3f scores(0, static_cast<float>(std::log(3.0)), -100);
  std::mt19937_64 random(1);
  int second = 0;
  for (int i = 0; i < 4000; ++i) {
    const Index drawn = draw(scores, 1, random);
    BOOST_TEST_REQUIRE(drawn < 2);
    second += static_cast<int>(drawn);
  }
  BOOST_TEST(std::abs(second - 3000) < 137);  // five standard deviations of 4000 draws at 3/4: 5·√750
  BOOST_TEST(draw(scores, 0, random) == 1);
}

BOOST_AUTO_TEST_CASE(samplesContinueThePromptReproducibly) {
  Model<Host> model(smallModel(), 1);
  const std::string text = generate(model, "begin", 20, 0.8, 7);  // longer than the context
  BOOST_TEST(text.size() == 25u);
  BOOST_TEST(text.substr(0, 5) == "begin");
  BOOST_TEST(text == generate(model, "begin", 20, 0.8, 7));
  BOOST_TEST(text != generate(model, "begin", 20, 0.8, 8));
}

BOOST_AUTO_TEST_CASE(whatStandsBehindAPromptDoesNotMatter) {
  Model<Host> model(smallModel(), 1);
  const auto logits = [&model](Index columns) {
    EigenQ::ad::Tape<float> tape;
    return Eigen::VectorXf(model.logits(model.features(tape, prompt("abc", columns))).value().col(2));
  };
  BOOST_TEST((logits(3) - logits(8)).cwiseAbs().maxCoeff() < 1e-5f);
}

BOOST_AUTO_TEST_CASE(tablesCompareWithTheFirstRow) {
  std::ostringstream out;
  printTable(out, {{"float", 1000, 4000, 8}, {"half", 1000, 2000, 9}});
  BOOST_TEST(out.str() ==
             "variant        bytes   bits/weight   perplexity   change\n"
             "float           4000         32.00       8.0000  +0.00 %\n"
             "half            2000         16.00       9.0000 +12.50 %\n");
}
