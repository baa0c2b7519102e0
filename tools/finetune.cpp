// SPDX-License-Identifier: MPL-2.0
// eigenq finetune: LoRA on a frozen model, quantised or not.
#include "Finetune.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>

#include <eigen_q/Io>
#include <finetune/Plot.h>

#include "Command.h"
#include "OnDevice.h"

namespace EigenQ {
namespace tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq finetune SmolLM2-135M letters --text letters.txt --quantize nf4 --r 16 --lora-alpha 32\n"
    "  eigenq finetune SmolLM2-135M answers --jsonl qa.jsonl --target-modules all-linear --epochs 3 --patience 3\n"
    "  eigenq finetune SmolLM2-135M answers --jsonl qa.jsonl ... --resume   after an interruption\n"
    "Lines of a JSONL file are {\"prompt\": …, \"completion\": …} or {\"text\": …}; prompts are not learnt. OUT opens "
    "in\n"
    "PEFT. A run that is resumed ends with the adapter that it would have had without the break.";

constexpr const char* kState = "trainer_state.safetensors";

std::vector<llm::Example> readExamples(const FinetuneOptions& options, const std::string& path,
                                       const llm::LlamaConfig& config, Index length) {
  const llm::Tokenizer tokenizer = tokenizerOf(options.model.directory);
  if (!options.text.empty()) return llm::windows(encodeFile(tokenizer, path), length);
  const llm::Encode encode = [&tokenizer](const std::string& text, bool addSpecialTokens) {
    return tokenizer.encode(text, addSpecialTokens);
  };
  const std::optional<int> end =
      config.eosTokenIds.empty() ? std::nullopt : std::optional<int>(config.eosTokenIds.front());
  std::vector<llm::Example> examples;
  for (const llm::PromptCompletion& text : llm::readJsonLines(path))
    if (auto example = llm::lesson(text, encode, end, length)) examples.push_back(std::move(*example));
  return examples;
}

// ---- options

void addTexts(CLI::App& command, FinetuneOptions& o) {
  CLI::Option* text =
      command.add_option("--text", o.text, "Text to learn, cut into sequences; - is standard input")->type_name("FILE");
  command.add_option("--jsonl", o.jsonl, "Prompts and completions to learn, an object a line")
      ->type_name("FILE")
      ->check(unnamed(CLI::ExistingFile))
      ->excludes(text);
  CLI::Option* eval = command.add_option("--eval", o.eval, "Held-out file, of the same kind")
                          ->type_name("FILE")
                          ->check(unnamed(CLI::ExistingFile));
  command.add_option("--hold-out", o.holdOut, "Share of the sequences, the last ones, that is held out")
      ->check(finite())
      ->check(CLI::Range(0.0, 0.9))
      ->excludes(eval);
  command.add_option("--length", o.length, "Tokens of a sequence, at most")->check(positive());
}

void addLora(CLI::App& command, FinetuneOptions& o) {
  llm::LoraConfig& lora = o.lora;
  command.add_option("--r", lora.r, "Rank of the adapters")->check(positive());
  command.add_option("--lora-alpha", lora.alpha, "They are scaled by alpha / r")->check(finite())->check(positive());
  command.add_option("--lora-dropout", lora.dropout, "Of their input, in [0, 1)")
      ->check(finite())
      ->check(CLI::Range(0.0, 0.999));
  command.add_option("--target-modules", lora.targetModules.names, "Projections to adapt, or all-linear")
      ->type_name("MODULE");
  command.add_flag("--use-rslora", lora.useRslora, "Scale by alpha / sqrt(r) instead");
}

void addTraining(CLI::App& command, FinetuneOptions& o) {
  using Decay = llm::TrainOptions::Decay;
  llm::TrainOptions& t = o.train;
  CLI::Option* steps = command.add_option("--steps", t.steps, "Updates")->check(positive());
  steps->default_str("as many as --epochs take");
  command.add_option("--epochs", o.epochs, "Times round the sequences")
      ->check(finite())
      ->check(positive())
      ->excludes(steps);
  command.add_option("--batch", t.microBatch, "Sequences at once")
      ->check(positive())
      ->default_str(std::to_string(kUsualBatch) + ", or all there are");
  command.add_option("--accumulation", t.accumulation, "Batches in an update")->check(positive());
  command.add_option("--lr", t.adamw.learningRate, "Peak learning rate")->check(finite())->check(positive());
  command
      .add_option_function<std::string>(
          "--schedule",
          [&t](const std::string& name) {
            t.decay = name == "cosine" ? Decay::kCosine : name == "linear" ? Decay::kLinear : Decay::kConstant;
          },
          "How the learning rate falls")
      ->check(CLI::IsMember({"cosine", "linear", "constant"}))
      ->default_str("cosine");
  command.add_option("--warmup", t.warmup, "Updates in which it rises")->check(nonNegative());
  command.add_option("--weight-decay", t.adamw.weightDecay, "Of AdamW")->check(finite())->check(nonNegative());
  command.add_option("--max-grad-norm", t.clip, "Gradients are clipped to this norm; 0: not at all")
      ->check(finite())
      ->check(nonNegative());
  command
      .add_option_function<std::string>(
          "--optim", [&t](const std::string& name) { t.optimizer8bit = name == "adamw8bit"; }, "Optimiser")
      ->check(CLI::IsMember({"adamw", "adamw8bit"}))
      ->default_str("adamw");
  command.add_flag("--gradient-checkpointing", t.checkpointLayers, "Less memory for one forward pass more");
  command.add_option("--seed", t.seed, "Of adapters, order and dropout")->check(nonNegative());
  command.add_option("--eval-every", t.evaluateEvery, "Updates between evaluations; 0: at both ends alone")
      ->check(nonNegative());
  command.add_option("--patience", t.patience, "Evaluations without a new best before it stops, at the best; 0: never")
      ->check(nonNegative());
  command.add_option("--save-every", o.saveEvery, "Updates between states to resume from; 0: at the end alone")
      ->check(nonNegative());
  CLI::Option* resume = command.add_flag("--resume", o.resume, "Go on from the state in OUT, where there is one");
  command.add_flag("--force", o.force, "Begin anew though OUT holds a run")->excludes(resume);
}

}  // namespace

