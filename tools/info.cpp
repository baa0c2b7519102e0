// SPDX-License-Identifier: MPL-2.0
// eigenq info: what is in a safetensors file, a model's folder or an adapter's.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Llm>

#include "Command.h"

namespace EigenQ {
namespace tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq info SmolLM2-135M\n"
    "  eigenq info model-00001-of-00002.safetensors --json | jq .tensors[].name";

constexpr const char* kAdapterConfig = "adapter_config.json";
constexpr const char* kAdapterTensors = "adapter_model.safetensors";

/** What \a read gives, or why it is not supported: the tensors are worth a look all the same. */
template <typename Read>
Json describedBy(const Read& read) {
  try {
    return Json::parse(read());
  } catch (const FormatError& e) {
    return {{"unsupported", e.what()}};
  }
}

/** The dictionary beside 4-bit codes, with a shape. */
Json quantState(const io::Checkpoint& checkpoint, const std::string& weight, const char* type) {
  const io::TensorView& state = checkpoint.at(weight + ".quant_state.bitsandbytes__" + type);
  Json json;
  try {
    json = Json::parse(state.data, state.data + state.bytes);
  } catch (const Json::exception& e) {
    state.fail(e.what());
  }
  if (!json.is_object()) state.fail(std::string("expected an object, found ") + json.type_name());
  const auto isExtent = [](const Json& extent) { return extent.is_number_unsigned(); };
  const Json shape = json.value("shape", Json());
  if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), isExtent))
    state.fail("shape: expected whole numbers, found " + shape.dump());
  return json;
}

Json fourBit(const io::Checkpoint& checkpoint, const std::string& weight, const char* type) {
  const Json state = quantState(checkpoint, weight, type);
  return {{"type", type},
          {"shape", state.at("shape")},
          {"blocksize", state.value("blocksize", Json())},
          {"nested", checkpoint.has(weight + ".nested_absmax")}};
}

/** Null for a tensor that is stored as it is. */
Json quantization(const io::Checkpoint& checkpoint, const io::TensorView& tensor) {
  switch (io::storedAs(checkpoint, tensor.name)) {
    case io::StoredAs::kNF4:
      return fourBit(checkpoint, tensor.name, "nf4");
    case io::StoredAs::kFP4:
      return fourBit(checkpoint, tensor.name, "fp4");
    case io::StoredAs::kInt8:
      return {{"type", "int8"}, {"shape", tensor.shape}};
    case io::StoredAs::kDense:
      break;
  }
  return {};
}

/** Whether the tensor describes codes beside it, and so is no parameter itself. */
bool isStatistic(const io::Checkpoint& checkpoint, const std::string& name) {
  const std::size_t weight = name.find(".weight.");
  if (weight != name.npos) return checkpoint.has(name.substr(0, weight + 7));
  const std::string leaf = name.substr(name.rfind('.') + 1);
  return (leaf == "SCB" || leaf == "weight_format") &&
         checkpoint.has(name.substr(0, name.size() - leaf.size()) + "weight");
}

std::uint64_t product(const Json& shape) {
  std::uint64_t size = 1;
  for (const Json& extent : shape) size *= extent.get<std::uint64_t>();
  return size;
}

void addTensors(const io::Checkpoint& checkpoint, Json& report) {
  std::uint64_t parameters = 0, bytes = 0;
  Json tensors = Json::array();
  for (const std::string& name : checkpoint.names()) {
    const io::TensorView& tensor = checkpoint.at(name);
    if (tensor.name != name) continue;  // an index may list one tensor under two names
    Json entry = {
        {"name", name}, {"dtype", io::nameOf(tensor.dtype)}, {"shape", tensor.shape}, {"bytes", tensor.bytes}};
    const Json quantized = quantization(checkpoint, tensor);
    if (!quantized.is_null()) entry["quantized"] = quantized;
    if (!quantized.is_null())
      parameters += product(quantized.at("shape"));
    else if (!isStatistic(checkpoint, name))
      parameters += static_cast<std::uint64_t>(tensor.size());
    bytes += tensor.bytes;
    tensors.push_back(std::move(entry));
  }
  report["tensors"] = std::move(tensors);
  report["parameters"] = parameters;
  report["bytes"] = bytes;
  report["bitsPerParameter"] = parameters > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters) : 0;
}

