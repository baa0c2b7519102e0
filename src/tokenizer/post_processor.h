// SPDX-License-Identifier: MPL-2.0
// Post-processors: the special tokens around the ids of a text.
#ifndef EIGENQ_TOKENIZER_POST_PROCESSOR_H
#define EIGENQ_TOKENIZER_POST_PROCESSOR_H

#include <vector>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** Ids to put before and behind those of a text. */
struct PostProcessor {
  /** \param node  the member "post_processor" of a tokenizer.json, or null for none */
  static PostProcessor read(const JsonNode& node);

  std::vector<int> before, behind;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_POST_PROCESSOR_H
