// SPDX-License-Identifier: MPL-2.0
// llama_config.cpp: config.json of Llama, Mistral and Qwen2, read and written.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include <unsupported/eigen_q/src/llm/LlamaConfig.h>

#include "../read_file.h"
#include "json_object.h"

namespace EigenQ {
namespace llm {
namespace {

using internal::JsonObject;
using Json = JsonObject::Json;

/** What distinguishes a family's config.json; the defaults are those of its configuration class. */
struct Family {
  LlamaFamily family;
  const char* modelType;
  const char* architecture;
  Index maxPositionEmbeddings;
  Index keyValueHeads;  // where the key is absent; 0: as many as heads
  int bosTokenId;       // where the key is absent; -1: none
  int eosTokenId;
};
constexpr std::array<Family, 3> kFamilies = {{
    {LlamaFamily::kLlama, "llama", "LlamaForCausalLM", 2048, 0, 1, 2},
    {LlamaFamily::kMistral, "mistral", "MistralForCausalLM", 131072, 8, 1, 2},
    {LlamaFamily::kQwen2, "qwen2", "Qwen2ForCausalLM", 32768, 32, -1, -1},
}};
constexpr Index kDefaultWindow = 4096;  // of Mistral and Qwen2

const Family& familyOf(LlamaFamily family) {
  return *std::find_if(kFamilies.begin(), kFamilies.end(), [=](const Family& f) { return f.family == family; });
}

const Family& readFamily(const JsonObject& json) {
  const std::string type = json.text("model_type");
  for (const Family& f : kFamilies) {
    if (type != f.modelType) continue;
    if (json.has("architectures")) {
      const std::vector<std::string> found = json.texts("architectures");
      if (std::find(found.begin(), found.end(), f.architecture) == found.end())
        json.fail("architectures",
                  std::string("expected ") + f.architecture + ", found " + (found.empty() ? "none" : found.front()));
    }
    return f;
  }
  json.fail("model_type", "expected llama, mistral or qwen2, found " + type);
}

void refuse(const JsonObject& json, const char* key, bool refused, const char* supported) {
  if (refused) json.expected(key, std::string(supported) + ", the only value that is supported");
}

// ---- rotary position embeddings

RopeScaling readScaling(const JsonObject& rope, Index maxPositionEmbeddings) {
  RopeScaling scaling;
  const std::string type = rope.textOr("rope_type", rope.textOr("type", "default"));
  if (rope.has("partial_rotary_factor"))
    refuse(rope, "partial_rotary_factor", rope.positive("partial_rotary_factor") != 1, "1");
  if (type == "default") return scaling;
  if (type != "linear" && type != "llama3") rope.fail("rope_type", "expected default, linear or llama3, found " + type);
  scaling.type = type == "linear" ? RopeScaling::Type::kLinear : RopeScaling::Type::kLlama3;
  scaling.factor = rope.positive("factor");
  if (scaling.factor < 1) rope.expected("factor", "a number of 1 or more");
  if (type == "linear") return scaling;
  scaling.lowFreqFactor = rope.positive("low_freq_factor");
  scaling.highFreqFactor = rope.positive("high_freq_factor");
  if (scaling.highFreqFactor <= scaling.lowFreqFactor)
    rope.expected("high_freq_factor", "a number greater than low_freq_factor");
  scaling.originalMaxPositionEmbeddings = rope.indexOr("original_max_position_embeddings", maxPositionEmbeddings);
  return scaling;
}

void readRope(const JsonObject& json, LlamaConfig& config) {
  config.ropeTheta = json.positiveOr("rope_theta", 10000);
  if (json.has("partial_rotary_factor"))
    refuse(json, "partial_rotary_factor", json.positive("partial_rotary_factor") != 1, "1");
  refuse(json, "rope_interleaved", json.boolOr("rope_interleaved", false), "false");
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!json.has(key)) continue;
    const JsonObject rope = json.object(key);
    config.ropeTheta = rope.positiveOr("rope_theta", config.ropeTheta);
    config.ropeScaling = readScaling(rope, config.maxPositionEmbeddings);
  }
}

// ---- sliding windows

std::vector<Index> mistralWindows(const JsonObject& json, const LlamaConfig& config) {
  const bool none = json.contains("sliding_window") && !json.has("sliding_window");
  if (none) return {};
  return std::vector<Index>(static_cast<std::size_t>(config.numHiddenLayers),
                            json.indexOr("sliding_window", kDefaultWindow));
}

std::vector<Index> qwen2Windows(const JsonObject& json, const LlamaConfig& config) {
  if (!json.boolOr("use_sliding_window", false)) return {};
  if (json.contains("sliding_window") && !json.has("sliding_window")) return {};
  const Index window = json.indexOr("sliding_window", kDefaultWindow);
  const auto layers = static_cast<std::size_t>(config.numHiddenLayers);
  std::vector<Index> windows(layers, 0);
  if (json.has("layer_types")) {
    const std::vector<std::string> types = json.texts("layer_types");
    if (types.size() != layers)
      json.fail("layer_types",
                "expected " + std::to_string(layers) + " entries, one a layer, found " + std::to_string(types.size()));
    for (std::size_t i = 0; i < layers; ++i) {
      if (types[i] != "full_attention" && types[i] != "sliding_attention")
        json.fail("layer_types", "expected full_attention or sliding_attention, found " + types[i]);
      if (types[i] == "sliding_attention") windows[i] = window;
    }
  } else {
    const auto first = static_cast<std::size_t>(json.indexOr("max_window_layers", 28, 0));
    for (std::size_t i = first; i < layers; ++i) windows[i] = window;
  }
  return windows;
}

// ---- quantisation

QuantizationConfig readQuantization(const JsonObject& json) {
  QuantizationConfig q;
  const std::string method = json.textOr("quant_method", "bitsandbytes");
  if (method != "bitsandbytes") json.fail("quant_method", "expected bitsandbytes, found " + method);
  const bool four = json.boolOr("load_in_4bit", false), eight = json.boolOr("load_in_8bit", false);
  if (four == eight) json.fail("load_in_4bit", "expected one of load_in_4bit and load_in_8bit to be true");
  q.bits = four ? 4 : 8;
  const std::string type = json.textOr("bnb_4bit_quant_type", "fp4");
  if (type != "nf4" && type != "fp4") json.fail("bnb_4bit_quant_type", "expected nf4 or fp4, found " + type);
  q.type = type == "nf4" ? FourBitType::kNF4 : FourBitType::kFP4;
  q.doubleQuant = json.boolOr("bnb_4bit_use_double_quant", false);
  q.computeDtype = json.textOr("bnb_4bit_compute_dtype", "float32");
  q.quantStorage = json.textOr("bnb_4bit_quant_storage", "uint8");
  constexpr std::array<const char*, 4> kStorages = {"uint8", "float16", "bfloat16", "float32"};
  if (std::find(kStorages.begin(), kStorages.end(), q.quantStorage) == kStorages.end())
    json.fail("bnb_4bit_quant_storage", "expected uint8, float16, bfloat16 or float32, found " + q.quantStorage);
  refuse(json, "llm_int8_has_fp16_weight", json.boolOr("llm_int8_has_fp16_weight", false), "false");
  const auto threshold = [&] {
    return json.contains("llm_int8_threshold") ? json.number("llm_int8_threshold", 0) : 6.0;
  };
  q.int8Threshold = static_cast<float>(threshold());
  if (json.has("llm_int8_skip_modules")) q.skipModules = json.texts("llm_int8_skip_modules");
  return q;
}

Json quantizationJson(const QuantizationConfig& q) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", q.bits == 4},
          {"load_in_8bit", q.bits == 8},
          {"bnb_4bit_compute_dtype", q.computeDtype},
          {"bnb_4bit_quant_storage", q.quantStorage},
          {"bnb_4bit_quant_type", q.type == FourBitType::kNF4 ? "nf4" : "fp4"},
          {"bnb_4bit_use_double_quant", q.doubleQuant},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", q.skipModules.empty() ? Json() : Json(q.skipModules)},
          {"llm_int8_threshold", q.int8Threshold}};
}

