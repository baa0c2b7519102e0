// SPDX-License-Identifier: MPL-2.0
// Tokens and their ids.
#ifndef EIGENQ_TOKENIZER_VOCABULARY_H
#define EIGENQ_TOKENIZER_VOCABULARY_H

#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>

#include "pieces.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A one-to-one map between tokens and ids. Ids need not be consecutive. */
class Vocabulary {
 public:
  /** Returns false, and adds nothing, if the token or the id is there already. */
  bool insert(std::string token, int id) {
    if (m_ids.count(token) != 0 || m_tokens.count(id) != 0) return false;
    const std::string& stored = m_storage.emplace_back(std::move(token));
    m_ids.emplace(stored, id);
    m_tokens.emplace(id, &stored);
    if (id > m_largestId) m_largestId = id;
    return true;
  }

  /** The id of \a token, or kNoToken. */
  int find(std::string_view token) const {
    const auto found = m_ids.find(token);
    return found == m_ids.end() ? kNoToken : found->second;
  }

  /** The token of \a id, or null. */
  const std::string* token(int id) const {
    const auto found = m_tokens.find(id);
    return found == m_tokens.end() ? nullptr : found->second;
  }

  std::size_t size() const { return m_storage.size(); }
  int largestId() const { return m_largestId; }  // -1 where there is none

 private:
  std::deque<std::string> m_storage;  // the map's keys refer to it, so that elements may not move
  std::unordered_map<std::string_view, int> m_ids;
  std::unordered_map<int, const std::string*> m_tokens;
  int m_largestId = -1;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_VOCABULARY_H
