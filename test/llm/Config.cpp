// SPDX-License-Identifier: MPL-2.0
// config.json: what is read, what is refused and by which name, and that what is written is read again.
#define BOOST_TEST_MODULE llm_Config
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <nlohmann/json.hpp>

#include <unsupported/eigen_q/src/llm/LlamaConfig.h>

namespace {

using namespace EigenQ;
using llm::LlamaConfig;
using llm::RopeScaling;
using Json = nlohmann::json;
namespace bdata = boost::unit_test::data;

Json smallest(const char* type = "llama") {
  return {{"model_type", type},      {"vocab_size", 32},       {"hidden_size", 24},
          {"intermediate_size", 20}, {"num_hidden_layers", 3}, {"num_attention_heads", 4}};
}
LlamaConfig read(const Json& json) { return LlamaConfig::fromJson(json.dump()); }
LlamaConfig with(Json json, const char* changes) {
  json.merge_patch(Json::parse(changes));  // a key with null goes away
  return read(json);
}

struct Refused {
  const char* changes;
  const char* key;
  const char* message;
  friend std::ostream& operator<<(std::ostream& os, const Refused& r) { return os << r.changes; }
};

const std::vector<Refused> kRefused = {
    {R"({"model_type": "gemma2"})", "model_type", "found gemma2"},
    {R"({"model_type": null})", "model_type", "found nothing"},
    {R"({"architectures": ["LlamaForSequenceClassification"]})", "architectures", "found LlamaForSequenceClass"},
    {R"({"vocab_size": null})", "vocab_size", "found nothing"},
    {R"({"hidden_size": "24"})", "hidden_size", "found \"24\""},
    {R"({"hidden_size": 24.5})", "hidden_size", "found 24.5"},
    {R"({"num_hidden_layers": 0})", "num_hidden_layers", "found 0"},
    {R"({"num_hidden_layers": 1000000000})", "num_hidden_layers", "at most 10000, found 1000000000"},
    {R"({"vocab_size": 99999999999})", "vocab_size", "to 2147483647, found 99999999999"},
    {R"({"hidden_size": 26})", "hidden_size", "multiple of num_attention_heads = 4"},
    {R"({"num_key_value_heads": 3})", "num_key_value_heads", "divisor of num_attention_heads = 4"},
    {R"({"head_dim": 5})", "head_dim", "even"},
    {R"({"hidden_act": "gelu"})", "hidden_act", "found gelu"},
    {R"({"rms_norm_eps": 0})", "rms_norm_eps", "greater than 0"},
    {R"({"tie_word_embeddings": 1})", "tie_word_embeddings", "true or false"},
    {R"({"rope_theta": -1})", "rope_theta", "greater than 0"},
    {R"({"rope_scaling": {"type": "dynamic", "factor": 2}})", "rope_scaling.rope_type", "found dynamic"},
    {R"({"rope_scaling": {"rope_type": "yarn", "factor": 2}})", "rope_scaling.rope_type", "found yarn"},
    {R"({"rope_parameters": {"rope_type": "longrope"}})", "rope_parameters.rope_type", "found longrope"},
    {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling.factor", "found nothing"},
    {R"({"rope_scaling": {"type": "linear", "factor": 0.5}})", "rope_scaling.factor", "1 or more"},
    {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}})",
     "rope_scaling.high_freq_factor", "greater than low_freq_factor"},
    {R"({"rope_scaling": 2})", "rope_scaling", "an object"},
    {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor", "found 0.5"},
    {R"({"eos_token_id": "</s>"})", "eos_token_id", "a token id"},
    {R"({"bos_token_id": [1, 2]})", "bos_token_id", "a token id or null"},
    {R"({"quantization_config": {"quant_method": "gptq"}})", "quantization_config.quant_method", "found gptq"},
    {R"({"quantization_config": {"quant_method": "bitsandbytes"}})", "quantization_config.load_in_4bit", "one of"},
    {R"({"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "int4"}})",
     "quantization_config.bnb_4bit_quant_type", "found int4"},
    {R"({"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_storage": "int64"}})",
     "quantization_config.bnb_4bit_quant_storage", "found int64"},
    {R"({"quantization_config": {"load_in_8bit": true, "llm_int8_has_fp16_weight": true}})",
     "quantization_config.llm_int8_has_fp16_weight", "found true"},
};

}  // namespace

