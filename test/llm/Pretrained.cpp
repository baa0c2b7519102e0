// SPDX-License-Identifier: MPL-2.0
// Folders of checkpoints: every format written and read, quantised on the way, and what is wrong named.
#define BOOST_TEST_MODULE llm_Pretrained
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <functional>
#include <limits>
#include <map>

#include <eigen_q/Io>

#include "TinyModel.h"
#include "support/TemporaryFolder.h"

namespace {

using namespace EigenQ;
using llm::LoadOptions;
using llm::WeightFormat;
using test::Model;
using Folder = test::TemporaryFolder;
namespace bdata = boost::unit_test::data;
namespace fs = std::filesystem;

const std::vector<int> kTokens = {1, 5, 9, 2, 2, 7, 30};

LoadOptions format(WeightFormat f, Statistics statistics = Statistics::kPlain) {
  LoadOptions options;
  options.format = f;
  options.statistics = statistics;
  return options;
}

bool sameLogits(Model& a, Model& b) {
  return (test::logitsOf(a, kTokens) - test::logitsOf(b, kTokens)).cwiseAbs().maxCoeff() == 0;
}

/** A dense checkpoint with its tensors changed by \a change before it is written. */
using Change = std::function<void(std::map<std::string, Eigen::MatrixXf>&)>;
void writeChanged(const std::string& folder, const Change& change) {
  Model model = test::tinyModel(llm::LlamaFamily::kQwen2);
  llm::saveLlama(model, folder);
  std::map<std::string, Eigen::MatrixXf> tensors;
  {
    const io::Checkpoint checkpoint(folder);
    for (const std::string& name : checkpoint.names()) {
      const io::TensorView& tensor = checkpoint.at(name);
      if (tensor.shape.size() == 2)
        tensors[name] = io::toMatrix<float>(tensor);
      else
        tensors[name] = io::toVector<float>(tensor);
    }
  }
  change(tensors);
  io::SafetensorsWriter writer;
  for (const auto& [name, value] : tensors)
    value.cols() == 1 ? writer.add(name, Eigen::VectorXf(value.col(0))) : writer.add(name, value);
  io::writeCheckpoint(writer, folder);
}

struct Wrong {
  const char* key;
  const char* message;
  Change change;
  friend std::ostream& operator<<(std::ostream& os, const Wrong& w) { return os << w.key << ": " << w.message; }
};
constexpr const char* kQuery = "model.layers.1.self_attn.q_proj.weight";
const std::vector<Wrong> kWrong = {
    {kQuery, "", [](auto& t) { t.erase(kQuery); }},
    {kQuery, "[23, 24]", [](auto& t) { t[kQuery] = Eigen::MatrixXf::Zero(23, 24); }},
    {"model.norm.weight", "[25]", [](auto& t) { t["model.norm.weight"] = Eigen::VectorXf::Ones(25); }},
    {"model.layers.0.self_attn.k_proj.bias", "", [](auto& t) { t.erase("model.layers.0.self_attn.k_proj.bias"); }},
    {"model.embed_tokens.weight", "[31, 24]",
     [](auto& t) { t["model.embed_tokens.weight"] = Eigen::MatrixXf::Zero(31, 24); }},
    {"model.layers.3.input_layernorm.weight", "no part of this architecture",
     [](auto& t) { t["model.layers.3.input_layernorm.weight"] = Eigen::VectorXf::Ones(24); }},
    {"model.layers.0.self_attn.o_proj.bias", "no part of this architecture",
     [](auto& t) { t["model.layers.0.self_attn.o_proj.bias"] = Eigen::VectorXf::Ones(24); }},
};

}  // namespace

BOOST_DATA_TEST_CASE(tensorsThatDoNotFitAreNamed, bdata::make(kWrong), wrong) {
  const Folder folder;
  writeChanged(folder.path(), wrong.change);
  BOOST_CHECK_EXCEPTION(llm::loadLlama(folder.path()), FormatError, [&](const FormatError& e) {
    BOOST_TEST_CONTEXT(e.what()) {
      BOOST_TEST(e.key() == wrong.key);
      BOOST_TEST(std::string(e.what()).find(wrong.message) != std::string::npos);
    }
    return true;
  });
}

BOOST_AUTO_TEST_CASE(buffersOfOlderVersionsAreIgnored) {
  const Folder folder;
  writeChanged(folder.path(),
               [](auto& t) { t["model.layers.0.self_attn.rotary_emb.inv_freq"] = Eigen::VectorXf::Ones(3); });
  Model original = test::tinyModel(llm::LlamaFamily::kQwen2), loaded = llm::loadLlama(folder.path());
  BOOST_TEST(sameLogits(original, loaded));
}

BOOST_AUTO_TEST_CASE(weightsThatAreNotFiniteAreNotQuantised) {
  const Folder folder;
  writeChanged(folder.path(), [](auto& t) { t[kQuery](3, 4) = std::numeric_limits<float>::infinity(); });
  BOOST_CHECK_EXCEPTION(llm::loadLlama(folder.path(), format(WeightFormat::kNF4)), FormatError,
                        [](const FormatError& e) { return e.key() == kQuery; });
}