// ---- the rest

std::optional<int> readToken(const JsonObject& json, const char* key, int whenAbsent) {
  if (!json.contains(key)) return whenAbsent < 0 ? std::nullopt : std::optional<int>(whenAbsent);
  const std::vector<int> ids = json.ids(key);
  if (ids.size() > 1) json.expected(key, "a token id or null");
  return ids.empty() ? std::nullopt : std::optional<int>(ids.front());
}

/** Far beyond any model: each layer takes memory before a tensor of it is looked for. */
constexpr Index kMostLayers = 10'000;

void readSizes(const JsonObject& json, const Family& family, LlamaConfig& config) {
  config.vocabSize = json.index("vocab_size");
  config.hiddenSize = json.index("hidden_size");
  config.intermediateSize = json.index("intermediate_size");
  config.numHiddenLayers = json.index("num_hidden_layers");
  if (config.numHiddenLayers > kMostLayers)
    json.fail("num_hidden_layers",
              "expected at most " + std::to_string(kMostLayers) + ", found " + std::to_string(config.numHiddenLayers));
  config.numAttentionHeads = json.index("num_attention_heads");
  const Index whenAbsent = json.contains("num_key_value_heads") ? 0 : family.keyValueHeads;
  config.numKeyValueHeads = json.indexOr("num_key_value_heads", whenAbsent > 0 ? whenAbsent : config.numAttentionHeads);
  config.headDim = json.indexOr("head_dim", config.hiddenSize / config.numAttentionHeads);
  config.maxPositionEmbeddings = json.indexOr("max_position_embeddings", family.maxPositionEmbeddings);
}

}  // namespace

