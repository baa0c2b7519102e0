// SPDX-License-Identifier: MPL-2.0
// Fine-tuning on the device: the host's losses, runs that are resumed, 16 bits, adapters to files and back.
#define BOOST_TEST_MODULE cuda_Training
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <random>

#include <unsupported/eigen_q/LlmCuda>

#include "Device.h"
#include "llm/TinyModel.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;
template <typename Scalar>
using DeviceModel = llm::Llama<Scalar, ad::Device>;

namespace {

/** Sequences in which each token is often the one before, plus one. */
std::vector<llm::Example> data(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<llm::Example> examples;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<int> ids = {static_cast<int>(random() % 32)};
    while (ids.size() < 7 + i % 6)
      ids.push_back(random() % 8 == 0 ? static_cast<int>(random() % 32) : (ids.back() + 1) % 32);
    examples.push_back({{ids.begin(), ids.end() - 1}, {ids.begin() + 1, ids.end()}});
  }
  return examples;
}

llm::LoraConfig lora(double dropout = 0) {
  llm::LoraConfig config;
  config.r = 4;
  config.dropout = dropout;
  config.targetModules = llm::ModuleFilter::allLinear();
  return config;
}

template <typename M>
M adapted(double dropout = 0) {
  llm::LoadOptions nf4;
  nf4.format = llm::WeightFormat::kNF4;
  M model = tinyModel<M>(llm::LlamaFamily::kLlama, 3, nf4);
  llm::attachLora(model, lora(dropout), 7);
  return model;
}

llm::TrainOptions options(Index steps) {
  llm::TrainOptions o;
  o.steps = steps;
  o.microBatch = 2;
  o.accumulation = 2;
  o.adamw.learningRate = 0.01;
  o.warmup = 2;
  o.evaluateEvery = 5;
  return o;
}

const auto ignore = [](const auto&) {};

template <typename M>
llm::TrainHistory train(M& model, const llm::TrainOptions& o) {
  llm::Trainer<M> trainer(model, data(20, 1), data(6, 2), o);
  llm::runTraining(trainer, {}, ignore);
  return trainer.history();
}

template <typename M>
std::vector<Eigen::MatrixXf> parameters(M& model) {
  std::vector<Eigen::MatrixXf> all;
  for (const auto* p : model.trainable()) all.push_back(M::Place::toHost(p->value()));
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(lossesAreThoseOfTheHost, *needsDevice()) {
  auto host = adapted<llm::Llama<float>>();
  auto device = adapted<DeviceModel<float>>();
  const llm::TrainHistory expected = train(host, options(25)), found = train(device, options(25));
  BOOST_REQUIRE(found.trainLoss.size() == 25u);  // more than are looked at together
  BOOST_REQUIRE(found.heldOut.size() == expected.heldOut.size());
  for (std::size_t i = 0; i < found.trainLoss.size(); ++i)
    BOOST_TEST(found.trainLoss[i] == expected.trainLoss[i], boost::test_tools::tolerance(1e-3));
  for (std::size_t i = 0; i < found.heldOut.size(); ++i)
    BOOST_TEST(found.heldOut[i].loss == expected.heldOut[i].loss, boost::test_tools::tolerance(1e-3));
}

BOOST_AUTO_TEST_CASE(resumedRunsAreThoseThatWereNotStopped, *needsDevice()) {
  using Model = DeviceModel<Eigen::bfloat16>;
  const TemporaryFolder folder;
  for (const bool optimizer8bit : {false, true}) {
    llm::TrainOptions o = options(30);
    o.optimizer8bit = optimizer8bit;
    o.checkpointLayers = optimizer8bit;
    Model whole = adapted<Model>(0.1), first = adapted<Model>(0.1), second = adapted<Model>(0.1);
    const llm::TrainHistory expected = train(whole, o);
    llm::Trainer<Model> before(first, data(20, 1), data(6, 2), o);
    while (before.step() < 13) before.advance();
    const std::string path = folder.path("state.safetensors");
    llm::writeTrainerState(before.state(), path);
    llm::Trainer<Model> after(second, data(20, 1), data(6, 2), o);
    llm::runTraining(after, {path, 0, true}, ignore);
    BOOST_TEST((parameters(second) == parameters(whole)));
    BOOST_TEST(after.history().trainLoss == expected.trainLoss);
    BOOST_TEST(after.history().heldOut.back().loss == expected.heldOut.back().loss);
  }
}

BOOST_AUTO_TEST_CASE(halfLearnsWithAScaledLoss, *needsDevice()) {
  auto model = adapted<DeviceModel<Eigen::half>>();
  llm::TrainOptions o = options(60);
  o.lossScale = 1024;
  const llm::TrainHistory history = train(model, o);
  BOOST_TEST(history.heldOut.back().loss < history.heldOut.front().loss - 0.5);
}

BOOST_AUTO_TEST_CASE(statesKnowTheBaseModelAndTheScalarOfActivations, *needsDevice()) {
  auto host = adapted<llm::Llama<float>>();
  auto wide = adapted<DeviceModel<float>>();
  auto narrow = adapted<DeviceModel<Eigen::bfloat16>>();
  BOOST_TEST(wide.checksum() == host.checksum());
  BOOST_TEST(narrow.checksum() == host.checksum());  // of what was read, before it was rounded
  llm::Trainer<llm::Llama<float>> onHost(host, data(20, 1), data(6, 2), options(30));
  onHost.advance();
  llm::Trainer<DeviceModel<float>> onDevice(wide, data(20, 1), data(6, 2), options(30));
  BOOST_CHECK_NO_THROW(onDevice.setState(onHost.state()));
  llm::Trainer<DeviceModel<Eigen::bfloat16>> rounded(narrow, data(20, 1), data(6, 2), options(30));
  BOOST_CHECK_EXCEPTION(rounded.setState(onHost.state()), FormatError, [](const FormatError& e) {
    return e.key() == std::string("model_bytes") || e.key() == std::string("activations");
  });
}

// A scale that overflows half in every update: the run learns nothing and says so, at the next look.
BOOST_AUTO_TEST_CASE(overflowsOfHalfAreSkippedAndCounted, *needsDevice()) {
  auto model = adapted<DeviceModel<Eigen::half>>();
  llm::TrainOptions o = options(60);
  o.lossScale = 1e30;
  o.mostSkipped = 60;
  const auto before = parameters(model);
  BOOST_TEST(train(model, o).skipped.size() == 60u);
  BOOST_TEST((parameters(model) == before));
  o.mostSkipped = llm::TrainOptions().mostSkipped;
  BOOST_CHECK_EXCEPTION(train(model, o), std::runtime_error, [](const std::runtime_error& e) {
    return std::string(e.what()).rfind("step 11: the gradient is not finite", 0) == 0;
  });
}

BOOST_AUTO_TEST_CASE(adaptersGoToFilesAndBack, *needsDevice()) {
  const TemporaryFolder folder;
  auto device = adapted<DeviceModel<Eigen::bfloat16>>();
  train(device, options(10));
  llm::saveAdapter(device, lora(), folder.path("device"));
  auto host = adapted<llm::Llama<float>>();
  llm::loadAdapter(host, folder.path("device"));
  BOOST_TEST((parameters(host) == parameters(device)));
  llm::saveAdapter(host, lora(), folder.path("host"));
  const std::string file = "/adapter_model.safetensors";
  BOOST_TEST((readFile(folder.path("host") + file) == readFile(folder.path("device") + file)));
}