BOOST_DATA_TEST_CASE(whatIsNotSupportedIsRefusedByName, bdata::make(kRefused), refused) {
  BOOST_CHECK_EXCEPTION(with(smallest(), refused.changes), FormatError, [&](const FormatError& e) {
    BOOST_TEST(e.key() == refused.key);
    BOOST_TEST_CONTEXT(e.what()) BOOST_TEST(std::string(e.what()).find(refused.message) != std::string::npos);
    return true;
  });
}

BOOST_AUTO_TEST_CASE(whatIsNoJsonIsRefused) {
  const auto names = [](const char* key) { return [key](const FormatError& e) { return e.key() == key; }; };
  BOOST_CHECK_EXCEPTION(LlamaConfig::fromJson("{"), FormatError, names("JSON"));
  BOOST_CHECK_EXCEPTION(LlamaConfig::fromJson("[]"), FormatError, names("JSON"));
  BOOST_CHECK_EXCEPTION(LlamaConfig::fromJson(R"({"model_type": "llama", "model_type": "qwen2"})"), FormatError,
                        names("model_type"));
  BOOST_CHECK_EXCEPTION(LlamaConfig::fromFile("no/such/config.json"), FormatError, names("file"));
  BOOST_CHECK_EXCEPTION(LlamaConfig::fromFile("."), FormatError, names("file"));
  Json wide = Json::object();
  for (int i = 10000; i < 14096; ++i) wide["key " + std::to_string(i)] = i;  // of one length: written in this order
  BOOST_CHECK_EXCEPTION(read(wide), FormatError, names("model_type"));
  wide["key 14096"] = 0;
  BOOST_CHECK_EXCEPTION(read(wide), FormatError, names("key 14096"));
}

BOOST_AUTO_TEST_CASE(absentKeysHaveTheDefaultsOfTheirFamily) {
  const LlamaConfig llama = read(smallest());
  BOOST_TEST(llama.numKeyValueHeads == 4);
  BOOST_TEST(llama.headDim == 6);
  BOOST_TEST(llama.maxPositionEmbeddings == 2048);
  BOOST_TEST(!llama.tieWordEmbeddings);
  BOOST_TEST(llama.eosTokenIds == std::vector<int>{2});
  BOOST_TEST(!llama.hasQueryKeyValueBias());

  Json eight = smallest("mistral");
  eight["num_attention_heads"] = 8;
  eight["head_dim"] = 4;
  const LlamaConfig mistral = read(eight);
  BOOST_TEST(mistral.numKeyValueHeads == 8);
  BOOST_TEST(mistral.windows == (std::vector<Index>{4096, 4096, 4096}));

  eight["model_type"] = "qwen2";
  eight["num_key_value_heads"] = nullptr;  // null is as many as heads, whatever the family
  const LlamaConfig qwen2 = read(eight);
  BOOST_TEST(qwen2.numKeyValueHeads == 8);
  BOOST_TEST((qwen2.hasQueryKeyValueBias() && !qwen2.hasOutputBias() && !qwen2.hasMlpBias()));
  BOOST_TEST(qwen2.windows.empty());
  BOOST_TEST(qwen2.eosTokenIds.empty());
}

BOOST_AUTO_TEST_CASE(bothSpellingsSayTheSame) {
  const LlamaConfig older = with(smallest(), R"({"rope_theta": 500000.0, "torch_dtype": "bfloat16", "rope_scaling":
      {"type": "linear", "factor": 4.0}})");
  const LlamaConfig newer = with(smallest(), R"({"dtype": "bfloat16", "rope_parameters":
      {"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0}})");
  BOOST_TEST(older.toJson() == newer.toJson());
  BOOST_TEST(older.ropeTheta == 500000);
  BOOST_TEST((older.ropeScaling.type == RopeScaling::Type::kLinear && older.ropeScaling.factor == 4));
  BOOST_TEST(older.dtype == "bfloat16");
}

