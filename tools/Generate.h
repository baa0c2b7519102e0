// SPDX-License-Identifier: MPL-2.0
// Text behind prompts.
#ifndef EIGENQ_TOOLS_GENERATE_H
#define EIGENQ_TOOLS_GENERATE_H

#include <algorithm>
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

struct GenerateOptions {
  ModelOptions model;
  std::string prompt;
  std::string batch;  // a file of prompts, one a line; empty: none
  Index batchSize = 8;
  llm::GenerateOptions how;
  std::vector<std::string> stop;  // a text ends before the first of them
  bool ignoreEos = false;
  bool noEcho = false;
};

/** When the prompts' tokens had been read, and what came after. */
class Speed {
 public:
  void countPrompts(std::size_t tokens) { m_promptTokens += tokens; }
  void begin() { m_watch.restart(), m_first = true; }
  void countToken() {
    if (m_first) m_promptSeconds += m_watch.seconds();
    if (m_first) m_watch.restart();
    m_first = false;
    ++m_newTokens;
  }
  /** \param first  tokens that the prompts' pass has given */
  void end(std::size_t first) { m_decodeSeconds += m_watch.seconds(), m_newTokens -= first; }
  /** To standard error. */
  void print() const;

 private:
  Stopwatch m_watch;
  bool m_first = true;
  std::size_t m_promptTokens = 0, m_newTokens = 0;
  double m_promptSeconds = 0, m_decodeSeconds = 0;
};

/** The lines of a file that are not empty. */
std::vector<std::string> readPrompts(const std::string& path);
void printJsonLine(const std::string& prompt, const std::string& text, std::size_t tokens);

/** The ids of \a prompt; throws std::runtime_error where it has none or more than \a most. */
std::vector<int> encodePrompt(const llm::Tokenizer& tokenizer, const std::string& prompt, Index most);
/** Makes \a decoder one for what follows \a prompt, ended by \a stop. \returns the prompt's text. */
std::string readPrompt(llm::StreamDecoder& decoder, const std::vector<int>& prompt,
                       const std::vector<std::string>& stop);

/** Tokens that a sequence needs place for, the prompt's \a length included. */
inline Index roomFor(std::size_t length, const llm::GenerateOptions& how, Index maxPositions) {
  return std::min(maxPositions, static_cast<Index>(length) + std::min(how.maxNewTokens, maxPositions));
}

/** One prompt, printed as it comes. */
template <typename Model>
void streamOne(Model& model, const llm::Tokenizer& tokenizer, const GenerateOptions& options, Speed& speed) {
  const std::vector<int> ids = encodePrompt(tokenizer, options.prompt, model.maxPositions());
  llm::StreamDecoder decoder(tokenizer);
  const std::string prompt = readPrompt(decoder, ids, options.stop);
  if (!options.noEcho) printNow(prompt);
  llm::Generator<Model> generate(model, 1, roomFor(ids.size(), options.how, model.maxPositions()));
  speed.countPrompts(ids.size());
  speed.begin();
  generate({ids}, options.how, [&](Index, int token) {
    speed.countToken();
    printNow(decoder.push(token));
    return !decoder.stopped() && !interrupted();
  });
  speed.end(1);
  printNow(decoder.finish() + "\n");
}

/** Many prompts, some at a time, each printed as a line of JSON. */
template <typename Model>
void generateMany(Model& model, const llm::Tokenizer& tokenizer, const GenerateOptions& options, Speed& speed) {
  const std::vector<std::string> prompts = readPrompts(options.batch);
  std::vector<std::vector<int>> ids;
  for (const std::string& prompt : prompts) {
    try {
      ids.push_back(encodePrompt(tokenizer, prompt, model.maxPositions()));
    } catch (const std::runtime_error& e) {
      throw std::runtime_error(options.batch + ": prompt " + std::to_string(ids.size() + 1) + ": " + e.what());
    }
  }
  std::size_t longest = 0;
  for (const auto& prompt : ids) longest = std::max(longest, prompt.size());
  const auto atATime = std::min(static_cast<std::size_t>(options.batchSize), prompts.size());
  const Index room = roomFor(longest, options.how, model.maxPositions());
  llm::Generator<Model> generate(model, static_cast<Index>(atATime), room);
  for (std::size_t i = 0; i < prompts.size(); i += atATime) {
    const std::size_t count = std::min(atATime, prompts.size() - i);
    const std::vector<std::vector<int>> some(ids.begin() + static_cast<std::ptrdiff_t>(i),
                                             ids.begin() + static_cast<std::ptrdiff_t>(i + count));
    std::vector<llm::StreamDecoder> decoders;
    for (const auto& prompt : some) {
      speed.countPrompts(prompt.size());
      decoders.emplace_back(tokenizer);
      readPrompt(decoders.back(), prompt, options.stop);
    }
    std::vector<std::string> texts(count);
    llm::GenerateOptions how = options.how;
    how.sampling.seed += i;  // the generator counts from here
    speed.begin();
    const auto tokens = generate(some, how, [&](Index sequence, int token) {
      const auto s = static_cast<std::size_t>(sequence);
      speed.countToken();
      texts[s] += decoders[s].push(token);
      return !decoders[s].stopped() && !interrupted();
    });
    speed.end(count);
    throwIfInterrupted();
    for (std::size_t s = 0; s < count; ++s)
      printJsonLine(prompts[i + s], texts[s] + decoders[s].finish(), tokens[s].size());
  }
}

template <typename Model>
void generate(const GenerateOptions& options) {
  const llm::Tokenizer tokenizer = tokenizerOf(options.model.directory);
  llm::StreamDecoder(tokenizer).stopAt(options.stop);  // what it refuses costs no loading
  Model model = loadModel<Model>(options.model);
  GenerateOptions complete = options;
  if (!options.ignoreEos) complete.how.stopTokens = model.config().eosTokenIds;
  Speed speed;
  if (options.batch.empty())
    streamOne(model, tokenizer, complete, speed);
  else
    generateMany(model, tokenizer, complete, speed);
  throwIfInterrupted();
  speed.print();
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_GENERATE_H