TrainingTexts readTexts(const FinetuneOptions& options, const llm::LlamaConfig& config, Index length) {
  const std::string& path = options.text.empty() ? options.jsonl : options.text;
  TrainingTexts texts;
  texts.train = readExamples(options, path, config, length);
  if (!options.eval.empty()) {
    texts.heldOut = readExamples(options, options.eval, config, length);
  } else {
    const auto count = static_cast<double>(texts.train.size());
    const auto first = texts.train.end() - static_cast<std::ptrdiff_t>(std::llround(options.holdOut * count));
    texts.heldOut.assign(std::make_move_iterator(first), std::make_move_iterator(texts.train.end()));
    texts.train.erase(first, texts.train.end());
  }
  if (texts.train.empty())
    throw std::runtime_error(path + ": expected one sequence to learn, or more, found none of " +
                             std::to_string(length) + " tokens");
  return texts;
}

Index stepsFor(const FinetuneOptions& options, std::size_t examples) {
  constexpr Index kMost = llm::TrainOptions::kMostSteps;
  if (options.train.steps > kMost)
    throw std::runtime_error("--steps: expected at most " + std::to_string(kMost) + ", found " +
                             std::to_string(options.train.steps));
  if (options.train.steps > 0) return options.train.steps;
  const auto perUpdate = static_cast<double>(options.train.microBatch * options.train.accumulation);
  const double updates = std::ceil(options.epochs * static_cast<double>(examples) / perUpdate);
  if (updates > static_cast<double>(kMost))
    throw std::runtime_error("--epochs: expected at most " + std::to_string(kMost) + " updates");
  return std::max<Index>(1, static_cast<Index>(updates));
}