BOOST_AUTO_TEST_CASE(windowsAreThoseOfTheLayers) {
  const Json qwen2 = smallest("qwen2");
  const char* const fromTheSecond = R"({"num_key_value_heads": 4, "use_sliding_window": true, "sliding_window": 7,
                                        "max_window_layers": 1})";
  BOOST_TEST(with(qwen2, fromTheSecond).windows == (std::vector<Index>{0, 7, 7}));
  const char* const named = R"({"num_key_value_heads": 4, "use_sliding_window": true, "sliding_window": 7,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]})";
  BOOST_TEST(with(qwen2, named).windows == (std::vector<Index>{7, 0, 7}));
  BOOST_TEST(with(qwen2, R"({"num_key_value_heads": 4, "sliding_window": 7})").windows.empty());
  Json mistral = smallest("mistral");
  mistral["num_key_value_heads"] = 2;
  mistral["sliding_window"] = nullptr;
  BOOST_TEST(read(mistral).windows.empty());
}

BOOST_AUTO_TEST_CASE(endsOfTextMayBeSeveral) {
  BOOST_TEST(with(smallest(), R"({"eos_token_id": [3, 5]})").eosTokenIds == (std::vector<int>{3, 5}));
  Json none = smallest();
  none["eos_token_id"] = nullptr;
  BOOST_TEST(read(none).eosTokenIds.empty());
}

BOOST_AUTO_TEST_CASE(whatIsWrittenIsReadAgain) {
  const std::vector<const char*> changes = {
      "{}",
      R"({"attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "head_dim": 8, "rms_norm_eps": 1e-5})",
      R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}, "eos_token_id": [3, 5], "pad_token_id": 7})",
      R"({"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 9})",
      R"({"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 9,
          "max_window_layers": 2})",
      R"({"quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": true,
          "llm_int8_skip_modules": ["lm_head"]}})",
      R"({"quantization_config": {"load_in_8bit": true, "llm_int8_threshold": 0.0}})"};
  for (const char* change : changes) {
    const std::string text = with(smallest(), change).toJson();
    BOOST_TEST(LlamaConfig::fromJson(text).toJson() == text);
  }
  const LlamaConfig eight = with(smallest(), changes.back());
  BOOST_TEST((eight.quantization->bits == 8 && eight.quantization->int8Threshold == 0));
}

// Linear scaling divides every frequency; llama3 leaves the fast ones and divides the slow ones.
BOOST_AUTO_TEST_CASE(scalingStretchesSlowFrequencies) {
  const char* const plain = R"({"head_dim": 32})";
  const Eigen::VectorXd original = with(smallest(), plain).ropeFrequencies();
  BOOST_TEST(original(0) == 1);
  BOOST_TEST(original(8) == 0.01, boost::test_tools::tolerance(1e-12));
  const Eigen::VectorXd linear =
      with(smallest(), R"({"head_dim": 32, "rope_scaling": {"type": "linear", "factor": 4}})").ropeFrequencies();
  BOOST_TEST(linear.isApprox(original / 4, 1e-15));
  const Eigen::VectorXd llama3 = with(smallest(), R"({"head_dim": 32, "rope_scaling": {"rope_type": "llama3",
      "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 512}})")
                                     .ropeFrequencies();
  for (Index i = 0; i < 16; ++i) {
    const double wavelength = 2 * 3.14159265358979323846 / original(i);
    if (wavelength < 512.0 / 4) BOOST_TEST(llama3(i) == original(i));
    if (wavelength > 512.0) BOOST_TEST(llama3(i) == original(i) / 8);
    BOOST_TEST((llama3(i) <= original(i) && llama3(i) >= original(i) / 8));
  }
}
