// SPDX-License-Identifier: MPL-2.0
// Finds the longest of many strings at a place in a text.
#ifndef EIGENQ_TOKENIZER_TOKEN_TRIE_H
#define EIGENQ_TOKENIZER_TOKEN_TRIE_H

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace EigenQ {
namespace llm {
namespace internal {

class TokenTrie {
 public:
  /** \a value ≥ 0. Of equal strings the first one counts. */
  void insert(std::string_view string, int value) {
    std::size_t node = 0;
    for (const char c : string) node = childOrNew(node, c);
    if (m_nodes[node].value < 0) m_nodes[node].value = value;
  }

  struct Match {
    std::size_t length;
    int value;  // -1: no match
  };

  /** The longest string that begins at the beginning of \a text. */
  Match longest(std::string_view text) const {
    Match match{0, -1};
    std::size_t node = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto child = find(node, text[i]);
      if (child == m_nodes[node].children.end() || child->first != text[i]) break;
      node = child->second;
      if (m_nodes[node].value >= 0) match = {i + 1, m_nodes[node].value};
    }
    return match;
  }

  bool empty() const { return m_nodes.size() == 1; }

 private:
  using Child = std::pair<char, std::size_t>;  // a byte and the node it leads to
  struct Node {
    std::vector<Child> children;  // by byte
    int value = -1;
  };

  std::vector<Child>::const_iterator find(std::size_t node, char c) const {
    const auto& children = m_nodes[node].children;
    return std::lower_bound(children.begin(), children.end(), c,
                            [](const Child& child, char b) { return child.first < b; });
  }

  std::size_t childOrNew(std::size_t node, char c) {
    const auto child = find(node, c);
    if (child != m_nodes[node].children.end() && child->first == c) return child->second;
    m_nodes[node].children.insert(child, {c, m_nodes.size()});
    m_nodes.emplace_back();
    return m_nodes.size() - 1;
  }

  std::vector<Node> m_nodes = std::vector<Node>(1);
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_TOKEN_TRIE_H
