// SPDX-License-Identifier: MPL-2.0
// lora_config.cpp: adapter_config.json, read and written.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <regex>

#include <unsupported/eigen_q/src/llm/LoraConfig.h>

#include "../read_file.h"
#include "json_object.h"

namespace EigenQ {
namespace llm {
namespace {

using internal::JsonObject;
using Json = JsonObject::Json;

constexpr std::size_t kLongestPattern = 1000;  // the standard library compiles expressions by recursion

bool endsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/** Whether a number in \a pattern has ten digits or more: libstdc++ reads such ones into an int without a look. */
bool hasLongNumber(const std::string& pattern) {
  int digits = 0;
  return std::any_of(pattern.begin(), pattern.end(), [&digits](char c) {
    digits = c >= '0' && c <= '9' ? digits + 1 : 0;
    return digits > 9;
  });
}

/** \a expression, in which \a pattern stands as it was given; \a where and \a key name its place. */
std::regex compiled(const std::string& expression, const std::string& pattern, const std::string& where = "LoraConfig",
                    const std::string& key = "pattern") {
  const auto fail = [&](const std::string& reason) {
    throw FormatError(where, key, "expected a regular expression, found " + pattern.substr(0, 100) + ": " + reason);
  };
  if (pattern.size() > kLongestPattern) fail(std::to_string(pattern.size()) + " characters are too many");
  if (hasLongNumber(pattern)) fail("a number is too large");
  auto flags = std::regex::ECMAScript;
#ifdef __GLIBCXX__
  flags |= std::regex_constants::__polynomial;  // no expression takes exponential time or a deep stack
#endif
  try {
    return std::regex(expression, flags);
  } catch (const std::regex_error& e) {
    fail(e.what());
  }
  return {};
}

/** PEFT's get_pattern_key: what stands behind a dot, or all. */
std::string atEnd(const std::string& pattern) { return "(.*\\.)?(" + pattern + ")"; }

template <typename T>
T lookUp(const std::vector<std::pair<std::string, T>>& patterns, const std::string& module, T otherwise) {
  for (const auto& [pattern, value] : patterns)
    if (internal::keyMatches(pattern, module)) return value;
  return otherwise;
}

// ---- reading

/** Keys that do not change what the adapter computes, besides those that are read. */
constexpr std::array<const char*, 8> kHarmless = {"auto_mapping", "inference_mode",     "megatron_core",
                                                  "peft_version", "qalora_group_size",  "revision",
                                                  "task_type",    "ensure_weight_tying"};
constexpr std::array<const char*, 13> kRead = {"peft_type",
                                               "r",
                                               "lora_alpha",
                                               "lora_dropout",
                                               "bias",
                                               "use_rslora",
                                               "target_modules",
                                               "exclude_modules",
                                               "rank_pattern",
                                               "alpha_pattern",
                                               "init_lora_weights",
                                               "base_model_name_or_path",
                                               "eva_config"};

template <typename List>
bool isIn(const List& list, const std::string& key) {
  return std::find(list.begin(), list.end(), key) != list.end();
}

bool isOff(const Json& value) {
  return value.is_null() || value == Json(false) || (value.is_structured() && value.empty()) || value == Json("");
}

/** Whatever is switched on and not known here changes the adapter in ways that nobody can guess. */
void refuseUnknown(const JsonObject& json) {
  for (const auto& [key, value] : json.json().items()) {
    if (isIn(kHarmless, key) || isIn(kRead, key) || isOff(value)) continue;
    json.expected(key, "none: it is not supported");
  }
}

/** Some initialisations subtract what they put into B A from the frozen weight. */
LoraConfig::Init readInit(const JsonObject& json) {
  const char* key = "init_lora_weights";
  if (!json.has(key) || json.json()[key].is_boolean()) return LoraConfig::Init::kKaimingUniform;
  const std::string init = json.text(key);
  if (init == "gaussian") return LoraConfig::Init::kGaussian;
  if (init == "eva") return LoraConfig::Init::kKaimingUniform;  // another A to begin with, nothing more
  json.expected(key, "true or gaussian");
}

ModuleFilter readModules(const JsonObject& json, const char* key) {
  if (!json.has(key)) return {};
  if (json.json()[key].is_string()) return ModuleFilter::matching(json.text(key));
  return ModuleFilter(json.texts(key));
}

template <typename T, typename Read>
std::vector<std::pair<std::string, T>> readPatterns(const JsonObject& json, const char* key, const Read& read) {
  std::vector<std::pair<std::string, T>> patterns;
  if (!json.has(key)) return patterns;
  const JsonObject object = json.object(key);
  for (const auto& item : object.json().items()) patterns.emplace_back(item.key(), read(object, item.key()));
  return patterns;
}

// ---- writing

Json toJson(const ModuleFilter& filter) {
  if (filter.empty()) return nullptr;
  return filter.pattern.empty() ? Json(filter.names) : Json(filter.pattern);
}

template <typename T, typename Value>
Json toJson(const std::vector<std::pair<std::string, T>>& patterns, const Value& value) {
  Json json = Json::object();  // keeps the order, which decides where two patterns match
  for (const auto& [pattern, entry] : patterns) json[pattern] = value(entry);
  return json;
}

/** 16 rather than 16.0: PEFT's lora_alpha is an int where it can be. */
Json number(double x) {
  if (x == std::floor(x) && std::abs(x) < 1e15) return static_cast<std::int64_t>(x);
  return x;
}

}  // namespace

bool internal::keyMatches(const std::string& key, const std::string& module) {
  return std::regex_match(module, compiled(atEnd(key), key));
}

ModuleFilter ModuleFilter::matching(std::string expression) {
  ModuleFilter filter;
  filter.pattern = std::move(expression);
  return filter;
}

bool ModuleFilter::isAllLinear() const {
  std::string lower = pattern;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return lower == "all-linear";
}

bool ModuleFilter::matches(const std::string& module) const {
  if (isAllLinear()) return module != "lm_head";
  if (!pattern.empty()) return std::regex_match(module, compiled(pattern, pattern));
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& name) { return module == name || endsWith(module, "." + name); });
}