LlamaConfig LlamaConfig::fromJson(const std::string& text, const std::string& where) {
  const JsonObject json = JsonObject::parse(text, where);
  const Family& family = readFamily(json);
  LlamaConfig config;
  config.family = family.family;
  readSizes(json, family, config);
  const std::string activation = json.textOr("hidden_act", "silu");
  if (activation != "silu") json.fail("hidden_act", "expected silu, found " + activation);
  config.rmsNormEps = json.positiveOr("rms_norm_eps", 1e-6);
  config.tieWordEmbeddings = json.boolOr("tie_word_embeddings", false);
  if (family.family == LlamaFamily::kLlama) {
    config.attentionBias = json.boolOr("attention_bias", false);
    config.mlpBias = json.boolOr("mlp_bias", false);
  } else {
    // Neither class reads these: a file that sets one describes another model.
    refuse(json, "mlp_bias", json.boolOr("mlp_bias", false), "false");
    if (family.family == LlamaFamily::kMistral)
      refuse(json, "attention_bias", json.boolOr("attention_bias", false), "false");
  }
  readRope(json, config);
  if (family.family == LlamaFamily::kMistral) config.windows = mistralWindows(json, config);
  if (family.family == LlamaFamily::kQwen2) config.windows = qwen2Windows(json, config);
  config.bosTokenId = readToken(json, "bos_token_id", family.bosTokenId);
  config.padTokenId = readToken(json, "pad_token_id", -1);
  if (json.contains("eos_token_id"))
    config.eosTokenIds = json.ids("eos_token_id");
  else if (family.eosTokenId >= 0)
    config.eosTokenIds = {family.eosTokenId};
  config.dtype = json.textOr("dtype", json.textOr("torch_dtype", "float32"));
  if (json.has("quantization_config")) config.quantization = readQuantization(json.object("quantization_config"));
  config.validate(where);
  return config;
}

LlamaConfig LlamaConfig::fromFile(const std::string& path) { return fromJson(EigenQ::internal::readFile(path), path); }

void LlamaConfig::validate(const std::string& where) const {
  const auto require = [&where](bool holds, const char* key, const std::string& message) {
    if (!holds) throw FormatError(where, key, message);
  };
  const auto number = [](Index n) { return std::to_string(n); };
  for (const auto& [key, value] : {std::pair<const char*, Index>{"vocab_size", vocabSize},
                                   {"hidden_size", hiddenSize},
                                   {"intermediate_size", intermediateSize},
                                   {"num_hidden_layers", numHiddenLayers},
                                   {"num_attention_heads", numAttentionHeads},
                                   {"num_key_value_heads", numKeyValueHeads},
                                   {"head_dim", headDim},
                                   {"max_position_embeddings", maxPositionEmbeddings}})
    require(value > 0, key, "expected a whole number of 1 or more, found " + number(value));
  require(
      hiddenSize % numAttentionHeads == 0, "hidden_size",
      "expected a multiple of num_attention_heads = " + number(numAttentionHeads) + ", found " + number(hiddenSize));
  require(numAttentionHeads % numKeyValueHeads == 0, "num_key_value_heads",
          "expected a divisor of num_attention_heads = " + number(numAttentionHeads) + ", found " +
              number(numKeyValueHeads));
  require(headDim % 2 == 0, "head_dim", "expected an even number, found " + number(headDim));
  require(windows.empty() || static_cast<Index>(windows.size()) == numHiddenLayers, "sliding_window",
          "expected one a layer, " + number(numHiddenLayers) + ", found " + number(static_cast<Index>(windows.size())));
}

