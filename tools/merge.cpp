// SPDX-License-Identifier: MPL-2.0
// eigenq merge: an adapter into the weights beside which it trained.
#include <cstdio>
#include <map>
#include <memory>
#include <vector>

#include <unsupported/eigen_q/Llm>

#include "Command.h"
#include "ModelOptions.h"
#include "OutputFolder.h"

namespace EigenQ {
namespace tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq merge SmolLM2-135M --adapter letters SmolLM2-letters\n"
    "  eigenq merge SmolLM2-135M-nf4 --adapter letters SmolLM2-letters-nf4 --to nf4 --nested\n"
    "OUT opens in transformers without PEFT. To a quantised format the table says what is lost: the error of each\n"
    "weight, and that error as a multiple of what the adapter has changed; above 1 the adapter drowns in it.";

struct Options {
  ModelOptions model;
  std::string out;
  std::string dtype;  // of dense tensors; empty: as the model's config says
  llm::LoadOptions merged = llm::mergeToDense();
  bool force = false;
};

/** What --to stands for. */
struct Target {
  llm::WeightFormat format;
  const char* dtype;
};
const std::map<std::string, Target> kTargets = {{"float", {llm::WeightFormat::kDense, "float32"}},
                                                {"half", {llm::WeightFormat::kDense, "float16"}},
                                                {"bfloat16", {llm::WeightFormat::kDense, "bfloat16"}},
                                                {"nf4", {llm::WeightFormat::kNF4, ""}},
                                                {"fp4", {llm::WeightFormat::kFP4, ""}},
                                                {"int8", {llm::WeightFormat::kLlmInt8, ""}}};

void print(const std::vector<llm::MergedWeight>& reports, bool quantized) {
  std::printf("merged %zu adapters\n", reports.size());
  if (!quantized) return;
  std::printf("%-40s %10s %12s\n", "projection", "error", "error/update");
  for (const llm::MergedWeight& report : reports)
    std::printf("%-40s %8.2f %% %12.2f\n", report.module.c_str(), 100 * report.relativeError, report.errorToUpdate);
}

void merge(const Options& options) {
  OutputFolder out(options.out, options.force, {options.model.directory, options.model.adapter});
  auto model = loadModel<llm::Llama<>>(options.model, /*maxPositions=*/1);
  const std::vector<llm::MergedWeight> reports = llm::mergeAdapters(model, options.merged);
  throwIfInterrupted();
  llm::SaveOptions save;
  save.dtype = options.dtype;
  llm::saveLlama(model, out.path(), save);
  out.copyCompanions(options.model.directory);
  out.commit();
  print(reports, options.merged.format != llm::WeightFormat::kDense);
}

}  // namespace

void addMerge(CLI::App& program, Job& job) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("merge", "Fold a LoRA adapter into its model");
  command->footer(kFooter);
  addDirectory(*command, options->model.directory);
  addAdapterOption(*command, options->model);
  command->get_option("--adapter")->required();
  command->add_option("OUT", options->out, "Folder to write, made if missing")->type_name("")->required();
  command
      ->add_option_function<std::string>(
          "--to",
          [options](const std::string& name) {
            options->merged.format = kTargets.at(name).format;
            options->dtype = kTargets.at(name).dtype;
          },
          "Type of the weights; dense and of the model's own type if not given")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"float", "half", "bfloat16", "nf4", "fp4", "int8"}));
  addFormatDetails(*command, options->merged);
  command->add_flag("--force", options->force, "Replace the model that is in OUT");
  command->callback([=, &job] {
    checkFormatDetails(*command, options->merged);
    options->model.load.skipModules = options->merged.skipModules;  // loading compares them with the model
    job = [options] { merge(*options); };
  });
}

}  // namespace tools
}  // namespace EigenQ
