// SPDX-License-Identifier: MPL-2.0
// Pre-tokenisers: they cut text into words, across whose borders no merge reaches.
#ifndef EIGENQ_TOKENIZER_PRE_TOKENIZER_H
#define EIGENQ_TOKENIZER_PRE_TOKENIZER_H

#include <functional>
#include <vector>

#include "json_node.h"
#include "pieces.h"

namespace EigenQ {
namespace llm {
namespace internal {

class PreTokenizer {
 public:
  /** \param node  the member "pre_tokenizer" of a tokenizer.json, or null for none */
  static PreTokenizer read(const JsonNode& node);

  void operator()(Pieces& pieces) const;

  /** Whether it treats the first piece in its own way. */
  bool mindsTheStart() const;

  struct Step {
    std::function<void(Pieces&)> run;
    bool mindsTheStart = false;
  };

 private:
  std::vector<Step> m_steps;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_PRE_TOKENIZER_H
