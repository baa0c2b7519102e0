// SPDX-License-Identifier: MPL-2.0
// peft_adapter.cpp: adapters drawn, and read from and written to PEFT's folders.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <set>

#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/PeftAdapter.h>

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";
constexpr const char* kEmbedding = "model.embed_tokens";

/** PEFT wraps the model twice: PeftModel.base_model is a LoraModel, whose model is the model. */
std::string tensorName(const std::string& module, const char* matrix) {
  return "base_model.model." + module + "." + matrix + ".weight";
}

/** Uniform in (0, 1), never either end. */
double uniform(std::uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

/** Entries row by row, as the file has them, from one word each or, for normal ones, two (Box and Muller). */
Eigen::MatrixXf drawn(const LoraConfig& config, Index r, Index in, const ad::RandomStream& random) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  const bool normal = config.init == LoraConfig::Init::kGaussian;
  const double bound = 1 / std::sqrt(static_cast<double>(in)), deviation = 1 / static_cast<double>(r);
  Eigen::MatrixXf a(r, in);
  for (Index i = 0; i < r; ++i)
    for (Index j = 0; j < in; ++j) {
      const EigenQ::internal::PhiloxWords words = random(static_cast<std::uint64_t>(i * in + j));
      const double u = uniform(words[0]);
      a(i, j) =
          static_cast<float>(normal ? deviation * std::sqrt(-2 * std::log(u)) * std::cos(kTwoPi * uniform(words[1]))
                                    : bound * (2 * u - 1));
    }
  return a;
}

/** What stands behind the last dots of the modules' paths, each once. */
template <typename HasModule>
std::vector<std::string> shortNames(const std::vector<HasModule>& all) {
  std::set<std::string> names;
  for (const HasModule& one : all) names.insert(one.module.substr(one.module.rfind('.') + 1));
  return {names.begin(), names.end()};
}

/** The names that "all-linear" stands for in a model. */
void nameTargets(LoraConfig& config, const std::vector<AdapterMatrices>& adapters) {
  if (config.targetModules.isAllLinear()) config.targetModules = ModuleFilter(shortNames(adapters));
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

void refuseEmbedding(const LoraConfig& config) {
  if (config.targets(kEmbedding) && !config.targetModules.isAllLinear())
    throw FormatError("LoraConfig", "target_modules",
                      std::string(kEmbedding) + ": adapters of embeddings are not supported");
}

/** Those of \a all that name none of \a places, as \a matches(name, path) has it. */
template <typename Matches>
std::vector<std::string> unmatched(const std::vector<std::string>& all, const std::vector<AdapterPlace>& places,
                                   const Matches& matches) {
  std::vector<std::string> found;
  for (const std::string& one : all) {
    if (std::none_of(places.begin(), places.end(), [&](const AdapterPlace& p) { return matches(one, p.module); }))
      found.push_back(one);
  }
  return found;
}

void refuseUnmatched(const char* key, const std::string& expected, const std::vector<AdapterPlace>& places,
                     const std::vector<std::string>& found) {
  if (found.empty()) return;
  throw FormatError(
      "LoraConfig", key,
      "expected " + expected + " (" + listed(shortNames(places)) + "), found none that match " + listed(found));
}

bool nameMatches(const std::string& name, const std::string& module) {
  return ModuleFilter(std::vector<std::string>{name}).matches(module);
}
bool expressionMatches(const std::string& expression, const std::string& module) {
  return ModuleFilter::matching(expression).matches(module);
}

template <typename T>
std::vector<std::string> keysOf(const std::vector<std::pair<std::string, T>>& patterns) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : patterns) keys.push_back(key);
  return keys;
}

}  // namespace

AdapterMatrices newAdapter(const LoraConfig& config, const std::string& module, Index out, Index in, std::uint64_t seed,
                           std::uint64_t stream) {
  const Index r = config.rankOf(module);
  return {module, drawn(config, r, in, {seed, stream}), Eigen::MatrixXf::Zero(out, r)};
}

