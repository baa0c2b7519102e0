// SPDX-License-Identifier: MPL-2.0
// How well a model predicts a text.
#ifndef EIGENQ_TOOLS_EVAL_H
#define EIGENQ_TOOLS_EVAL_H

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "Interrupt.h"
#include "ModelOptions.h"
#include "Stopwatch.h"
#include "Text.h"

namespace EigenQ {
namespace tools {

struct EvalOptions {
  ModelOptions model;
  std::string text;
  Index length = 0;  // tokens of a window; 0: all that the model takes
  Index stride = 0;  // from one window to the next; 0: length
  Index batch = 1;   // windows at a time
};

/** \a length tokens from \a begin on, of which the last \a fresh predict tokens that no window before has predicted. */
struct EvalWindow {
  std::size_t begin;
  std::size_t length;
  std::size_t fresh;
};

/** Windows that predict each of \a tokens but the first once, with as much context as they have. */
std::vector<EvalWindow> evalWindows(std::size_t tokens, std::size_t length, std::size_t stride);

/** Some windows side by side, with their fresh targets alone. */
llm::Batch evalBatch(const std::vector<int>& tokens, const EvalWindow* begin, const EvalWindow* end);

void printEval(double nats, std::size_t targets, double seconds);

template <typename Model>
void eval(const EvalOptions& options) {
  using Scalar = typename Model::Scalar;
  using Place = typename Model::Place;
  const std::vector<int> tokens = encodeFile(tokenizerOf(options.model.directory), options.text);
  if (tokens.size() < 2) throw std::runtime_error(options.text + ": expected two tokens or more");
  Model model = loadModel<Model>(options.model);
  const Index length = options.length > 0 ? options.length : model.maxPositions();
  if (length > model.maxPositions())
    throw std::runtime_error("--length " + std::to_string(length) + ": the model takes " +
                             std::to_string(model.maxPositions()) + " tokens");
  const Index stride = options.stride > 0 ? options.stride : length;
  if (stride > length)
    throw std::runtime_error("--stride " + std::to_string(stride) + ": a window has " + std::to_string(length) +
                             " tokens, and some would be left out");
  const std::vector<EvalWindow> windows =
      evalWindows(tokens.size(), static_cast<std::size_t>(length), static_cast<std::size_t>(stride));

  Stopwatch watch;
  double nats = 0;
  ad::Tape<Scalar, Place> tape;
  const ad::NoGradGuard<Scalar, Place> guard(tape);
  const auto step = static_cast<std::size_t>(options.batch);
  for (std::size_t i = 0; i < windows.size(); i += step) {
    throwIfInterrupted();
    tape.clear();
    const EvalWindow* first = windows.data() + i;
    const llm::Batch batch = evalBatch(tokens, first, first + std::min(step, windows.size() - i));
    nats += static_cast<double>(model.loss(tape, batch, ad::Reduction::Sum).item());
  }
  printEval(nats, tokens.size() - 1, watch.seconds());
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_EVAL_H