BOOST_AUTO_TEST_CASE(everyFormatIsReadAsItWasWritten) {
  const LoadOptions formats[] = {format(WeightFormat::kDense), format(WeightFormat::kLlmInt8),
                                 format(WeightFormat::kNF4), format(WeightFormat::kFP4),
                                 format(WeightFormat::kNF4, Statistics::kNested)};
  for (const LoadOptions& f : formats) {
    const Folder folder;
    Model original = test::tinyModel(llm::LlamaFamily::kLlama, 2, f);
    llm::saveLlama(original, folder.path());
    Model loaded = llm::loadLlama(folder.path());
    BOOST_TEST(sameLogits(original, loaded));
    BOOST_TEST(loaded.sizeInBytes() == original.sizeInBytes());
    BOOST_TEST(loaded.config().quantization.has_value() == (f.format != WeightFormat::kDense));
    Model decoded = llm::loadLlama(folder.path(), format(WeightFormat::kDense));
    BOOST_TEST(!decoded.layers()[0].up.isQuantized());
  }
}

BOOST_AUTO_TEST_CASE(whatIsQuantisedIsNotQuantisedAgain) {
  const Folder folder;
  Model original = test::tinyModel(llm::LlamaFamily::kLlama, 2, format(WeightFormat::kNF4));
  llm::saveLlama(original, folder.path());
  for (const auto f : {WeightFormat::kInt8, WeightFormat::kLlmInt8, WeightFormat::kFP4})
    BOOST_CHECK_THROW(llm::loadLlama(folder.path(), format(f)), FormatError);
  Model same = llm::loadLlama(folder.path(), format(WeightFormat::kNF4));
  BOOST_TEST(sameLogits(original, same));
}

// Quantised while it is loaded, a model is what it is when its weights were quantised before.
BOOST_AUTO_TEST_CASE(loadingQuantises) {
  const Folder folder;
  Model dense = test::tinyModel(llm::LlamaFamily::kQwen2, 2);
  llm::saveLlama(dense, folder.path());
  for (const auto f : {WeightFormat::kInt8, WeightFormat::kLlmInt8, WeightFormat::kNF4, WeightFormat::kFP4}) {
    Model before = test::tinyModel(llm::LlamaFamily::kQwen2, 2, format(f)),
          loaded = llm::loadLlama(folder.path(), format(f));
    BOOST_TEST(sameLogits(before, loaded));
  }
  LoadOptions some = format(WeightFormat::kNF4);
  some.skipModules = {"self_attn", "model.layers.1.mlp.up_proj"};
  Model partly = llm::loadLlama(folder.path(), some);
  BOOST_TEST(partly.head()->isQuantized());
  BOOST_TEST(!partly.layers()[2].key.isQuantized());
  BOOST_TEST(!partly.layers()[1].up.isQuantized());
  BOOST_TEST(partly.layers()[0].up.isQuantized());
  llm::saveLlama(partly, folder.path());  // over what it came from
  Model again = llm::loadLlama(folder.path());
  BOOST_TEST(sameLogits(partly, again));
  BOOST_TEST(!again.layers()[1].up.isQuantized());
}

BOOST_AUTO_TEST_CASE(largeModelsAreShards) {
  const Folder folder;
  Model original = test::tinyModel(llm::LlamaFamily::kMistral);
  llm::SaveOptions options;
  options.maxShardBytes = 4000;
  llm::saveLlama(original, folder.path(), options);
  BOOST_TEST(fs::exists(fs::path(folder.path()) / "model.safetensors.index.json"));
  Model loaded = llm::loadLlama(folder.path());
  BOOST_TEST(sameLogits(original, loaded));
}

BOOST_AUTO_TEST_CASE(sixteenBitsAreRoundedOnce) {
  const Folder folder, again;
  Model original = test::tinyModel(llm::LlamaFamily::kMistral);
  for (const char* dtype : {"bfloat16", "float16"}) {
    llm::SaveOptions options;
    options.dtype = dtype;
    llm::saveLlama(original, folder.path(), options);
    Model loaded = llm::loadLlama(folder.path());
    BOOST_TEST(loaded.config().dtype == dtype);
    const Eigen::MatrixXf w = loaded.embedding().toHost(), o = original.embedding().toHost();
    BOOST_TEST((w == (*dtype == 'b' ? o.cast<Eigen::bfloat16>().cast<float>().eval()
                                    : o.cast<Eigen::half>().cast<float>().eval())));
    llm::saveLlama(loaded, again.path());  // in its own type: nothing is lost
    Model twice = llm::loadLlama(again.path());
    BOOST_TEST(sameLogits(loaded, twice));
  }
  llm::SaveOptions wrong;
  wrong.dtype = "int4";
  BOOST_CHECK_THROW(llm::saveLlama(original, folder.path(), wrong), FormatError);
}

BOOST_AUTO_TEST_CASE(formatsSideBySideAreRefused) {
  const Folder folder;
  Model model = test::tinyModel(llm::LlamaFamily::kLlama, 1, format(WeightFormat::kNF4));
  model.layers()[0].up.setWeight(Int8Matrix(Eigen::MatrixXf::Random(20, 24)));
  BOOST_CHECK_EXCEPTION(llm::saveLlama(model, folder.path()), FormatError,
                        [](const FormatError& e) { return e.key() == "model.layers.0.mlp.up_proj"; });
  BOOST_TEST(fs::is_empty(folder.path()));
}
