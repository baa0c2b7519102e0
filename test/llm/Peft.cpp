// SPDX-License-Identifier: MPL-2.0
// Adapters in PEFT's folders, against what PEFT itself computes with them (test/golden/record_peft.py), and merging.
#define BOOST_TEST_MODULE llm_Peft
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <new>

#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Llm>

namespace {

using namespace EigenQ;
using boost::unit_test::data::make;
namespace fs = std::filesystem;

constexpr double kTolerance = 1e-5;  // float against float, logits of a few units

const std::vector<std::string> kBases = {"llama", "mistral", "qwen2"};

std::string golden(const std::string& name) { return EIGENQ_TEST_DATA_DIR "/llm/" + name; }

Eigen::MatrixXf logitsOf(llm::Llama<float>& model, const std::vector<int>& tokens) {
  ad::Tape<float> tape;
  return model.logits(model.features(tape, llm::pack({tokens}))).value();
}

std::vector<int> tokens(const std::string& base, int i) {
  const io::SafetensorsFile file(golden(base) + "/expected.safetensors");
  const auto ids = io::toVector<int>(file.at("tokens." + std::to_string(i)));
  return {ids.data(), ids.data() + ids.size()};
}

/** The largest difference from the logits that PEFT computed. */
float deviation(llm::Llama<float>& model, const std::string& base) {
  const io::SafetensorsFile file(golden("peft-" + base) + "/expected.safetensors");
  float largest = 0;
  for (int i = 0; i < 2; ++i) {
    const Eigen::MatrixXf expected = io::toMatrix<float>(file.at("logits." + std::to_string(i))).transpose();
    largest = std::max(largest, (logitsOf(model, tokens(base, i)) - expected).cwiseAbs().maxCoeff());
  }
  return largest;
}

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/** A config with one member replaced. */
std::string withMember(const std::string& key, const std::string& value) {
  nlohmann::json json = nlohmann::json::parse(llm::LoraConfig().toJson());
  json[key] = nlohmann::json::parse(value);
  return json.dump();
}

/** B as training would leave it. */
void disturb(llm::Llama<float>& model, float size) {
  std::srand(3);
  model.forEachLinear([size](llm::Linear<float>& linear) {
    if (!linear.adapter()) return;
    auto& b = linear.adapter()->b;
    b.mutableValue() = size * Eigen::MatrixXf::Random(b.rows(), b.cols());
  });
}

llm::Llama<float> adapted(const std::string& base, const llm::LoadOptions& options = {}) {
  auto model = llm::loadLlama(golden(base), options);
  llm::LoraConfig config;
  config.targetModules = llm::ModuleFilter::allLinear();
  llm::attachLora(model, config, 5);
  disturb(model, 0.2f);
  return model;
}

}  // namespace

BOOST_DATA_TEST_CASE(logitsAreThoseOfPeft, make(kBases), base) {
  auto model = llm::loadLlama(golden(base));
  llm::loadAdapter(model, golden("peft-" + base));
  BOOST_TEST(deviation(model, base) <= kTolerance);
}

BOOST_DATA_TEST_CASE(savedAdaptersAreThoseThatWereLoaded, make(kBases), base) {
  auto model = llm::loadLlama(golden(base));
  const llm::LoraConfig config = llm::loadAdapter(model, golden("peft-" + base));
  const std::string folder = "saved-peft-" + base;
  llm::saveAdapter(model, config, folder);
  // Byte for byte what PEFT wrote: names, shapes, order, metadata.
  BOOST_TEST((readFile(folder + "/adapter_model.safetensors") ==
              readFile(golden("peft-" + base) + "/adapter_model.safetensors")));
  auto again = llm::loadLlama(golden(base));
  llm::loadAdapter(again, folder);
  BOOST_TEST(deviation(again, base) <= kTolerance);
}

BOOST_AUTO_TEST_CASE(patternsMatchAsInPeft) {
  llm::LoraConfig config;
  config.rankPattern = {{"q_proj", 2}, {"layers.1.mlp.*", 3}, {"^model\\.layers\\.(2|3)\\.self_attn\\.v_proj", 5}};
  BOOST_TEST(config.rankOf("model.layers.0.self_attn.q_proj") == 2);
  BOOST_TEST(config.rankOf("model.layers.0.self_attn.xq_proj") == 8);  // behind a dot, or not at all
  BOOST_TEST(config.rankOf("model.layers.1.mlp.up_proj") == 3);
  BOOST_TEST(config.rankOf("model.layers.11.mlp.up_proj") == 8);
  BOOST_TEST(config.rankOf("model.layers.3.self_attn.v_proj") == 5);
  BOOST_TEST(config.rankOf("model.layers.4.self_attn.v_proj") == 8);
  config.alpha = 12;
  BOOST_TEST(config.scaleOf("model.layers.3.self_attn.v_proj") == 12.0 / 5);
  config.useRslora = true;
  BOOST_TEST(config.scaleOf("model.layers.3.self_attn.v_proj") == 12 / std::sqrt(5.0));
}

