// SPDX-License-Identifier: MPL-2.0
// "Metaspace", SentencePiece's way with spaces: a pre-tokeniser and a decoder.
#ifndef EIGENQ_TOKENIZER_METASPACE_H
#define EIGENQ_TOKENIZER_METASPACE_H

#include <string>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

struct Metaspace {
  enum Scheme { kAlways, kFirst, kNever };

  std::string mark;  // the character that stands for a space, "▁"
  Scheme scheme;     // which pieces get one at their beginning
  bool split;        // whether each mark begins a word

  static Metaspace read(const JsonNode& node) {
    Metaspace metaspace{node.at("replacement").asCharacter(), kAlways, node.boolOr("split", true)};
    if (node.has("prepend_scheme"))
      metaspace.scheme = static_cast<Scheme>(node.choice("prepend_scheme", {"always", "first", "never"}));
    if (!node.boolOr("add_prefix_space", true)) {  // the spelling before there were schemes
      if (node.has("prepend_scheme") && metaspace.scheme != kNever)
        node.at("add_prefix_space").fail("expected true beside this prepend_scheme, found false");
      metaspace.scheme = kNever;
    }
    return metaspace;
  }

  bool prepends(bool atStart) const { return scheme == kAlways || (scheme == kFirst && atStart); }
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_METASPACE_H
