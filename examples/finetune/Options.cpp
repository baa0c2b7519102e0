// SPDX-License-Identifier: MPL-2.0
#include "Options.h"

#include <cstring>
#include <thread>

#include <CLI/CLI.hpp>

namespace finetune {
namespace {

constexpr const char* kDescription =
    "Trains a small language model over bytes in float, quantises it to int8 and NF4, and fine-tunes LoRA adapters\n"
    "through the frozen NF4 weights on another text. Prints results to stdout and progress to stderr.\n"
    "With --model DIR it fine-tunes a model from its folder instead, with other options: --model DIR --help.";

constexpr Index kMostWidth = 1 << 16, kMostLayers = 1 << 10, kMostContext = 1 << 20, kMostSteps = 1'000'000'000;

/** A run of a few seconds: it learns little, but takes every path. */
void makeQuick(Options& o) {
  o.model.hidden = 64;
  o.model.layers = 1;
  o.model.ffn = 128;
  o.model.context = 32;
  o.trainSteps = 60;
  o.tuneSteps = 40;
  o.sample = 40;
}

void addTexts(CLI::App& app, Options& o) {
  app.add_option("--train", o.train, "Texts or folders of texts to train on")
      ->type_name("PATH")
      ->default_str("Debian's fortunes");
  app.add_option("--tune", o.tune, "Texts or folders of texts to fine-tune on")
      ->type_name("PATH")
      ->default_str(defaultTuneFiles().front());
  app.add_option("--hold-out", o.holdOut, "Every n-th fortune or paragraph is kept for judging")
      ->check(CLI::Range(2, 1000));
  app.add_option("--out", o.out, "Folder for loss.csv and loss.svg, created if missing");
  app.add_option("--prompt", o.prompt, "What the samples begin with");
  app.add_option("--sample", o.sample, "Bytes of generated text, 0 for none")->check(CLI::NonNegativeNumber);
  app.add_option("--temperature", o.temperature, "Of the samples; 0 takes the likeliest byte")
      ->check(CLI::NonNegativeNumber);
}

void addSizes(CLI::App& app, Options& o) {
  ModelOptions& m = o.model;
  // Bounds keep products of two sizes far from the end of Index, and typing errors from taking all memory.
  const auto upTo = [](Index most) { return CLI::Range(Index(1), most); };
  app.add_option("--hidden", m.hidden, "Width of the residual stream")->check(upTo(kMostWidth));
  app.add_option("--layers", m.layers, "Decoder layers")->check(upTo(kMostLayers));
  app.add_option("--heads", m.heads, "Query heads")->check(upTo(kMostWidth));
  app.add_option("--kv-heads", m.kvHeads, "Key and value heads")->check(upTo(kMostWidth));
  app.add_option("--ffn", m.ffn, "Width of the feed-forward layers")->check(upTo(kMostWidth));
  app.add_option("--context", m.context, "Tokens in a window")->check(upTo(kMostContext));
  app.add_option("--block-size", o.blockSize, "NF4 values that share an absmax")
      ->check(CLI::IsMember({32, 64, 128, 256, 512, 1024, 2048, 4096}));
  app.add_option("--r", o.adapter.rank, "Rank of the LoRA adapters")->check(upTo(kMostWidth));
  app.add_option("--alpha", o.adapter.alpha, "The adapters are scaled by alpha / r")->check(CLI::PositiveNumber);
  app.add_option("--dropout", o.adapter.dropout, "Of the adapters' input, in [0, 1)")->check(CLI::Range(0.0, 0.99));
}

void addTraining(CLI::App& app, Options& o) {
  app.add_option("--steps", o.trainSteps, "Steps of training")->check(CLI::Range(Index(1), kMostSteps));
  app.add_option("--tune-steps", o.tuneSteps, "Steps of fine-tuning")->check(CLI::Range(Index(1), kMostSteps));
  app.add_option("--lr", o.trainRate, "Peak learning rate of training")->check(CLI::PositiveNumber);
  app.add_option("--tune-lr", o.tuneRate, "Peak learning rate of fine-tuning")->check(CLI::PositiveNumber);
  app.add_option("--batch", o.batch, "Windows in a step")->check(CLI::PositiveNumber);
  app.add_option("--shards", o.shards, "Parts of a batch that run side by side; losses depend on it, not on --threads")
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", o.seed, "Of weights, batches, dropout and samples");
  app.add_option("--threads", o.threads, "0: one per core")->check(CLI::Range(0, 1024));
  app.add_option("--device", o.device, "Where to compute; cuda needs a GPU and a build with EigenQ::Cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_flag("--quick", o.quick, "A run of a few seconds: other defaults, see --quick --help");
}

/** Combinations that no single option can judge. */
void validate(const Options& o) {
  const ModelOptions& m = o.model;
  const auto require = [](bool valid, const std::string& message) {
    if (!valid) throw CLI::ValidationError(message);
  };
  const auto divides = [&](const char* divisor, Index d, const char* dividend, Index n) {
    require(n % d == 0,
            std::string(divisor) + " " + std::to_string(d) + " does not divide " + dividend + " " + std::to_string(n));
  };
  divides("--heads", m.heads, "--hidden", m.hidden);
  divides("--kv-heads", m.kvHeads, "--heads", m.heads);
  divides("--shards", o.shards, "--batch", o.batch);
  require(m.headDim() % 2 == 0,
          "--hidden / --heads is " + std::to_string(m.headDim()) + "; rotary positions need an even number");
  require(!o.prompt.empty(), "--prompt is empty; the model continues at least one byte");
}

}  // namespace

std::optional<Options> parseOptions(int argc, char** argv, int& status) {
  Options options;
  // Before the rest: it changes the defaults that the other options overrule.
  for (int i = 1; i < argc; ++i)
    if (std::strcmp(argv[i], "--quick") == 0) makeQuick(options);

  CLI::App app(kDescription, "finetune");
  app.option_defaults()->always_capture_default();
  addTexts(app, options);
  addSizes(app, options);
  addTraining(app, options);
  try {
    app.parse(argc, argv);
    validate(options);
  } catch (const CLI::ParseError& e) {
    status = app.exit(e);
    return std::nullopt;
  }
  if (options.threads == 0) options.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return options;
}

}  // namespace finetune
