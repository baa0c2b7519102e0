// SPDX-License-Identifier: MPL-2.0
#include "ModelOptions.h"

#include <map>

#include "Command.h"

namespace EigenQ {
namespace tools {
namespace {

using llm::WeightFormat;

bool isFourBit(WeightFormat format) { return format == WeightFormat::kNF4 || format == WeightFormat::kFP4; }

}  // namespace

void addDirectory(CLI::App& command, std::string& directory) {
  command.add_option("DIR", directory, "Folder of the model: config.json and safetensors")
      ->type_name("")
      ->required()
      ->check(notGguf())
      ->check(unnamed(CLI::ExistingDirectory));
}

void addFormatDetails(CLI::App& command, llm::LoadOptions& load) {
  command.add_option("--block-size", load.blockSize, "nf4, fp4: values that share an absmax")
      ->check(CLI::IsMember({32, 64, 128, 256, 512, 1024, 2048, 4096}));
  command.add_flag_function(
      "--nested", [&load](std::int64_t) { load.statistics = Statistics::kNested; },
      "nf4, fp4: quantise the absmax too (bnb_4bit_use_double_quant)");
  command.add_option("--int8-threshold", load.int8Threshold, "int8: from which magnitude on features are outliers")
      ->check(finite())
      ->check(nonNegative());
  command.add_option("--skip", load.skipModules, "Modules that stay dense, by path or a part of it")
      ->type_name("MODULE");
}

void checkFormatDetails(const CLI::App& command, const llm::LoadOptions& load) {
  for (const char* name : {"--block-size", "--nested"})
    requireUsage(command.count(name) == 0 || isFourBit(load.format),
                 std::string(name) + " belongs to the formats nf4 and fp4");
  requireUsage(command.count("--skip") == 0 || load.format == WeightFormat::kInt8 ||
                   load.format == WeightFormat::kLlmInt8 || isFourBit(load.format),
               "--skip needs a format to quantise to");
  requireUsage(command.count("--int8-threshold") == 0 || load.format == WeightFormat::kLlmInt8,
               "--int8-threshold belongs to the format int8");
}

void addModelOptions(CLI::App& command, ModelOptions& options) {
  static const std::map<std::string, WeightFormat> kFormats = {{"nf4", WeightFormat::kNF4},
                                                               {"fp4", WeightFormat::kFP4},
                                                               {"int8", WeightFormat::kLlmInt8},
                                                               {"int8-weights", WeightFormat::kInt8},
                                                               {"dense", WeightFormat::kDense}};
  addDirectory(command, options.directory);
  command
      .add_option_function<std::string>(
          "--quantize", [&options](const std::string& name) { options.load.format = kFormats.at(name); },
          "Of projections; int8: LLM.int8(), int8-weights: float activations, dense: decode")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"nf4", "fp4", "int8", "int8-weights", "dense"}));
  addFormatDetails(command, options.load);
  command.add_option("--device", options.device, "Where to compute; cuda needs a GPU and a build with EigenQ::Cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command.add_option("--dtype", options.dtype, "Activations on a GPU; on the CPU they are float")
      ->check(CLI::IsMember({"float", "half", "bfloat16"}));
  command
      .add_option_function<int>(
          "--threads", [](int threads) { setMaxThreads(threads); }, "Of the CPU's kernels; 0: one per core")
      ->check(CLI::Range(0, 1024));
}

void addAdapterOption(CLI::App& command, ModelOptions& options) {
  command.add_option("--adapter", options.adapter, "Folder of a LoRA adapter as PEFT saves it")
      ->type_name("DIR")
      ->check(unnamed(CLI::ExistingDirectory));
}

void checkModelOptions(const CLI::App& command, const ModelOptions& options) {
  checkFormatDetails(command, options.load);
  requireUsage(command.count("--dtype") == 0 || options.device == "cuda", "--dtype belongs to --device cuda");
}

}  // namespace tools
}  // namespace EigenQ