bool LoraConfig::targets(const std::string& module) const {
  return !(!excludeModules.empty() && excludeModules.matches(module)) && targetModules.matches(module);
}

Index LoraConfig::rankOf(const std::string& module) const { return lookUp(rankPattern, module, r); }

double LoraConfig::alphaOf(const std::string& module) const { return lookUp(alphaPattern, module, alpha); }

double LoraConfig::scaleOf(const std::string& module) const {
  const auto rank = static_cast<double>(rankOf(module));
  return alphaOf(module) / (useRslora ? std::sqrt(rank) : rank);
}

void LoraConfig::validate(const std::string& where) const {
  const auto requireRank = [&where](const std::string& key, Index rank) {
    if (rank < 1) throw FormatError(where, key, "expected a rank of 1 or more, found " + std::to_string(rank));
  };
  const auto requireFinite = [&where](const std::string& key, double x) {
    if (!std::isfinite(x)) throw FormatError(where, key, "expected a finite number, found " + std::to_string(x));
  };
  requireRank("r", r);
  requireFinite("lora_alpha", alpha);
  if (!(dropout >= 0 && dropout < 1))
    throw FormatError(where, "lora_dropout", "expected a probability in [0, 1), found " + std::to_string(dropout));
  if (targetModules.empty()) throw FormatError(where, "target_modules", "expected modules, found none");
  for (const auto& [pattern, rank] : rankPattern) {
    requireRank("rank_pattern." + pattern, rank);
    (void)compiled(atEnd(pattern), pattern, where, "rank_pattern");
  }
  for (const auto& [pattern, value] : alphaPattern) {
    requireFinite("alpha_pattern." + pattern, value);
    (void)compiled(atEnd(pattern), pattern, where, "alpha_pattern");
  }
  (void)compiled(targetModules.pattern, targetModules.pattern, where, "target_modules");
  (void)compiled(excludeModules.pattern, excludeModules.pattern, where, "exclude_modules");
}

LoraConfig LoraConfig::fromJson(const std::string& text, const std::string& where) {
  const JsonObject json = JsonObject::parse(text, where);
  const std::string type = json.text("peft_type");
  if (type != "LORA") json.fail("peft_type", "expected LORA, found " + type);
  refuseUnknown(json);
  if (json.textOr("bias", "none") != "none") json.expected("bias", "none");
  LoraConfig config;
  config.r = json.indexOr("r", 8);
  config.alpha = json.has("lora_alpha") ? json.number("lora_alpha", std::numeric_limits<double>::lowest()) : 8;
  config.dropout = json.has("lora_dropout") ? json.number("lora_dropout", 0) : 0;
  config.useRslora = json.boolOr("use_rslora", false);
  config.init = readInit(json);
  config.targetModules = readModules(json, "target_modules");
  config.excludeModules = readModules(json, "exclude_modules");
  config.rankPattern = readPatterns<Index>(json, "rank_pattern",
                                           [](const JsonObject& o, const std::string& key) { return o.index(key); });
  config.alphaPattern = readPatterns<double>(json, "alpha_pattern", [](const JsonObject& o, const std::string& key) {
    return o.number(key, std::numeric_limits<double>::lowest());
  });
  config.baseModel = json.textOr("base_model_name_or_path", "");
  config.validate(where);
  return config;
}

LoraConfig LoraConfig::fromFile(const std::string& path) { return fromJson(EigenQ::internal::readFile(path), path); }

std::string LoraConfig::toJson() const {
  const Json json = {
      {"alpha_pattern", llm::toJson(alphaPattern, number)},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", baseModel.empty() ? Json() : Json(baseModel)},
      {"bias", "none"},
      {"exclude_modules", llm::toJson(excludeModules)},
      {"fan_in_fan_out", false},
      {"inference_mode", true},
      {"init_lora_weights", init == Init::kGaussian ? Json("gaussian") : Json(true)},
      {"layer_replication", nullptr},
      {"layers_pattern", nullptr},
      {"layers_to_transform", nullptr},
      {"lora_alpha", number(alpha)},
      {"lora_bias", false},
      {"lora_dropout", dropout},
      {"modules_to_save", nullptr},
      {"peft_type", "LORA"},
      {"r", r},
      {"rank_pattern", llm::toJson(rankPattern, [](Index rank) { return Json(rank); })},
      {"revision", nullptr},
      {"target_modules", llm::toJson(targetModules)},
      {"task_type", "CAUSAL_LM"},
      {"use_dora", false},
      {"use_qalora", false},
      {"use_rslora", useRslora},
  };
  constexpr int kIndent = 2;
  return json.dump(kIndent);
}

}  // namespace llm
}  // namespace EigenQ