void checkFreshTargets(const LoraConfig& config, const std::vector<AdapterPlace>& places) {
  refuseEmbedding(config);
  const std::string projections = "projections of the model";
  const ModuleFilter& targets = config.targetModules;
  if (targets.pattern.empty())
    refuseUnmatched("target_modules", projections, places, unmatched(targets.names, places, nameMatches));
  // A head that is tied to the embedding is no projection of its own, and excluded by habit.
  std::vector<AdapterPlace> excludable = places, targeted;
  for (const char* module : {"lm_head", kEmbedding}) excludable.push_back({module, 0, 0});
  const ModuleFilter& excluded = config.excludeModules;
  refuseUnmatched("exclude_modules", projections, places,
                  excluded.pattern.empty() ? unmatched(excluded.names, excludable, nameMatches)
                                           : unmatched({excluded.pattern}, excludable, expressionMatches));
  std::copy_if(places.begin(), places.end(), std::back_inserter(targeted),
               [&](const AdapterPlace& place) { return config.targets(place.module); });
  if (targeted.empty()) return;  // checkTargets() says so
  const std::string adapted = "modules that get an adapter";
  refuseUnmatched("rank_pattern", adapted, targeted, unmatched(keysOf(config.rankPattern), targeted, keyMatches));
  refuseUnmatched("alpha_pattern", adapted, targeted, unmatched(keysOf(config.alphaPattern), targeted, keyMatches));
  for (const AdapterPlace& place : targeted) {
    // Such an adapter would hold more than twice the numbers of the projection itself.
    const Index r = config.rankOf(place.module), most = std::max(place.out, place.in);
    if (r > most)
      throw FormatError("LoraConfig", "r",
                        place.module + ", " + std::to_string(place.out) + "x" + std::to_string(place.in) +
                            ": expected a rank of at most " + std::to_string(most) + ", found " + std::to_string(r));
  }
}

void checkTargets(const LoraConfig& config, bool any) {
  refuseEmbedding(config);
  if (!any)
    throw FormatError("LoraConfig", "target_modules", "expected projections of the model, found none that match");
}

void writeAdapter(const std::string& directory, LoraConfig config, const std::vector<AdapterMatrices>& adapters) {
  for (const AdapterMatrices& adapter : adapters) {  // PEFT would leave out what the config does not name
    if (!config.targets(adapter.module))
      throw FormatError("LoraConfig", "target_modules",
                        "expected " + adapter.module + ", which has an adapter, among them");
    if (const Index r = config.rankOf(adapter.module); r != adapter.a.rows())
      throw FormatError("LoraConfig", "r",
                        adapter.module + ": expected the rank of its adapter, " + std::to_string(adapter.a.rows()) +
                            ", found " + std::to_string(r));
  }
  nameTargets(config, adapters);
  io::SafetensorsWriter writer;
  writer.setMetadata("format", "pt");
  for (const AdapterMatrices& adapter : adapters) {
    writer.add(tensorName(adapter.module, "lora_A"), adapter.a);
    writer.add(tensorName(adapter.module, "lora_B"), adapter.b);
  }
  const fs::path folder(directory);
  fs::create_directories(folder);
  io::writeFileAtomically((folder / kConfigFile).string(), config.toJson());
  writer.write((folder / kTensorFile).string());
}

struct AdapterFile::State {
  io::SafetensorsFile file;
  const LoraConfig& config;
  std::set<std::string> read;

  Eigen::MatrixXf take(const std::string& name, Index rows, Index cols) {
    read.insert(name);
    Eigen::MatrixXf m = io::toMatrix<float>(file.at(name), rows, cols);
    if (!m.allFinite()) file.at(name).fail("expected finite entries, found others");
    return m;
  }
};

AdapterFile::AdapterFile(const std::string& directory, const LoraConfig& config)
    : m_state(new State{io::SafetensorsFile((fs::path(directory) / kTensorFile).string()), config, {}}) {}

AdapterFile::~AdapterFile() = default;

AdapterMatrices AdapterFile::read(const std::string& module, Index out, Index in) {
  const Index r = m_state->config.rankOf(module);
  return {module, m_state->take(tensorName(module, "lora_A"), r, in),
          m_state->take(tensorName(module, "lora_B"), out, r)};
}

void AdapterFile::finish() const {
  for (const io::TensorView& tensor : m_state->file.tensors()) {
    if (m_state->read.count(tensor.name) != 0) continue;
    const auto has = [&tensor](const char* part) { return tensor.name.find(part) != std::string::npos; };
    if (has("lora_embedding_")) tensor.fail("adapters of embeddings are not supported");
    if (has("lora_magnitude_vector")) tensor.fail("DoRA is not supported");
    tensor.fail("expected adapters of the modules that the config targets, found another tensor");
  }
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
