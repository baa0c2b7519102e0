// SPDX-License-Identifier: MPL-2.0
// Trains a small language model in float, quantises it to int8 and NF4, compares the three, and fine-tunes LoRA
// adapters through the frozen NF4 weights. doc/finetune.md explains the run.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <iostream>

#include "Curve.h"
#include "Options.h"
#include "Output.h"
#include "Plot.h"
#include "Progress.h"
#include "Report.h"
#include "Sample.h"
#include "Trainer.h"

namespace finetune {
namespace {

constexpr int kHeldOutPoints = 10;   // in each phase's curve
constexpr Index kCurveWindows = 64;  // of the held-out text for each of them: enough to see, not to report

double perplexity(Model& model, const std::string& text, int threads) {
  return std::exp(heldOutLoss(model, text, threads));
}

TrainOptions trainOptions(const Options& o, Index steps, double rate) {
  TrainOptions t;
  t.steps = steps;
  t.warmup = steps / 20;
  t.batch = o.batch;
  t.shards = o.shards;
  t.learningRate = rate;
  t.seed = o.seed;
  t.threads = o.threads;
  return t;
}

Phase train(Model& model, const Corpus& corpus, const TrainOptions& options, Phase phase) {
  Trainer trainer(model, corpus.train, options);
  Progress progress(std::cerr, isatty(STDERR_FILENO) != 0, phase.name, options.steps);
  const Index interval = std::max<Index>(1, options.steps / kHeldOutPoints);
  for (Index step = 0; step <= options.steps; ++step) {
    if (step > 0) {
      phase.trainLoss.push_back(trainer.step());
      phase.learningRate.push_back(trainer.learningRate());
      progress.update(step, step * trainer.tokensPerStep(), phase.trainLoss.back());
    }
    if (step % interval == 0 || step == options.steps)
      phase.heldOut[step] = heldOutLoss(model, corpus.heldOut, options.threads, kCurveWindows);
  }
  return phase;
}

template <typename Quantize>
Model quantised(const Model& model, const Quantize& quantize) {
  return model.withWeights([&](const Weight& w) -> Weight { return quantize(std::get<Parameter>(w).value()); });
}

void writeCurves(const std::string& folder, const std::vector<Phase>& phases) {
  const std::filesystem::path out = folder;
  writeFile(out / "loss.csv", toCsv(phases));
  writeFile(out / "loss.svg", plotLosses(phases));
}

void describe(const char* what, const Corpus& c) {
  std::cout << what << ": " << c.train.size() << " bytes, and " << c.heldOut.size() << " held out (" << c.nearCopies
            << " near copies dropped)\n";
}

/** Fine-tunes \a model, NF4, on another text. \returns whether its frozen part is unchanged to the bit. */
bool finetuneAdapters(Model& model, const Corpus& corpus, const Options& o, std::vector<Phase>& phases) {
  const auto sample = [&](const char* title) {
    if (o.sample > 0) printSample(std::cout, title, generate(model, o.prompt, o.sample, o.temperature, o.seed));
  };
  const double before = perplexity(model, corpus.heldOut, o.threads);
  sample("before fine-tuning");

  attachAdapters(model, o.adapter, o.seed);
  const std::uint64_t frozen = frozenChecksum(model);
  phases.push_back(train(model, corpus, trainOptions(o, o.tuneSteps, o.tuneRate),
                         {"fine-tuning", "fine-tuning, NF4 + LoRA", {}, {}, {}}));
  const std::uint64_t after = frozenChecksum(model);

  sample("after fine-tuning");
  const double tuned = perplexity(model, corpus.heldOut, o.threads);
  Index adapterBytes = 0;
  for (const Parameter* p : model.trainable()) adapterBytes += p->size() * Index(sizeof(float));
  std::printf("\nsecond text, held out: perplexity %.3f before, %.3f after (%+.1f %%)\n", before, tuned,
              100 * (tuned / before - 1));
  std::printf("adapters: %ld bytes, r = %ld on every projection and the head\n", static_cast<long>(adapterBytes),
              static_cast<long>(o.adapter.rank));
  std::printf("frozen weights and statistics: checksum %016llx before, %016llx after: %s\n",
              static_cast<unsigned long long>(frozen), static_cast<unsigned long long>(after),
              frozen == after ? "unchanged to the bit" : "CHANGED");
  return frozen == after;
}

/** \returns the exit status. */
int run(const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  EigenQ::setMaxThreads(o.threads);
  prepareFolder(o.out);
  const auto window = static_cast<std::size_t>(o.model.context + 1);
  const Corpus first = loadCorpus(o.train, static_cast<std::size_t>(o.holdOut), window);
  const Corpus second = loadCorpus(o.tune, static_cast<std::size_t>(o.holdOut), window);
  describe("first text", first);
  describe("second text", second);

  Model model(o.model, o.seed);
  std::vector<Phase> phases;
  phases.push_back(
      train(model, first, trainOptions(o, o.trainSteps, o.trainRate), {"training", "training, float", {}, {}, {}}));
  writeCurves(o.out, phases);

  Model int8 = quantised(model, [](const Eigen::MatrixXf& w) { return EigenQ::Int8Matrix(w); });
  Model nf4 = quantised(
      model, [&o](const Eigen::MatrixXf& w) { return EigenQ::NF4Matrix(w, o.blockSize, EigenQ::Statistics::kNested); });
  std::cout << "\nfirst text, held out\n";
  const auto judge = [&](const char* name, Model& m) {
    return measure(name, m, perplexity(m, first.heldOut, o.threads));
  };
  printTable(std::cout, {judge("float", model), judge("int8", int8), judge("NF4", nf4)});
  std::cout << "(projections and head; embedding and norms stay float)\n";

  const bool frozen = finetuneAdapters(nf4, second, o, phases);
  writeCurves(o.out, phases);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("wrote %s/loss.csv and loss.svg; %.0f s in all\n", o.out.c_str(), seconds);
  return frozen ? 0 : 1;
}

}  // namespace
}  // namespace finetune

int main(int argc, char** argv) try {
  int status = 0;
  const std::optional<finetune::Options> options = finetune::parseOptions(argc, argv, status);
  return options ? finetune::run(*options) : status;
} catch (const std::exception& e) {
  std::cerr << "finetune: " << e.what() << '\n';
  return 1;
}
