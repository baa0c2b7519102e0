// SPDX-License-Identifier: MPL-2.0
#include "Options.h"

#include <map>

#include <CLI/CLI.hpp>

namespace finetune {
namespace {

using EigenQ::llm::ModuleFilter;
using EigenQ::llm::WeightFormat;

constexpr const char* kDescription =
    "Fine-tunes LoRA adapters on a model of the Llama family, through frozen weights of any format, and writes them "
    "as\n"
    "PEFT does. Prints results to stdout and progress to stderr.";

const std::map<std::string, WeightFormat> kFormats = {{"none", WeightFormat::kAsStored},
                                                      {"int8", WeightFormat::kInt8},
                                                      {"nf4", WeightFormat::kNF4},
                                                      {"fp4", WeightFormat::kFP4}};

void addFiles(CLI::App& app, PretrainedOptions& o) {
  app.add_option("--model", o.model, "Folder with config.json, safetensors and tokenizer.json")
      ->required()
      ->check(CLI::ExistingDirectory);
  CLI::Option* text = app.add_option("--text", o.text, "A text to learn")->check(CLI::ExistingFile);
  CLI::Option* jsonl =
      app.add_option("--jsonl", o.jsonl, "A file of lines {\"prompt\": …, \"completion\": …}; completions are learnt")
          ->check(CLI::ExistingFile)
          ->excludes(text);
  text->excludes(jsonl);
  app.add_option("--adapter", o.adapter, "Folder for the adapter, loss.csv, loss.svg and what --resume needs");
  app.add_option("--init", o.initial, "Begin with the adapter in this folder; its rank and targets count");
  app.add_option("--length", o.length, "Tokens in a sequence")->check(CLI::PositiveNumber);
  app.add_option("--hold-out", o.holdOut, "The last part of the sequences, kept for judging")
      ->check(CLI::Range(0.0, 0.9));
}

void addAdapter(CLI::App& app, PretrainedOptions& o) {
  o.lora.alpha = 16;
  o.lora.targetModules = ModuleFilter({"all-linear"});
  app.add_option("--quantize", o.quantize, "What the frozen weights become while they are loaded")
      ->check(CLI::IsMember(kFormats));
  app.add_option("--rank", o.lora.r, "Of the adapters")->check(CLI::PositiveNumber);
  app.add_option("--alpha", o.lora.alpha, "The adapters are scaled by alpha / rank")->check(CLI::PositiveNumber);
  app.add_option("--dropout", o.lora.dropout, "Of the adapters' input, in [0, 1)")->check(CLI::Range(0.0, 0.99));
  app.add_option("--targets", o.lora.targetModules.names, "Names of projections, or all-linear")->delimiter(',');
  app.add_flag("--rslora", o.lora.useRslora, "Scale by alpha / sqrt(rank)");
}

void addTraining(CLI::App& app, PretrainedOptions& o) {
  EigenQ::llm::TrainOptions& t = o.train;
  t.steps = 200;
  t.warmup = 10;
  t.microBatch = 0;
  t.adamw.learningRate = 1e-3;
  t.evaluateEvery = 50;
  app.add_option("--steps", t.steps, "Updates")->check(CLI::PositiveNumber);
  app.add_option("--warmup", t.warmup, "Updates in which the learning rate rises")->check(CLI::NonNegativeNumber);
  app.add_option("--lr", t.adamw.learningRate, "Peak learning rate; a cosine takes it to zero")
      ->check(CLI::PositiveNumber);
  app.add_option("--batch", t.microBatch, "Sequences at once")
      ->check(CLI::PositiveNumber)
      ->default_str(std::to_string(kUsualBatch) + ", or all there are");
  app.add_option("--accumulate", t.accumulation, "Batches in an update")->check(CLI::PositiveNumber);
  app.add_flag("--adamw8bit", t.optimizer8bit, "Moments of the optimiser in 8 bits");
  app.add_flag("--checkpoint", t.checkpointLayers, "Compute layers again instead of keeping them: less memory");
  app.add_flag("!--in-order", t.shuffle, "Take sequences in the order of the file");
  app.add_option("--seed", t.seed, "Of adapter, order and dropout");
  app.add_option("--eval-every", t.evaluateEvery, "Updates between two evaluations; 0: first and last")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--patience", t.patience, "Evaluations without a new best that end the run; 0: none do")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--save-every", o.saveEvery, "Updates between two states to resume from")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--resume", o.resume, "Go on from the last state in the folder of --adapter, if there is one");
  app.add_option("--device", o.device, "Where to compute; cuda needs a GPU and a build with EigenQ::Cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
}

}  // namespace

EigenQ::llm::LoadOptions PretrainedOptions::load() const {
  EigenQ::llm::LoadOptions options;
  options.format = kFormats.at(quantize);
  return options;
}

std::optional<PretrainedOptions> parsePretrainedOptions(int argc, char** argv, int& status) {
  PretrainedOptions options;
  CLI::App app(kDescription, "finetune --model");
  app.option_defaults()->always_capture_default();
  addFiles(app, options);
  addAdapter(app, options);
  addTraining(app, options);
  try {
    app.parse(argc, argv);
    if (options.text.empty() == options.jsonl.empty()) throw CLI::RequiredError("--text or --jsonl");
  } catch (const CLI::ParseError& e) {
    status = app.exit(e);
    return std::nullopt;
  }
  if (options.lora.targetModules.names == std::vector<std::string>{"all-linear"})
    options.lora.targetModules = ModuleFilter::allLinear();
  options.lora.baseModel = options.model;
  return options;
}

}  // namespace finetune