BOOST_AUTO_TEST_CASE(targetsAreNamesPathsOrAnExpression) {
  const auto matches = [](const llm::ModuleFilter& filter, const char* module) { return filter.matches(module); };
  const llm::ModuleFilter names = {"q_proj", "mlp.down_proj", "model.layers.1.self_attn.o_proj"};
  BOOST_TEST(matches(names, "model.layers.7.self_attn.q_proj"));
  BOOST_TEST(matches(names, "model.layers.7.mlp.down_proj"));
  BOOST_TEST(matches(names, "model.layers.1.self_attn.o_proj"));
  BOOST_TEST(!matches(names, "model.layers.0.self_attn.o_proj"));
  BOOST_TEST(!matches(names, "model.layers.7.self_attn.big_q_proj"));
  const auto expression = llm::ModuleFilter::matching(".*\\.[02]\\.self_attn\\.[kv]_proj");
  BOOST_TEST(matches(expression, "model.layers.2.self_attn.v_proj"));
  BOOST_TEST(!matches(expression, "model.layers.2.self_attn.v_proj_more"));
  BOOST_TEST(matches(llm::ModuleFilter::allLinear(), "model.layers.2.mlp.up_proj"));
  BOOST_TEST(!matches(llm::ModuleFilter::allLinear(), "lm_head"));
}

BOOST_AUTO_TEST_CASE(whatIsNotSupportedIsRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"use_dora", "true"},
      {"use_qalora", "true"},
      {"lora_bias", "true"},
      {"fan_in_fan_out", "true"},
      {"bias", "\"all\""},
      {"peft_type", "\"IA3\""},
      {"modules_to_save", "[\"lm_head\"]"},
      {"layer_replication", "[[0, 1], [0, 1]]"},
      {"layers_to_transform", "[0]"},
      {"target_parameters", "[\"experts.weight\"]"},
      {"trainable_token_indices", "[1]"},
      {"init_lora_weights", "\"pissa\""},
      {"some_later_feature", "{\"on\": true}"},
      {"r", "0"},
      {"lora_dropout", "1"},
      {"target_modules", "[]"},
      {"target_modules", "\"(\""},
      {"rank_pattern", "{\"[\": 2}"},
      {"rank_pattern", "{\"a{9999999999}\": 2}"},
      {"target_modules", "\"" + std::string(1001, 'a') + "\""},
  };
  for (const auto& [key, value] : refused) {
    BOOST_TEST_CONTEXT(key << ": " << value)
    BOOST_CHECK_EXCEPTION(llm::LoraConfig::fromJson(withMember(key, value)), FormatError,
                          [key = key](const FormatError& e) { return e.key().rfind(key, 0) == 0; });
  }
  BOOST_CHECK_NO_THROW(llm::LoraConfig::fromJson(withMember("qalora_group_size", "16")));
}

BOOST_AUTO_TEST_CASE(configsSurviveTheirFile) {
  llm::LoraConfig config;
  config.r = 5;
  config.alpha = 7.5;
  config.dropout = 0.05;
  config.useRslora = true;
  config.init = llm::LoraConfig::Init::kGaussian;
  config.excludeModules = {"lm_head"};
  config.rankPattern = {{"z.*", 3}, {"a.*", 4}};
  config.alphaPattern = {{"up_proj", 2.5}};
  config.baseModel = "a/b";
  const std::string json = config.toJson();
  BOOST_TEST(llm::LoraConfig::fromJson(json).toJson() == json);
}

BOOST_AUTO_TEST_CASE(targetsThatAreNotThereAreRefused) {
  auto model = llm::loadLlama(golden("llama"));
  llm::LoraConfig config;
  config.targetModules = {"c_attn"};
  BOOST_CHECK_THROW(llm::attachLora(model, config, 1), FormatError);
  config.targetModules = {"embed_tokens", "q_proj"};
  BOOST_CHECK_THROW(llm::attachLora(model, config, 1), FormatError);
}

