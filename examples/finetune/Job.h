// SPDX-License-Identifier: MPL-2.0
// The job from the texts to the curves; doc/finetune.md explains the run.
#ifndef EIGENQ_FINETUNE_JOB_H
#define EIGENQ_FINETUNE_JOB_H

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

constexpr int kHeldOutPoints = 10;   // in each phase's curve
constexpr Index kCurveWindows = 64;  // of the held-out text for each of them: enough to see, not to report

template <typename Place>
double perplexity(Model<Place>& model, const std::string& text, int threads) {
  return std::exp(heldOutLoss(model, text, threads));
}

inline TrainOptions trainOptions(const Options& o, Index steps, double rate) {
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

template <typename Place>
Phase train(Model<Place>& model, const Corpus& corpus, const TrainOptions& options, Phase phase) {
  Trainer<Place> trainer(model, corpus.train, options);
  Progress progress(std::cerr, isatty(STDERR_FILENO) != 0, phase.name, options.steps);
  const Index interval = std::max<Index>(1, options.steps / kHeldOutPoints);
  for (Index step = 0; step <= options.steps; ++step) {
    const bool measured = step % interval == 0 || step == options.steps;
    if (step > 0) {
      trainer.step();
      phase.learningRate.push_back(trainer.learningRate());
      if (measured || step % PlaceTraits<Place>::kStepsPerLook == 0) {
        for (const double loss : trainer.takeLosses()) phase.trainLoss.push_back(loss);
        progress.update(step, step * trainer.tokensPerStep(), phase.trainLoss.back());
      }
    }
    if (measured) phase.heldOut[step] = heldOutLoss(model, corpus.heldOut, options.threads, kCurveWindows);
  }
  return phase;
}

template <typename Place, typename Quantize>
Model<Place> quantised(const Model<Place>& model, const Quantize& quantize) {
  return model.withWeights(
      [&](const Weight<Place>& w) -> Weight<Place> { return quantize(std::get<Parameter<Place>>(w).value()); });
}

inline void writeCurves(const std::string& folder, const std::vector<Phase>& phases) {
  const std::filesystem::path out = folder;
  writeFile(out / "loss.csv", toCsv(phases));
  writeFile(out / "loss.svg", plotLosses(phases));
}

inline void describe(const char* what, const Corpus& c) {
  std::cout << what << ": " << c.train.size() << " bytes, and " << c.heldOut.size() << " held out (" << c.nearCopies
            << " near copies dropped)\n";
}

/** Fine-tunes \a model, NF4, on another text. \returns whether its frozen part is unchanged to the bit. */
template <typename Place>
bool finetuneAdapters(Model<Place>& model, const Corpus& corpus, const Options& o, std::vector<Phase>& phases) {
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
  for (const Parameter<Place>* p : model.trainable()) adapterBytes += p->size() * Index(sizeof(float));
  std::printf("\nsecond text, held out: perplexity %.3f before, %.3f after (%+.1f %%)\n", before, tuned,
              100 * (tuned / before - 1));
  std::printf("adapters: %ld bytes, r = %ld on every projection and the head\n", static_cast<long>(adapterBytes),
              static_cast<long>(o.adapter.rank));
  std::printf("frozen weights and statistics: checksum %016llx before, %016llx after: %s\n",
              static_cast<unsigned long long>(frozen), static_cast<unsigned long long>(after),
              frozen == after ? "unchanged to the bit" : "CHANGED");
  return frozen == after;
}

/** Throws std::runtime_error unless either text fills a batch without giving a window twice. */
inline void requireFullBatches(const Options& o, const Corpus& first, const Corpus& second) {
  const auto bytes = static_cast<Index>(std::min(first.train.size(), second.train.size()));
  const Index most = (bytes - 1) / o.model.context;
  if (o.batch > most)
    throw std::runtime_error("--batch: expected at most " + std::to_string(most) +
                             ", the windows of --context that either text fills, found " + std::to_string(o.batch));
}

/** The whole job, with its matrices in a place. \returns the exit status. */
template <typename Place>
int run(const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  EigenQ::setMaxThreads(o.threads);
  prepareFolder(o.out);
  const auto window = static_cast<std::size_t>(o.model.context + 1);
  const Corpus first = loadCorpus(o.train, static_cast<std::size_t>(o.holdOut), window);
  const Corpus second = loadCorpus(o.tune, static_cast<std::size_t>(o.holdOut), window);
  describe("first text", first);
  describe("second text", second);
  requireFullBatches(o, first, second);

  Model<Place> model(o.model, o.seed);
  std::vector<Phase> phases;
  phases.push_back(
      train(model, first, trainOptions(o, o.trainSteps, o.trainRate), {"training", "training, float", {}, {}, {}}));
  writeCurves(o.out, phases);

  Model<Place> int8 = quantised(model, [](const auto& w) { return Int8Matrix<Place>(w); });
  Model<Place> nf4 =
      quantised(model, [&o](const auto& w) { return NF4Matrix<Place>(w, o.blockSize, EigenQ::Statistics::kNested); });
  std::cout << "\nfirst text, held out\n";
  const auto judge = [&](const char* name, Model<Place>& m) {
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

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_JOB_H
