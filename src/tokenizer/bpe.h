// SPDX-License-Identifier: MPL-2.0
// Byte-pair encoding: the model of a tokenizer.json.
#ifndef EIGENQ_TOKENIZER_BPE_H
#define EIGENQ_TOKENIZER_BPE_H

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.h"
#include "pair_table.h"
#include "vocabulary.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** Splits a word into characters and merges neighbours, the pair of the lowest rank first and of equals the leftmost,
 * until none is left that merges. Source: Sennrich et al., arXiv:1508.07909. */
class Bpe {
 public:
  /** \param node  the member "model" of a tokenizer.json */
  explicit Bpe(const JsonNode& node);

  const Vocabulary& vocabulary() const { return m_vocabulary; }

  /** Memory that words share. */
  class Workspace;

  /** Appends the ids of \a word, in time n log n. */
  void encode(std::string_view word, Workspace& workspace, std::vector<int>& ids) const;

 private:
  struct Symbol;
  class SymbolReader;

  void readVocabulary(const JsonNode& node);
  void readMerges(const JsonNode& node);
  void addMerge(const std::string& left, const std::string& right, std::uint32_t rank, const JsonNode& node);
  void findBytes();
  int characterId(std::string_view character) const;
  void mergeAll(Workspace& workspace) const;
  void lookAhead(Workspace& workspace, int position) const;

  std::string m_file;
  Vocabulary m_vocabulary;
  PairTable m_merges{0};
  std::array<int, 0x80> m_asciiIds;  // the ids of ASCII characters, which are most
  std::array<int, 256> m_byteIds;    // "<0x00>" to "<0xFF>"
  std::optional<std::string> m_unknown;
  int m_unknownId = kNoToken;
  bool m_fuseUnknown, m_byteFallback, m_ignoreMerges;
};

/** One token of a word being merged; those next to each other are linked. */
struct Bpe::Symbol {
  int id;
  int previous, next;             // positions; -1 at the ends
  std::uint32_t rank = kNoMerge;  // of the merge with the next symbol, while there is one
  int merged = kNoToken;          // what that merge gives
  static constexpr std::uint32_t kNoMerge = ~std::uint32_t{0};
};

class Bpe::Workspace {
 private:
  friend class Bpe;
  std::vector<Symbol> m_symbols;
  std::vector<std::uint64_t> m_queue;  // rank and position of merges to come, a heap with the least on top
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_BPE_H