BOOST_AUTO_TEST_CASE(oneMisspeltNameAmongTargetsIsRefused) {
  auto model = llm::loadLlama(golden("llama"));
  llm::LoraConfig config;
  const auto refused = [&](const std::string& message) {
    BOOST_CHECK_EXCEPTION(llm::attachLora(model, config, 1), FormatError,
                          [&](const FormatError& e) { return e.what() == "LoraConfig: " + message; });
    BOOST_TEST(model.trainable().empty());
  };
  config.targetModules = {"q_proj", "nope", "layers.0.mlp.down_proj", "model.layers.9.mlp.down_proj"};
  refused(
      "target_modules: expected projections of the model (down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, "
      "v_proj), found none that match nope, model.layers.9.mlp.down_proj");
  config.targetModules = {"v_proj"};
  config.excludeModules = {"layers.0.self_attn.v_proj", "lm_head", "layer.1.self_attn.v_proj"};
  refused(
      "exclude_modules: expected projections of the model (down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, "
      "v_proj), found none that match layer.1.self_attn.v_proj");
  config.excludeModules = llm::ModuleFilter::matching("self_attn");  // of a part, where PEFT wants the whole path
  refused(
      "exclude_modules: expected projections of the model (down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, "
      "v_proj), found none that match self_attn");
  config.excludeModules = {"lm_head", "embed_tokens"};
  config.rankPattern = {{"v_proj", 4}, {"q_proj", 4}};
  refused("rank_pattern: expected modules that get an adapter (v_proj), found none that match q_proj");
  config.rankPattern = {};
  config.alphaPattern = {{"layers\\.9\\..*", 4}};
  refused("alpha_pattern: expected modules that get an adapter (v_proj), found none that match layers\\.9\\..*");
  config.alphaPattern = {};
  config.rankPattern = {{"layers.1.self_attn.v_proj", Index(1) << 62}};
  const auto& value = model.layers()[1].value;
  refused("r: model.layers.1.self_attn.v_proj, " + std::to_string(value.rows()) + "x" + std::to_string(value.cols()) +
          ": expected a rank of at most " + std::to_string(std::max(value.rows(), value.cols())) +
          ", found 4611686018427387904");
}

BOOST_AUTO_TEST_CASE(adaptersThatTheConfigDoesNotDescribeAreNotWritten) {
  auto model = llm::loadLlama(golden("llama"));
  llm::LoraConfig config;
  config.targetModules = {"q_proj"};
  llm::attachLora(model, config, 1);
  const auto refused = [&](const std::string& message) {
    BOOST_CHECK_EXCEPTION(llm::saveAdapter(model, config, "undescribed"), FormatError,
                          [&](const FormatError& e) { return e.what() == "LoraConfig: " + message; });
    BOOST_TEST(!fs::exists("undescribed"));
  };
  config.r = 4;
  refused("r: model.layers.0.self_attn.q_proj: expected the rank of its adapter, 8, found 4");
  config.targetModules = {"v_proj"};
  refused("target_modules: expected model.layers.0.self_attn.q_proj, which has an adapter, among them");
}

// As with one adapter in PEFT: modules of the set before do not keep theirs.
BOOST_AUTO_TEST_CASE(attachingAndLoadingReplaceTheWholeSet) {
  auto model = llm::loadLlama(golden("llama")), other = llm::loadLlama(golden("llama"));
  llm::LoraConfig config;
  config.targetModules = {"q_proj", "o_proj"};
  llm::attachLora(model, config, 1);
  disturb(model, 0.2f);
  config.targetModules = {"v_proj"};
  llm::attachLora(model, config, 1);
  llm::attachLora(other, config, 1);
  const auto agree = [&] {
    llm::saveAdapter(model, config, "replaced");
    llm::saveAdapter(other, config, "alone");
    BOOST_TEST((readFile("replaced/adapter_model.safetensors") == readFile("alone/adapter_model.safetensors")));
    BOOST_TEST((logitsOf(model, tokens("llama", 0)) == logitsOf(other, tokens("llama", 0))));
  };
  agree();
  config.targetModules = {"up_proj", "o_proj"};
  llm::attachLora(model, config, 1);
  disturb(model, 0.2f);
  config = llm::loadAdapter(model, golden("peft-llama"));
  llm::loadAdapter(other, golden("peft-llama"));
  agree();
}

