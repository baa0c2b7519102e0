// SPDX-License-Identifier: MPL-2.0
// What adapter_config.json says about low-rank adapters.
#ifndef EIGENQ_LLM_LORA_CONFIG_H
#define EIGENQ_LLM_LORA_CONFIG_H

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include <eigen_q/Core>

namespace EigenQ {
namespace llm {

/** Modules by their paths, such as "model.layers.0.self_attn.q_proj", as PEFT's target_modules name them: a list of
 * names, each a whole path or what stands behind one of its dots, or else one regular expression for whole paths.
 * Expressions are those of ECMAScript, which for what paths need are Python's. */
struct ModuleFilter {
  std::vector<std::string> names;
  std::string pattern;  // where it is not empty, names does not count; "all-linear": every projection but the head

  ModuleFilter() = default;
  ModuleFilter(std::initializer_list<const char*> list) : names(list.begin(), list.end()) {}
  explicit ModuleFilter(std::vector<std::string> list) : names(std::move(list)) {}
  static ModuleFilter matching(std::string expression);
  static ModuleFilter allLinear() { return matching("all-linear"); }

  bool empty() const { return names.empty() && pattern.empty(); }
  bool isAllLinear() const;
  /** Throws FormatError where the pattern is no regular expression. */
  bool matches(const std::string& module) const;
};

/** Low-rank adapters in PEFT's words and with its defaults: y = W x + scale·B A dropout(x), A r×in, B out×r.
 * Sources: Hu et al., LoRA, arXiv:2106.09685; Kalajdzievski, rsLoRA, arXiv:2312.03732; PEFT, tuners/lora/config.py. */
struct LoraConfig {
  enum class Init : std::uint8_t {
    kKaimingUniform,  // A uniform in ±1/√in
    kGaussian         // A normal with deviation 1/r
  };                  // B is zero in either case

  Index r = 8;
  double alpha = 8;
  double dropout = 0;      // of the adapter's input, in [0, 1)
  bool useRslora = false;  // scale = alpha/√r instead of alpha/r
  Init init = Init::kKaimingUniform;
  ModuleFilter targetModules = {"q_proj", "v_proj"};
  ModuleFilter excludeModules;
  /** Other ranks and alphas for some modules. Keys are regular expressions that match a path whole or what stands
   * behind one of its dots; of several that match, the first counts. */
  std::vector<std::pair<std::string, Index>> rankPattern;
  std::vector<std::pair<std::string, double>> alphaPattern;
  std::string baseModel;  // base_model_name_or_path: where the frozen model is

  bool targets(const std::string& module) const;
  Index rankOf(const std::string& module) const;
  double alphaOf(const std::string& module) const;
  /** What B A is multiplied by. */
  double scaleOf(const std::string& module) const;

  /** Throws FormatError, \a where naming the source, for a rank below 1, a dropout outside [0, 1), a number that is not
   * finite, and a pattern that is no regular expression. Readers have called it. */
  void validate(const std::string& where = "LoraConfig") const;

  /** Reads adapter_config.json. Throws FormatError, naming file and key, for what is missing or of the wrong type, and
   * for every feature that is not supported: other peft_types, DoRA, QALoRA, lora_bias, trained biases,
   * fan_in_fan_out, modules_to_save, layer_replication, layers_to_transform, initialisations that change the frozen
   * weights, and whatever a newer version of PEFT switches on under a key that this one does not know. */
  static LoraConfig fromFile(const std::string& path);
  static LoraConfig fromJson(const std::string& text, const std::string& where = "adapter_config.json");

  /** As PEFT writes it: keys sorted, two spaces. */
  std::string toJson() const;
};

namespace internal {
/** Whether a key of rankPattern or alphaPattern matches a module. */
bool keyMatches(const std::string& key, const std::string& module);
}  // namespace internal

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_LORA_CONFIG_H