void checkFolder(const FinetuneOptions& options) {
  if (options.out.empty()) throw std::runtime_error("OUT: expected the name of a folder, found none");
  if (!fs::exists(options.out)) return;
  if (!fs::is_directory(options.out)) throw std::runtime_error(options.out + ": exists and is no folder");
  if (fs::equivalent(options.out, options.model.directory))
    throw std::runtime_error(options.out + ": is the folder to read from");
  if (!options.resume && !options.force && !fs::is_empty(options.out))
    throw std::runtime_error(options.out + ": exists; --resume goes on with the run in it, --force begins anew");
}

llm::RunFiles beginRun(const FinetuneOptions& options) {
  const fs::path state = fs::path(options.out) / kState;
  fs::create_directories(options.out);
  if (!options.resume) fs::remove(state);
  return {state.string(), options.saveEvery, options.resume};
}

void writeCurve(const llm::TrainHistory& history, const std::string& folder) {
  const finetune::Phase phase = finetune::phaseOf(history, "finetune");
  io::writeFileAtomically((fs::path(folder) / "loss.csv").string(), finetune::toCsv({phase}));
  io::writeFileAtomically((fs::path(folder) / "loss.svg").string(), finetune::plotLosses({phase}, "token"));
}

void printStart(const TrainingTexts& texts, const FinetuneOptions& options, Index trainable) {
  std::printf("sequences   %zu to learn, %zu held out\n", texts.train.size(), texts.heldOut.size());
  std::printf("adapters    r %td, %td parameters\n", options.lora.r, trainable);
  std::printf("updates     %td of %td sequences\n", options.train.steps,
              options.train.microBatch * options.train.accumulation);
  std::fflush(stdout);
}

void printEnd(const llm::TrainHistory& history, bool stoppedEarly, const std::string& folder) {
  if (!history.heldOut.empty()) {
    const auto& all = history.heldOut;
    const auto best = std::min_element(all.begin(), all.end(), [](auto& x, auto& y) { return x.loss < y.loss; });
    const double before = all.front().loss, after = stoppedEarly ? best->loss : all.back().loss;
    std::printf("held out    nll %.5f before, %.5f after; perplexity %.3f before, %.3f after\n", before, after,
                std::exp(before), std::exp(after));
    if (stoppedEarly) std::printf("stopped     early, at the best, update %td\n", best->step);
  }
  finetune::printSkipped(history);
  std::printf("wrote       %s\n", folder.c_str());
}

void addFinetune(CLI::App& program, Job& job) {
  const auto options = std::make_shared<FinetuneOptions>();
  options->train.steps = 0;       // settled by the epochs
  options->train.microBatch = 0;  // settled by the sequences
  CLI::App* command = program.add_subcommand("finetune", "Train a LoRA adapter on a text");
  command->footer(kFooter);
  addModelOptions(*command, options->model);
  command->add_option("OUT", options->out, "Folder of the adapter, made if missing")->type_name("")->required();
  addTexts(*command, *options);
  addLora(*command, *options);
  addTraining(*command, *options);
  command->callback([=, &job] {
    checkModelOptions(*command, options->model);
    requireUsage(command->count("--text") + command->count("--jsonl") > 0, "--text or --jsonl is required");
    requireUsage(options->train.patience == 0 || options->train.evaluateEvery > 0, "--patience needs --eval-every");
    requireUsage(options->train.evaluateEvery == 0 || options->holdOut > 0 || !options->eval.empty(),
                 "--eval-every needs something held out, by --hold-out or --eval");
    if (options->lora.targetModules.names == std::vector<std::string>{"all-linear"})
      options->lora.targetModules = llm::ModuleFilter::allLinear();
    options->lora.baseModel = options->model.directory;
    if (options->model.device == "cuda" && options->model.dtype == "half") options->train.lossScale = 1024;
    job = [options] {
      if (options->model.device == "cuda") return finetuneOnDevice(*options);
      finetune<llm::Llama<>>(*options);
    };
  });
}

}  // namespace tools
}  // namespace EigenQ