Eigen::VectorXd LlamaConfig::ropeFrequencies() const {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  const auto plain = [this](Index i) {
    return std::pow(ropeTheta, -2.0 * static_cast<double>(i) / static_cast<double>(headDim));
  };
  const RopeScaling& s = ropeScaling;
  const auto scaled = [&](Index i) {
    const double frequency = plain(i);
    if (s.type == RopeScaling::Type::kDefault) return frequency;
    if (s.type == RopeScaling::Type::kLinear) return frequency / s.factor;
    // How often a pair turns within the original context decides: fast ones stay, slow ones stretch, between the two
    // frequencies are interpolated (transformers, modeling_rope_utils.py).
    const double turns = static_cast<double>(s.originalMaxPositionEmbeddings) * frequency / kTwoPi;
    const double share = (turns - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor);
    const double kept = std::min(std::max(share, 0.0), 1.0);
    return kept * frequency + (1 - kept) * frequency / s.factor;
  };
  return Eigen::VectorXd::NullaryExpr(headDim / 2, scaled);
}

namespace {

Json scalingJson(const RopeScaling& s) {
  if (s.type == RopeScaling::Type::kDefault) return nullptr;
  if (s.type == RopeScaling::Type::kLinear) return {{"type", "linear"}, {"rope_type", "linear"}, {"factor", s.factor}};
  return {{"rope_type", "llama3"},
          {"factor", s.factor},
          {"low_freq_factor", s.lowFreqFactor},
          {"high_freq_factor", s.highFreqFactor},
          {"original_max_position_embeddings", s.originalMaxPositionEmbeddings}};
}

/** 4.x reads max_window_layers, newer versions layer_types. */
void writeQwen2Windows(const LlamaConfig& config, Json& json) {
  const auto first = std::find_if(config.windows.begin(), config.windows.end(), [](Index w) { return w > 0; });
  const bool uses = first != config.windows.end();
  json["use_sliding_window"] = uses;
  json["sliding_window"] = uses ? Json(*first) : Json();
  json["max_window_layers"] = uses ? first - config.windows.begin() : config.numHiddenLayers;
  Json types = Json::array();
  for (Index i = 0; i < config.numHiddenLayers; ++i)
    types.push_back(config.window(i) > 0 ? "sliding_attention" : "full_attention");
  json["layer_types"] = types;
}

}  // namespace

std::string LlamaConfig::toJson() const {
  // The older spelling throughout: transformers 5 reads it as well as 4.x.
  const Family& f = familyOf(family);
  Json json;
  json["architectures"] = Json::array({f.architecture});
  json["model_type"] = f.modelType;
  json["vocab_size"] = vocabSize;
  json["hidden_size"] = hiddenSize;
  json["intermediate_size"] = intermediateSize;
  json["num_hidden_layers"] = numHiddenLayers;
  json["num_attention_heads"] = numAttentionHeads;
  json["num_key_value_heads"] = numKeyValueHeads;
  json["head_dim"] = headDim;
  json["hidden_act"] = "silu";
  json["max_position_embeddings"] = maxPositionEmbeddings;
  json["rms_norm_eps"] = rmsNormEps;
  json["rope_theta"] = ropeTheta;
  json["rope_scaling"] = scalingJson(ropeScaling);
  json["tie_word_embeddings"] = tieWordEmbeddings;
  if (family == LlamaFamily::kLlama) {
    json["attention_bias"] = attentionBias;
    json["mlp_bias"] = mlpBias;
  }
  if (family == LlamaFamily::kMistral) json["sliding_window"] = window(0) > 0 ? Json(window(0)) : Json();
  if (family == LlamaFamily::kQwen2) writeQwen2Windows(*this, json);
  json["bos_token_id"] = bosTokenId ? Json(*bosTokenId) : Json();
  json["eos_token_id"] = eosTokenIds.empty()       ? Json()
                         : eosTokenIds.size() == 1 ? Json(eosTokenIds.front())
                                                   : Json(eosTokenIds);
  json["pad_token_id"] = padTokenId ? Json(*padTokenId) : Json();
  json["torch_dtype"] = dtype;
  if (quantization) json["quantization_config"] = quantizationJson(*quantization);
  return json.dump(2) + "\n";
}

}  // namespace llm
}  // namespace EigenQ
