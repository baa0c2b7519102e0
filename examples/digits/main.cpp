// SPDX-License-Identifier: MPL-2.0
// Trains a small classifier of handwritten digits through float, int8, LLM.int8(), NF4 and FP4 weights, and compares
// their accuracy on digits they have not seen. doc/digits.md explains the run.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>

#include <CLI/CLI.hpp>

#include "Classifier.h"

namespace digits {
namespace {

using Optimizer = EigenQ::ad::Optimizer<float>;

struct Options {
  std::string data = "-";
  ModelOptions model;
  Index epochs = 40;
  Index batch = 64;
  Index folds = 5;
  double learningRate = 5e-3;
  std::uint64_t seed = 1;
};

/** A row of the table. */
struct Path {
  const char* name;
  Format format;
  std::unique_ptr<Optimizer> (*optimizer)(std::vector<Parameter*>, double learningRate);
};

std::unique_ptr<Optimizer> adamW(std::vector<Parameter*> parameters, double learningRate) {
  return std::make_unique<EigenQ::ad::AdamW<float>>(std::move(parameters), EigenQ::ad::AdamWOptions{learningRate});
}
std::unique_ptr<Optimizer> adamW8bit(std::vector<Parameter*> parameters, double learningRate) {
  return std::make_unique<EigenQ::ad::AdamW8bit>(std::move(parameters), EigenQ::ad::AdamWOptions{learningRate});
}

constexpr Path kPaths[] = {
    {"float, all weights trained", Format::kFloat, adamW},
    {"float, 8-bit AdamW", Format::kFloat, adamW8bit},
    {"int8, all weights trained", Format::kTrainedInt8, adamW},
    {"LLM.int8(), all weights trained", Format::kTrainedLlmInt8, adamW},
    {"frozen float + adapters", Format::kFrozenFloat, adamW},
    {"frozen int8 + adapters", Format::kInt8, adamW},
    {"frozen LLM.int8() + adapters", Format::kLlmInt8, adamW},
    {"frozen NF4, nested + adapters", Format::kNF4, adamW},
    {"frozen FP4 + adapters", Format::kFP4, adamW},
};

void train(Classifier& model, Optimizer& optimizer, const Digits& digits, const Options& o, std::mt19937_64& random) {
  const Index batches = digits.size() / o.batch;  // the rest of an epoch sits out
  const auto schedule = EigenQ::ad::Schedule::cosine(o.learningRate, o.epochs * batches, batches);
  std::vector<Index> order(static_cast<std::size_t>(digits.size()));
  std::iota(order.begin(), order.end(), Index{0});
  Tape tape;
  for (Index step = 0; step < o.epochs * batches; ++step) {
    const Index first = step % batches * o.batch;
    if (first == 0) std::shuffle(order.begin(), order.end(), random);
    const Digits batch = digits({order.begin() + first, order.begin() + first + o.batch});
    tape.clear();
    optimizer.zeroGrad();
    tape.backward(crossEntropy(model(tape.constant(batch.pixels)), batch.labels));
    optimizer.setLearningRate(schedule(step));
    optimizer.step();
  }
}

Index countCorrect(Classifier& model, const Digits& digits) {
  Tape tape;
  const EigenQ::ad::NoGradGuard<float> guard(tape);
  const auto logits = model(tape.constant(digits.pixels)).value();
  Index correct = 0;
  for (Index j = 0; j < digits.size(); ++j) {
    Index guess = 0;
    logits.col(j).maxCoeff(&guess);
    correct += guess == digits.labels(j);
  }
  return correct;
}

/** The share of digits that are recognised by the classifier trained on the other folds, in percent. */
double crossValidate(const Path& path, const Digits& digits, const Options& o) {
  std::vector<Index> order(static_cast<std::size_t>(digits.size()));
  std::iota(order.begin(), order.end(), Index{0});
  std::mt19937_64 shuffle(o.seed);
  std::shuffle(order.begin(), order.end(), shuffle);
  Index correct = 0;
  for (Index fold = 0; fold < o.folds; ++fold) {
    std::vector<Index> in, out;
    for (Index i = 0; i < digits.size(); ++i)
      (i % o.folds == fold ? out : in).push_back(order[static_cast<std::size_t>(i)]);
    Digits trained = digits(in), unseen = digits(out);
    standardize(trained, unseen);
    std::mt19937_64 random(o.seed + static_cast<std::uint64_t>(fold));  // every path starts alike
    Classifier model(o.model, path.format, random);
    const auto optimizer = path.optimizer(model.trainable(), o.learningRate);
    train(model, *optimizer, trained, o, random);
    correct += countCorrect(model, unseen);
  }
  return 100 * static_cast<double>(correct) / static_cast<double>(digits.size());
}

Digits load(const std::string& path) {
  if (path == "-") return readDigits(std::cin, "standard input");
  std::ifstream in(path);
  if (!in) throw std::runtime_error(path + ": cannot be opened");
  return readDigits(in, path);
}

/** Prints the table. \returns whether every path is within a point of the first. */
bool run(const Options& o) {
  const Digits digits = load(o.data);
  std::printf("%td digits, %td folds: each digit is tested once, by a classifier that has not seen it\n\n",
              digits.size(), o.folds);
  std::printf("%-32s %10s %10s %8s\n", "hidden weights", "accuracy", "to float", "seconds");
  double reference = 0;
  bool within = true;
  for (const Path& path : kPaths) {
    const auto start = std::chrono::steady_clock::now();
    const double accuracy = crossValidate(path, digits, o);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (&path == kPaths) reference = accuracy;
    std::printf("%-32s %8.2f %% %+8.2f %8.1f\n", path.name, accuracy, accuracy - reference, seconds);
    std::fflush(stdout);
    within = within && accuracy >= reference - 1;
  }
  std::printf("\n%s\n",
              within ? "every path is within one point of float" : "a path is MORE than one point below float");
  return within;
}

}  // namespace
}  // namespace digits

int main(int argc, char** argv) try {
  digits::Options o;
  CLI::App app("Classifies handwritten digits through quantised weights; see doc/digits.md");
  app.add_option("data", o.data, "digits.csv; - for standard input")->capture_default_str();
  app.add_option("--hidden", o.model.hidden, "width of both hidden layers")->check(CLI::Range(1, 4096));
  app.add_option("--rank", o.model.rank, "of the adapters")->check(CLI::Range(1, 4096));
  app.add_option("--threshold", o.model.threshold, "of LLM.int8()")->check(CLI::Range(0.0f, 1e30f));
  app.add_option("--epochs", o.epochs, "passes over the training digits")->check(CLI::Range(1, 10000));
  app.add_option("--batch", o.batch, "digits in a step")->check(CLI::Range(1, 64));
  app.add_option("--folds", o.folds, "parts of the data, each tested once")->check(CLI::Range(2, 50));
  app.add_option("--lr", o.learningRate, "highest learning rate")->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", o.seed, "of starting values, folds and order");
  for (CLI::Option* option : app.get_options()) option->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return digits::run(o) ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << "digits: " << e.what() << '\n';
  return 1;
}
