// SPDX-License-Identifier: MPL-2.0
#include "bpe.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include <eigen_q/src/Errors.h>

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

std::string byteToken(unsigned byte) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

void refuseUnlessEmpty(const JsonNode& model, const char* key) {
  if (model.has(key) && !model.at(key).asString().empty()) model.at(key).expected("null: affixes are not supported");
}

void refuseDropout(const JsonNode& model) {
  if (!model.has("dropout")) return;
  const JsonNode dropout = model.at("dropout");
  if (!dropout.value().is_number() || dropout.value().get<double>() != 0)
    dropout.expected("null or 0: random merges are not supported");
}

/** A merge in either spelling: "a b" or ["a", "b"]. */
std::pair<std::string, std::string> readPair(const JsonNode& node) {
  if (node.value().is_array()) {
    const auto parts = node.elements();
    if (parts.size() != 2) node.fail("expected two tokens, found " + std::to_string(parts.size()));
    return {parts[0].asString(), parts[1].asString()};
  }
  if (!node.value().is_string()) node.expected("\"left right\" or [\"left\", \"right\"]");
  const std::string& text = node.asString();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    node.expected("two tokens with one space between them");
  return {text.substr(0, space), text.substr(space + 1)};
}

}  // namespace

Bpe::Bpe(const JsonNode& node)
    : m_file(node.file()),
      m_fuseUnknown(node.boolOr("fuse_unk", false)),
      m_byteFallback(node.boolOr("byte_fallback", false)),
      m_ignoreMerges(node.boolOr("ignore_merges", false)) {
  if (node.has("type")) node.choice("type", {"BPE"});  // the oldest files name no type
  refuseDropout(node);
  refuseUnlessEmpty(node, "continuing_subword_prefix");
  refuseUnlessEmpty(node, "end_of_word_suffix");
  readVocabulary(node.at("vocab"));
  readMerges(node.at("merges"));
  findBytes();
  if (node.has("unk_token")) {
    m_unknown = node.at("unk_token").asString();
    m_unknownId = m_vocabulary.find(*m_unknown);
  }
}

void Bpe::readVocabulary(const JsonNode& node) {
  for (const auto& [token, id] : node.members())
    if (!m_vocabulary.insert(token, id.asIndex()))
      id.fail("expected an id of its own, found " + std::to_string(id.asIndex()) + ", which is that of \"" +
              *m_vocabulary.token(id.asIndex()) + "\"");
}

void Bpe::readMerges(const JsonNode& node) {
  const auto merges = node.elements();
  m_merges = PairTable(merges.size());
  std::uint32_t rank = 0;
  for (const JsonNode& merge : merges) {
    if (merge.value().is_string() && merge.asString().rfind("#version", 0) == 0) continue;  // copied from a merges.txt
    const auto [left, right] = readPair(merge);
    addMerge(left, right, rank++, merge);
  }
}

void Bpe::addMerge(const std::string& left, const std::string& right, std::uint32_t rank, const JsonNode& node) {
  const auto idOf = [&](const std::string& token) {
    const int id = m_vocabulary.find(token);
    if (id == kNoToken) node.fail("expected tokens of the vocabulary, found \"" + token + "\"");
    return id;
  };
  const int leftId = idOf(left), rightId = idOf(right);
  m_merges.set(leftId, rightId, {rank, idOf(left + right)});
}

void Bpe::findBytes() {
  for (unsigned byte = 0; byte < m_byteIds.size(); ++byte) m_byteIds[byte] = m_vocabulary.find(byteToken(byte));
  for (unsigned c = 0; c < m_asciiIds.size(); ++c)
    m_asciiIds[c] = m_vocabulary.find(std::string(1, static_cast<char>(c)));
}

int Bpe::characterId(std::string_view character) const {
  const auto lead = static_cast<unsigned char>(character[0]);
  return lead < m_asciiIds.size() ? m_asciiIds[lead] : m_vocabulary.find(character);
}

/** Turns the characters of a word into the symbols that merging begins with. */
class Bpe::SymbolReader {
 public:
  SymbolReader(const Bpe& bpe, std::vector<Symbol>& symbols) : m_bpe(bpe), m_symbols(symbols) {}

  void read(std::string_view word) {
    forEachCharacter(word, [this](std::string_view character, std::size_t) { add(character); });
    flushUnknown();
    if (!m_symbols.empty()) m_symbols.back().next = -1;
  }