Json describe(const std::string& path) {
  const auto inside = [&path](const char* name) { return (fs::path(path) / name).string(); };
  Json report = {{"path", path}};
  if (fs::exists(inside(kAdapterConfig))) {
    report["adapter"] = describedBy([&] { return llm::LoraConfig::fromFile(inside(kAdapterConfig)).toJson(); });
    addTensors(io::Checkpoint(inside(kAdapterTensors)), report);
    return report;
  }
  if (fs::exists(inside("config.json")))
    report["config"] = describedBy([&] { return llm::LlamaConfig::fromFile(inside("config.json")).toJson(); });
  addTensors(io::Checkpoint(path), report);
  return report;
}

// ---- as text

std::string textOf(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/** "key value, key value" for the members that are there and say something. */
void printMembers(const char* title, const Json& json, std::initializer_list<const char*> keys) {
  std::string line;
  for (const char* key : keys) {
    if (!json.contains(key) || json[key].is_null()) continue;
    line += (line.empty() ? "" : ", ") + std::string(key) + " " + textOf(json[key]);
  }
  std::printf("%-9s %s\n", title, line.c_str());
}

void printConfig(const Json& config) {
  printMembers("model", config, {"unsupported", "model_type", "num_hidden_layers", "hidden_size", "intermediate_size"});
  if (config.contains("unsupported")) return;
  printMembers("attention", config, {"num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window"});
  printMembers("tokens", config, {"vocab_size", "max_position_embeddings", "tie_word_embeddings"});
  if (!config.contains("quantization_config")) return;
  printMembers("quantised", config["quantization_config"],
               {"load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
                "llm_int8_threshold", "llm_int8_skip_modules"});
}

void printText(const Json& report) {
  if (report.contains("adapter"))
    printMembers(
        "adapter", report["adapter"],
        {"unsupported", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "base_model_name_or_path"});
  if (report.contains("config")) printConfig(report["config"]);
  std::size_t width = 6;
  for (const Json& tensor : report["tensors"]) width = std::max(width, tensor["name"].get<std::string>().size());
  const int column = static_cast<int>(width);
  std::printf("%-*s %-6s %-16s %14s\n", column, "tensor", "dtype", "shape", "bytes");
  for (const Json& tensor : report["tensors"]) {
    std::printf("%-*s %-6s %-16s %14s", column, textOf(tensor["name"]).c_str(), textOf(tensor["dtype"]).c_str(),
                textOf(tensor["shape"]).c_str(), textOf(tensor["bytes"]).c_str());
    if (tensor.contains("quantized"))
      std::printf("  %s of %s", textOf(tensor["quantized"]["type"]).c_str(),
                  textOf(tensor["quantized"]["shape"]).c_str());
    std::printf("\n");
  }
  std::printf("%zu tensors, %s parameters, %s bytes, %.2f bits a parameter\n", report["tensors"].size(),
              textOf(report["parameters"]).c_str(), textOf(report["bytes"]).c_str(),
              report["bitsPerParameter"].get<double>());
}

struct Options {
  std::string path;
  bool json = false;
};

void info(const Options& options) {
  const Json report = describe(options.path);
  if (options.json)
    std::printf("%s\n", report.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  else
    printText(report);
}

}  // namespace

void addInfo(CLI::App& program, Job& job) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("info", "Show configuration, tensors and sizes");
  command->footer(kFooter);
  command->add_option("PATH", options->path, "Safetensors file, folder of a model, or folder of an adapter")
      ->type_name("")
      ->required()
      ->check(notGguf())
      ->check(unnamed(CLI::ExistingPath));
  command->add_flag("--json", options->json, "For programs");
  command->callback([=, &job] { job = [options] { info(*options); }; });
}

}  // namespace tools
}  // namespace EigenQ
