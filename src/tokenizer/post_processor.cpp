// SPDX-License-Identifier: MPL-2.0
#include "post_processor.h"

#include <string>
#include <unordered_map>

#include "component.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

/** ByteLevel moves offsets, of which we give none. */
PostProcessor readByteLevel(const JsonNode&) { return {}; }

std::unordered_map<std::string, std::vector<int>> readTemplateTokens(const JsonNode& node) {
  std::unordered_map<std::string, std::vector<int>> tokens;
  for (const auto& [name, token] : node.members())
    for (const JsonNode& id : token.at("ids").elements()) tokens[name].push_back(id.asIndex());
  return tokens;
}

/** "single": special tokens and, once, the text: {"Sequence": {"id": "A"}}. "pair" is not for single texts. */
PostProcessor readTemplate(const JsonNode& node) {
  const auto tokens = readTemplateTokens(node.at("special_tokens"));
  PostProcessor result;
  bool textSeen = false;
  for (const JsonNode& part : node.at("single").elements()) {
    if (part.has("Sequence")) {
      part.at("Sequence").choice("id", {"A"});
      if (textSeen) part.fail("expected the text once, found it again");
      textSeen = true;
    } else {
      const JsonNode name = part.at("SpecialToken").at("id");
      const auto ids = tokens.find(name.asString());
      if (ids == tokens.end()) name.expected("one of special_tokens");
      auto& side = textSeen ? result.behind : result.before;
      side.insert(side.end(), ids->second.begin(), ids->second.end());
    }
  }
  if (!textSeen) node.at("single").fail("expected the text, {\"Sequence\": {\"id\": \"A\"}}, found none");
  return result;
}

/** BERT's and RoBERTa's: [token, id] members "cls" before the text and "sep" behind it. */
PostProcessor readClsSep(const JsonNode& node) {
  const auto idOf = [&](const char* key) {
    const auto pair = node.at(key).elements();
    if (pair.size() != 2) node.at(key).expected("a token and its id");
    return pair[1].asIndex();
  };
  return {{idOf("cls")}, {idOf("sep")}};
}

constexpr ComponentType<PostProcessor> kPostProcessors[] = {
    {"TemplateProcessing", readTemplate},
    {"ByteLevel", readByteLevel},
    {"BertProcessing", readClsSep},
    {"RobertaProcessing", readClsSep},
};

}  // namespace

PostProcessor PostProcessor::read(const JsonNode& node) {
  std::vector<PostProcessor> steps;
  readComponents(node, "processors", kPostProcessors, steps);
  PostProcessor result;
  bool found = false;
  for (PostProcessor& step : steps) {
    if (step.before.empty() && step.behind.empty()) continue;
    // Hugging Face's library takes the parts that the first one makes for a pair of texts.
    if (found) node.fail("expected one post-processor that adds tokens, found two");
    result = std::move(step);
    found = true;
  }
  return result;
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
