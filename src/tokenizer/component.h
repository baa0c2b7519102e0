// SPDX-License-Identifier: MPL-2.0
// What the components of a tokenizer.json have in common: objects with a "type", possibly a Sequence of others.
#ifndef EIGENQ_TOKENIZER_COMPONENT_H
#define EIGENQ_TOKENIZER_COMPONENT_H

#include <string>
#include <vector>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A row of a table of component types. */
template <typename Step>
struct ComponentType {
  const char* name;
  Step (*read)(const JsonNode&);
};

constexpr int kDeepestSequence = 16;  // read by recursion; real files nest once

/** Reads the component at \a node, Sequences flattened, into \a steps. Null adds nothing; a type that is not in the
 * table is refused by name. \param elementsKey  where a Sequence keeps its components */
template <typename Step, std::size_t N>
void readComponents(const JsonNode& node, const char* elementsKey, const ComponentType<Step> (&table)[N],
                    std::vector<Step>& steps, int depth = 0) {
  if (node.isNull()) return;
  const JsonNode type = node.at("type");
  if (type.asString() == "Sequence") {
    if (depth == kDeepestSequence)
      node.fail("Sequences nested more than " + std::to_string(kDeepestSequence) + " deep");
    for (const JsonNode& element : node.at(elementsKey).elements()) {
      if (element.isNull()) element.expected("a component");
      readComponents(element, elementsKey, table, steps, depth + 1);
    }
    return;
  }
  std::string names = "Sequence";
  for (const ComponentType<Step>& row : table) {
    if (type.asString() == row.name) {
      steps.push_back(row.read(node));
      return;
    }
    names += std::string(", ") + row.name;
  }
  type.expected("one of " + names);
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_COMPONENT_H