BOOST_AUTO_TEST_CASE(aRefusedAdapterLeavesTheOneThatIsThere) {
  auto model = llm::loadLlama(golden("llama"));
  const llm::LoraConfig config = llm::loadAdapter(model, golden("peft-llama"));
  llm::saveAdapter(model, config, "refused-peft");
  const std::string whole = readFile("refused-peft/adapter_model.safetensors");
  const Eigen::MatrixXf before = logitsOf(model, tokens("llama", 0));
  const auto refused = [&](const auto& change) {
    io::SafetensorsWriter writer;
    const io::SafetensorsFile file(golden("peft-llama") + "/adapter_model.safetensors");
    std::map<std::string, Eigen::MatrixXf> tensors;
    for (const io::TensorView& tensor : file.tensors()) tensors[tensor.name] = io::toMatrix<float>(tensor);
    change(tensors);
    for (const auto& [name, matrix] : tensors) writer.add(name, matrix);
    writer.write("refused-peft/adapter_model.safetensors");
    BOOST_CHECK_THROW(llm::loadAdapter(model, "refused-peft"), FormatError);
    BOOST_TEST((logitsOf(model, tokens("llama", 0)) == before));
    llm::saveAdapter(model, config, "kept-peft");
    BOOST_TEST((readFile("kept-peft/adapter_model.safetensors") == whole));
  };
  refused([](auto& tensors) { tensors.erase(std::prev(tensors.end())); });        // of the last module
  refused([](auto& tensors) { tensors["more"] = Eigen::MatrixXf::Zero(1, 1); });  // found when all are read
  refused([](auto& tensors) { tensors.begin()->second(0, 0) = NAN; });
}

BOOST_AUTO_TEST_CASE(tensorsThatDoNotFitAreRefused) {
  auto model = llm::loadLlama(golden("llama"));
  const std::string folder = "wrong-peft";
  fs::create_directories(folder);
  const auto load = [&](const std::string& config) {
    std::ofstream(folder + "/adapter_config.json") << config;
    fs::copy(golden("peft-qwen2") + "/adapter_model.safetensors", folder + "/adapter_model.safetensors",
             fs::copy_options::overwrite_existing);
    return llm::loadAdapter(model, folder);
  };
  BOOST_CHECK_THROW(load(withMember("r", "4")), FormatError);                                     // q_proj is missing
  BOOST_CHECK_THROW(load(readFile(golden("peft-qwen2") + "/adapter_config.json")), FormatError);  // layer 2 is too many
}

BOOST_AUTO_TEST_CASE(freshAdaptersChangeNothing) {
  auto model = llm::loadLlama(golden("mistral"));
  const std::vector<int> ids = tokens("mistral", 0);
  const Eigen::MatrixXf before = logitsOf(model, ids);
  llm::LoraConfig config;
  config.r = 3;
  config.targetModules = llm::ModuleFilter::allLinear();
  llm::attachLora(model, config, 1);
  BOOST_TEST((logitsOf(model, ids) - before).cwiseAbs().maxCoeff() == 0);
  BOOST_TEST(model.trainable().size() == 2u * 2 * 7);  // A and B of seven projections in two layers; not the head
  // Uniform in ±1/√in: its largest entries come close to the bound, and no two modules draw the same.
  const auto& a = model.layers()[0].query.adapter()->a.value();
  const float bound = 1 / std::sqrt(static_cast<float>(a.cols()));
  BOOST_TEST(a.cwiseAbs().maxCoeff() <= bound);
  BOOST_TEST(a.cwiseAbs().maxCoeff() > 0.9f * bound);
  BOOST_TEST(std::abs(a.mean()) < 0.2f * bound);
  BOOST_TEST((a - model.layers()[0].key.adapter()->a.value()).cwiseAbs().maxCoeff() > 0.1f * bound);
}

BOOST_DATA_TEST_CASE(mergedModelsComputeTheSame, make(kBases), base) {
  auto model = llm::loadLlama(golden(base));
  llm::loadAdapter(model, golden("peft-" + base));
  const auto reports = llm::mergeAdapters(model);
  BOOST_TEST(!reports.empty());
  BOOST_TEST(llm::worstOf(reports)->relativeError == 0);
  llm::saveLlama(model, "merged-" + base);
  auto merged = llm::loadLlama("merged-" + base);
  BOOST_TEST(deviation(merged, base) <= kTolerance);
}

BOOST_AUTO_TEST_CASE(quantisedModelsMergeToDenseOnes) {
  auto model = adapted("llama-nf4");
  const std::vector<int> ids = tokens("llama-nf4", 0);
  const Eigen::MatrixXf before = logitsOf(model, ids);
  llm::mergeAdapters(model);
  model.forEachLinear([](const llm::Linear<float>& linear) {
    BOOST_TEST(!linear.isQuantized());
    BOOST_TEST(!linear.adapter().has_value());
  });
  // Wider than the other models, and W + s B A is rounded once more than W x + s B A x.
  BOOST_TEST((logitsOf(model, ids) - before).cwiseAbs().maxCoeff() <= 3 * kTolerance);
}

