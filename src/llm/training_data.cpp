// SPDX-License-Identifier: MPL-2.0
// training_data.cpp: texts as sequences of tokens, and the order in which they come.
#include <algorithm>
#include <fstream>
#include <numeric>
#include <stdexcept>

#include <unsupported/eigen_q/Autodiff>
#include <unsupported/eigen_q/src/llm/TrainingData.h>

#include "json_object.h"

namespace EigenQ {
namespace llm {
namespace {

using internal::JsonObject;

PromptCompletion readLine(const JsonObject& json) {
  if (json.has("text")) {
    if (json.has("prompt") || json.has("completion"))
      json.fail("text", "expected text alone, or prompt and completion, found both");
    return {"", json.text("text")};
  }
  return {json.text("prompt"), json.text("completion")};
}

/** An int of a hash, byte by byte (FNV-1a, 64 bits). */
std::uint64_t hashed(std::uint64_t hash, int value) {
  const auto bits = static_cast<std::uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ ((bits >> shift) & 0xFF)) * 0x100000001B3u;
  return hash;
}

}  // namespace

Index Example::counted() const {
  return static_cast<Index>(targets.size()) - std::count(targets.begin(), targets.end(), kIgnoredTarget);
}

std::vector<Example> windows(const std::vector<int>& ids, Index length) {
  if (length < 1)
    throw std::invalid_argument("windows: expected a length of 1 or more, found " + std::to_string(length));
  std::vector<Example> examples;
  for (auto first = ids.begin(); ids.end() - first > length; first += length)
    examples.push_back({{first, first + length}, {first + 1, first + length + 1}});
  return examples;
}

std::vector<PromptCompletion> readJsonLines(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw FormatError(path, "file", "cannot be opened");
  std::vector<PromptCompletion> texts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      texts.push_back(readLine(JsonObject::parse(line, path + ":" + std::to_string(number))));
  if (file.bad()) throw FormatError(path, "file", "cannot be read");
  return texts;
}

std::optional<Example> lesson(const PromptCompletion& text, const Encode& encode, std::optional<int> endToken,
                              Index maxLength) {
  std::vector<int> ids = encode(text.prompt, true);
  const auto given = static_cast<Index>(ids.size());  // tokens whose successors are targets from the last of them on
  const std::vector<int> completion = encode(text.completion, false);
  ids.insert(ids.end(), completion.begin(), completion.end());
  if (endToken) ids.push_back(*endToken);
  const Index length = std::min(static_cast<Index>(ids.size()) - 1, maxLength);
  const Index first = std::max<Index>(given - 1, 0);
  if (length <= first) return std::nullopt;
  Example example{{ids.begin(), ids.begin() + length}, {ids.begin() + 1, ids.begin() + length + 1}};
  std::fill(example.targets.begin(), example.targets.begin() + first, kIgnoredTarget);
  return example;
}

Batch packExamples(const std::vector<const Example*>& examples) {
  std::vector<std::vector<int>> sequences;
  for (const Example* example : examples) {
    if (example->targets.size() != example->tokens.size())
      throw std::invalid_argument("packExamples: expected as many targets as tokens, " +
                                  std::to_string(example->tokens.size()) + ", found " +
                                  std::to_string(example->targets.size()));
    sequences.push_back(example->tokens);
  }
  Batch batch = pack(sequences);
  batch.targets.resize(batch.size());
  for (std::size_t s = 0; s < examples.size(); ++s)
    std::copy(examples[s]->targets.begin(), examples[s]->targets.end(),
              batch.targets.data() + batch.offsets(static_cast<Index>(s)));
  return batch;
}

ShuffledOrder::ShuffledOrder(Index count, std::uint64_t seed, bool shuffle)
    : m_seed(seed), m_shuffle(shuffle), m_permutation(static_cast<std::size_t>(count)) {}

Index ShuffledOrder::operator()(Index position) {
  const auto count = static_cast<Index>(m_permutation.size());
  if (position / count != m_round) permute(position / count);
  return m_permutation[static_cast<std::size_t>(position % count)];
}

/** Fisher and Yates, with the words of one stream a round: std::shuffle differs from library to library. */
void ShuffledOrder::permute(Index round) {
  m_round = round;
  std::iota(m_permutation.begin(), m_permutation.end(), Index(0));
  if (!m_shuffle) return;
  const ad::RandomStream random{m_seed, static_cast<std::uint64_t>(round)};
  for (std::size_t i = m_permutation.size(); i > 1; --i) {
    const auto words = random(i);
    // 64 random bits modulo i: the bias is i/2⁶⁴.
    const std::uint64_t word = (std::uint64_t(words[0]) << 32) | words[1];
    std::swap(m_permutation[i - 1], m_permutation[word % i]);
  }
}

std::uint64_t checksum(const std::vector<Example>& examples) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (const Example& example : examples) {
    hash = hashed(hash, static_cast<int>(example.tokens.size()));
    for (const int id : example.tokens) hash = hashed(hash, id);
    for (const int id : example.targets) hash = hashed(hash, id);
  }
  return hash;
}

}  // namespace llm
}  // namespace EigenQ
