// SPDX-License-Identifier: MPL-2.0
// "Replace", which is a normaliser and a decoder.
#ifndef EIGENQ_TOKENIZER_REPLACEMENT_H
#define EIGENQ_TOKENIZER_REPLACEMENT_H

#include <string>
#include <string_view>

#include "json_node.h"
#include "regex.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** {"String": text} or {"Regex": pattern}. */
Regex readPattern(const JsonNode& node);

class Replacement {
 public:
  /** Members "pattern" and "content" of \a node. */
  explicit Replacement(const JsonNode& node);

  std::string operator()(std::string_view text) const;
  const std::string& content() const { return m_content; }

 private:
  Regex m_pattern;
  std::string m_content;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_REPLACEMENT_H
