// SPDX-License-Identifier: MPL-2.0
// Token sequences to learn from.
#ifndef EIGENQ_LLM_TRAINING_DATA_H
#define EIGENQ_LLM_TRAINING_DATA_H

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "Batch.h"

namespace EigenQ {
namespace llm {

/** A sequence, and at each of its tokens what is to be predicted. */
struct Example {
  std::vector<int> tokens;
  std::vector<int> targets;  // as many; kIgnoredTarget where nothing is

  Index counted() const;
};

/** \a ids cut into sequences of \a length tokens, one behind the other; what is left over at the end, less than one, is
 * not used. Each token but the first of all is a target once. */
std::vector<Example> windows(const std::vector<int>& ids, Index length);

/** A text to continue, and how. An empty prompt makes all of the completion a lesson. */
struct PromptCompletion {
  std::string prompt;
  std::string completion;
};

/** A file of JSON objects, one a line, with "prompt" and "completion", or "text" alone; other members are left alone,
 * empty lines skipped. Throws FormatError, naming file and line, where one is no such object. */
std::vector<PromptCompletion> readJsonLines(const std::string& path);

/** How a text becomes tokens, Tokenizer::encode for example; the flag asks for the tokens that begin a text. */
using Encode = std::function<std::vector<int>(const std::string& text, bool addSpecialTokens)>;

/** A prompt and its completion as one sequence, ended by \a endToken where there is one; only the completion and the
 * end are targets. Both texts are encoded by themselves, so that where the prompt ends does not depend on what follows.
 * Sequences are cut to \a maxLength tokens. \returns nothing where the cut leaves no target. */
std::optional<Example> lesson(const PromptCompletion& text, const Encode& encode, std::optional<int> endToken,
                              Index maxLength);

/** \a examples side by side. Throws std::invalid_argument where one has not a target for each token. */
Batch packExamples(const std::vector<const Example*>& examples);

/** An endless sequence of numbers below \a count: every one once, in an order of its own for each time round. Any
 * position can be asked for, so that there is no state to store. */
class ShuffledOrder {
 public:
  ShuffledOrder(Index count, std::uint64_t seed, bool shuffle = true);
  Index operator()(Index position);

 private:
  void permute(Index round);

  std::uint64_t m_seed;
  bool m_shuffle;
  Index m_round = -1;
  std::vector<Index> m_permutation;
};

/** A hash of all tokens and targets: whether a resumed run sees the same data. */
std::uint64_t checksum(const std::vector<Example>& examples);

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_TRAINING_DATA_H