 private:
  void add(std::string_view character) {
    const int id = m_bpe.characterId(character);
    if (id != kNoToken) {
      flushUnknown();
      push(id);
    } else if (!addBytes(character) && m_bpe.m_unknown) {
      if (!m_bpe.m_fuseUnknown) flushUnknown();
      m_unknownPending = true;
    }
  }

  /** False unless every byte has a token. Does not flush: where only some bytes have, Hugging Face's library lets bytes
   * overtake an unknown character before them. */
  bool addBytes(std::string_view character) {
    if (!m_bpe.m_byteFallback) return false;
    const auto idOf = [this](char byte) { return m_bpe.m_byteIds[static_cast<unsigned char>(byte)]; };
    if (std::any_of(character.begin(), character.end(), [&](char byte) { return idOf(byte) == kNoToken; }))
      return false;
    for (const char byte : character) push(idOf(byte));
    return true;
  }

  void flushUnknown() {
    if (!m_unknownPending) return;
    if (m_bpe.m_unknownId == kNoToken)
      throw FormatError(m_bpe.m_file, "model.unk_token",
                        "expected a token of the vocabulary, since the text has characters without one; found \"" +
                            *m_bpe.m_unknown + "\"");
    push(m_bpe.m_unknownId);
    m_unknownPending = false;
  }

  void push(int id) {
    const int position = static_cast<int>(m_symbols.size());
    m_symbols.push_back({id, position - 1, position + 1});
  }

  const Bpe& m_bpe;
  std::vector<Symbol>& m_symbols;
  bool m_unknownPending = false;
};

void Bpe::encode(std::string_view word, Workspace& workspace, std::vector<int>& ids) const {
  if (m_ignoreMerges) {
    const int id = m_vocabulary.find(word);
    if (id != kNoToken) return ids.push_back(id);
  }
  // Positions are ints, and a character can become four symbols.
  if (word.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw FormatError("text", "word", "expected at most 2 GiB, found " + std::to_string(word.size()) + " bytes");
  workspace.m_symbols.clear();
  SymbolReader(*this, workspace.m_symbols).read(word);
  if (workspace.m_symbols.empty()) return;
  mergeAll(workspace);
  for (int at = 0; at >= 0; at = workspace.m_symbols[static_cast<std::size_t>(at)].next)
    ids.push_back(workspace.m_symbols[static_cast<std::size_t>(at)].id);
}

/** Finds the merge of the symbol at \a position with its neighbour, if any, and puts it on the queue. */
void Bpe::lookAhead(Workspace& workspace, int position) const {
  Symbol& symbol = workspace.m_symbols[static_cast<std::size_t>(position)];
  const Merge* merge = symbol.next < 0
                           ? nullptr
                           : m_merges.find(symbol.id, workspace.m_symbols[static_cast<std::size_t>(symbol.next)].id);
  symbol.rank = merge == nullptr ? Symbol::kNoMerge : merge->rank;
  if (merge == nullptr) return;
  symbol.merged = merge->token;
  // Rank before position: equal ranks merge from left to right.
  workspace.m_queue.push_back(std::uint64_t{merge->rank} << 32 | static_cast<std::uint32_t>(position));
}

void Bpe::mergeAll(Workspace& workspace) const {
  auto& symbols = workspace.m_symbols;
  auto& queue = workspace.m_queue;
  const auto later = std::greater<std::uint64_t>();
  const auto enqueue = [&](int position) {
    const std::size_t before = queue.size();
    lookAhead(workspace, position);
    if (queue.size() != before) std::push_heap(queue.begin(), queue.end(), later);
  };

  queue.clear();
  for (std::size_t i = 0; i < symbols.size(); ++i) lookAhead(workspace, static_cast<int>(i));
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const auto rank = static_cast<std::uint32_t>(queue.back() >> 32);
    const int position = static_cast<int>(queue.back() & 0xFFFFFFFF);
    queue.pop_back();
    Symbol& left = symbols[static_cast<std::size_t>(position)];
    if (left.rank != rank) continue;  // a neighbour has changed since
    Symbol& right = symbols[static_cast<std::size_t>(left.next)];
    left.id = left.merged;
    left.next = right.next;
    right.rank = Symbol::kNoMerge;  // it is part of the left one now
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = position;
    enqueue(position);
    if (left.previous >= 0) enqueue(left.previous);
  }
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
