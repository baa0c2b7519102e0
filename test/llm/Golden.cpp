// SPDX-License-Identifier: MPL-2.0
// Models that transformers wrote, against the logits that transformers computed: test/golden/record_llm.py.
#define BOOST_TEST_MODULE llm_Golden
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Llm>

#include "support/TemporaryFolder.h"

namespace {

using namespace EigenQ;

constexpr double kTolerance = 2e-5;  // float against float in another order; seen: 8.6e-6, with portable kernels 1.0e-5

const std::vector<std::string> kModels = {"llama", "mistral", "qwen2", "llama-nf4", "llama-int8"};

std::string folder(const std::string& name) { return EIGENQ_TEST_DATA_DIR "/llm/" + name; }

/** The two recorded sequences with their logits, vocabulary×tokens. */
struct Expected {
  explicit Expected(const std::string& name) : file(folder(name) + "/expected.safetensors") {
    for (const std::string i : {"0", "1"}) {
      const auto ids = io::toVector<int>(file.at("tokens." + i));
      tokens.emplace_back(ids.data(), ids.data() + ids.size());
      logits.push_back(io::toMatrix<float>(file.at("logits." + i)).transpose());
    }
  }

  io::SafetensorsFile file;
  std::vector<std::vector<int>> tokens;
  std::vector<Eigen::MatrixXf> logits;
};

/** With int8 weights multiplied as they are: the recorded logits are those of decoded weights. */
llm::Llama<float> load(const std::string& name, const std::string& from) {
  llm::LoadOptions options;
  if (name == "llama-int8") options.format = llm::WeightFormat::kInt8;
  return llm::loadLlama(from, options);
}
llm::Llama<float> load(const std::string& name) { return load(name, folder(name)); }

Eigen::MatrixXf logitsOf(llm::Llama<float>& model, const llm::Batch& batch) {
  ad::Tape<float> tape;
  return model.logits(model.features(tape, batch)).value();
}

}  // namespace

BOOST_DATA_TEST_CASE(logitsAreThoseOfTransformers, boost::unit_test::data::make(kModels), name) {
  auto model = load(name);
  const Expected expected(name);
  for (std::size_t i = 0; i < expected.tokens.size(); ++i) {
    const Eigen::MatrixXf found = logitsOf(model, llm::pack({expected.tokens[i]}));
    BOOST_TEST((found - expected.logits[i]).cwiseAbs().maxCoeff() <= kTolerance);
  }
}

// Activations in int8 cost as much as in bitsandbytes, whose logits for these models are off by 0.045 and 0.040, root
// mean square, of a deviation of 2.1.
BOOST_AUTO_TEST_CASE(int8CheckpointsMultiplyByLlmInt8) {
  auto model = llm::loadLlama(folder("llama-int8"));
  const Expected expected("llama-int8");
  for (std::size_t i = 0; i < expected.tokens.size(); ++i) {
    const Eigen::MatrixXf error = logitsOf(model, llm::pack({expected.tokens[i]})) - expected.logits[i];
    const double rms = std::sqrt(error.squaredNorm() / static_cast<float>(error.size()));
    BOOST_TEST_CONTEXT("root mean square " << rms) BOOST_TEST((rms > 0.02 && rms < 0.08));
  }
}

BOOST_DATA_TEST_CASE(packedSequencesDoNotSeeEachOther, boost::unit_test::data::make(kModels), name) {
  auto model = load(name);
  const Expected expected(name);
  const Eigen::MatrixXf found = logitsOf(model, llm::pack(expected.tokens));
  const Index n = expected.logits[0].cols();
  BOOST_TEST((found.leftCols(n) - expected.logits[0]).cwiseAbs().maxCoeff() <= kTolerance);
  BOOST_TEST((found.rightCols(found.cols() - n) - expected.logits[1]).cwiseAbs().maxCoeff() <= kTolerance);
}

// theirs are rounded to float, and computed in float: a few ulps.
BOOST_DATA_TEST_CASE(frequenciesAreThoseOfTransformers, boost::unit_test::data::make(kModels), name) {
  const auto config = llm::LlamaConfig::fromFile(folder(name) + "/config.json");
  const Eigen::VectorXd found = config.ropeFrequencies();
  const auto expected = io::toVector<float>(Expected(name).file.at("inv_freq"), found.size());
  BOOST_TEST((found.array() / expected.cast<double>().array() - 1).abs().maxCoeff() < 1e-6);
}

BOOST_DATA_TEST_CASE(savedModelsComputeTheSame, boost::unit_test::data::make(kModels), name) {
  auto model = load(name);
  const test::TemporaryFolder copy;
  llm::saveLlama(model, copy.path());
  auto again = load(name, copy.path());
  const llm::Batch batch = llm::pack(Expected(name).tokens);
  BOOST_TEST((logitsOf(again, batch) - logitsOf(model, batch)).cwiseAbs().maxCoeff() == 0);
  BOOST_TEST(again.config().toJson() == llm::LlamaConfig::fromFile(copy.path("config.json")).toJson());
}
