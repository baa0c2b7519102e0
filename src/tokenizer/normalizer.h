// SPDX-License-Identifier: MPL-2.0
// Normalisers: what happens to text before it is cut.
#ifndef EIGENQ_TOKENIZER_NORMALIZER_H
#define EIGENQ_TOKENIZER_NORMALIZER_H

#include <functional>
#include <string>
#include <vector>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

class Normalizer {
 public:
  /** \param node  the member "normalizer" of a tokenizer.json, or null for none */
  static Normalizer read(const JsonNode& node);

  /** \throws FormatError if the text grows beyond all measure */
  std::string operator()(std::string text) const;

  bool empty() const { return m_steps.empty(); }
  /** Whether it can take away the beginning of a text, after which "the first piece" begins elsewhere. */
  bool canRemoveText() const;

  struct Step {
    std::function<std::string(std::string)> run;
    bool canRemoveText = false;
  };

 private:
  std::string m_file;
  std::vector<Step> m_steps;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_NORMALIZER_H