// The loss is that of quantising the exact merge, computed here by other means.
BOOST_AUTO_TEST_CASE(requantisingSaysWhatItLoses) {
  auto model = adapted("llama-nf4"), exact = adapted("llama-nf4");
  llm::LoadOptions asStored;
  const auto reports = llm::mergeAdapters(model, asStored);
  llm::mergeAdapters(exact);
  BOOST_TEST(reports.size() == 7u);
  for (const llm::MergedWeight& report : reports) {
    const auto& before = std::get<EigenQ::NF4Matrix>(model.find(report.module)->weight());
    BOOST_TEST(before.state().isNested());
    const Eigen::MatrixXf wanted = exact.find(report.module)->denseWeight()->toHost();
    const Eigen::MatrixXf found = Eigen::MatrixXf(NF4Matrix(wanted, before.blockSize(), Statistics::kNested));
    const double expected = (found - wanted).cast<double>().norm() / wanted.cast<double>().norm();
    BOOST_TEST(report.relativeError == expected, boost::test_tools::tolerance(1e-6));
    BOOST_TEST((report.relativeError > 0.02 && report.relativeError < 0.2));
  }
  BOOST_TEST(llm::worstOf(reports)->relativeError >= reports.front().relativeError);
}

BOOST_AUTO_TEST_CASE(mergesGoToAnyFormat) {
  auto model = adapted("llama");
  llm::LoadOptions options;
  options.format = llm::WeightFormat::kInt8;
  const auto reports = llm::mergeAdapters(model, options);
  model.forEachLinear([](const llm::Linear<float>& linear) { BOOST_TEST(linear.isQuantized()); });
  BOOST_TEST((llm::worstOf(reports)->relativeError > 1e-4 && llm::worstOf(reports)->relativeError < 0.02));
}

// What is bad in the last module is found before the first is merged.
BOOST_AUTO_TEST_CASE(mergesThatCannotEndDoNotBegin) {
  auto model = adapted("llama");
  auto& last = model.layers().back().down;
  last.adapter()->b.mutableValue()(0, 0) = std::numeric_limits<float>::infinity();
  const std::size_t trainable = model.trainable().size();
  const std::uint64_t before = model.checksum();
  llm::LoadOptions options;
  options.format = llm::WeightFormat::kNF4;
  const auto refused = [&](const std::string& message) {
    BOOST_CHECK_EXCEPTION(llm::mergeAdapters(model, options), FormatError,
                          [&](const FormatError& e) { return e.what() == "mergeAdapters: " + message; });
    BOOST_TEST(model.trainable().size() == trainable);
    BOOST_TEST(model.checksum() == before);
  };
  refused(last.name() + ": expected finite entries to quantise, found others");
  options.blockSize = 48;
  refused("blockSize: expected a power of two from 32 to 4096, found 48");
}

// As if memory had run out at the third module.
BOOST_AUTO_TEST_CASE(mergesThatTheMachineStopsAreToldAndContinued) {
  auto model = adapted("llama"), whole = adapted("llama");
  const auto expected = llm::mergeAdapters(whole);
  const std::size_t trainable = model.trainable().size();
  try {
    llm::internal::mergeEach(model, [](llm::Linear<float>& linear, std::vector<llm::MergedWeight>& reports) {
      if (reports.size() == 2) throw std::bad_alloc();
      linear.setWeight(llm::internal::merge(linear.hostWeight(), linear.name(), llm::internal::updateOf(linear),
                                            llm::mergeToDense(), reports.emplace_back()));
      linear.adapter().reset();
    });
    BOOST_ERROR("nothing was thrown");
  } catch (const llm::MergeError& e) {
    BOOST_TEST(e.merged().size() == 2u);
    BOOST_TEST(e.merged()[1].module == "model.layers.0.self_attn.k_proj");
    BOOST_TEST(e.module() == "model.layers.0.self_attn.v_proj");
    BOOST_TEST(e.what() ==
               "mergeAdapters: model.layers.0.self_attn.v_proj: std::bad_alloc; 2 adapters are merged, the others are "
               "where they were: another call merges them");
    BOOST_CHECK_THROW(std::rethrow_if_nested(e), std::bad_alloc);
  }
  BOOST_TEST(model.trainable().size() == trainable - 4);
  BOOST_TEST(llm::mergeAdapters(model).size() == expected.size() - 2);
  BOOST_TEST(model.checksum() == whole.checksum());
  BOOST_TEST((logitsOf(model, tokens("llama", 0)) == logitsOf(whole, tokens("llama", 0))));
}
