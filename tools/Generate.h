// SPDX-License-Identifier: MPL-2.0
// Text behind prompts.
#ifndef EIGENQ_TOOLS_GENERATE_H
#define EIGENQ_TOOLS_GENERATE_H

#include <algorithm>
#include <cstdio>
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
/** The text of \a tokens as it reads behind \a prompt. */
std::string continuation(const llm::Tokenizer& tokenizer, const std::vector<int>& prompt,
                         const std::vector<int>& tokens);

/** Tokens that a sequence needs place for, the prompt's \a length included. */
inline Index roomFor(std::size_t length, const llm::GenerateOptions& how, Index maxPositions) {
  return std::min(maxPositions, static_cast<Index>(length) + std::min(how.maxNewTokens, maxPositions));
}

/** One prompt, printed as it comes. */
template <typename Model>
void streamOne(Model& model, const llm::Tokenizer& tokenizer, const GenerateOptions& options, Speed& speed) {
  const std::vector<int> ids = encodePrompt(tokenizer, options.prompt, model.maxPositions());
  llm::StreamDecoder decoder(tokenizer);
  for (const int id : ids) {
    const std::string piece = decoder.push(id);
    if (!options.noEcho) printNow(piece);
  }
  llm::Generator<Model> generate(model, 1, roomFor(ids.size(), options.how, model.maxPositions()));
  speed.countPrompts(ids.size());
  speed.begin();
  generate({ids}, options.how, [&](Index, int token) {
    speed.countToken();
    printNow(decoder.push(token));
    return !interrupted();
  });
  speed.end(1);
  printNow(decoder.finish() + "\n");
}

/** Many prompts, some at a time, each printed as a line of JSON. */
template <typename Model>
void generateMany(Model& model, const llm::Tokenizer& tokenizer, const GenerateOptions& options, Speed& speed) {
  const std::vector<std::string> prompts = readPrompts(options.batch);
  std::vector<std::vector<int>> ids;
  for (const std::string& prompt : prompts) ids.push_back(encodePrompt(tokenizer, prompt, model.maxPositions()));
  std::size_t longest = 0;
  for (const auto& prompt : ids) longest = std::max(longest, prompt.size());
  const auto atATime = std::min(static_cast<std::size_t>(options.batchSize), prompts.size());
  const Index room = roomFor(longest, options.how, model.maxPositions());
  llm::Generator<Model> generate(model, static_cast<Index>(atATime), room);
  for (std::size_t i = 0; i < prompts.size(); i += atATime) {
    const std::size_t count = std::min(atATime, prompts.size() - i);
    const std::vector<std::vector<int>> some(ids.begin() + static_cast<std::ptrdiff_t>(i),
                                             ids.begin() + static_cast<std::ptrdiff_t>(i + count));
    for (const auto& prompt : some) speed.countPrompts(prompt.size());
    speed.begin();
    const auto tokens = generate(some, options.how, [&](Index, int) {
      speed.countToken();
      return !interrupted();
    });
    speed.end(count);
    throwIfInterrupted();
    for (std::size_t s = 0; s < count; ++s)
      printJsonLine(prompts[i + s], continuation(tokenizer, some[s], tokens[s]), tokens[s].size());
  }
}

template <typename Model>
void generate(const GenerateOptions& options) {
  const llm::Tokenizer tokenizer = tokenizerOf(options.model.directory);
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
