// SPDX-License-Identifier: MPL-2.0
#include "normalizer.h"

#include <algorithm>
#include <utility>

#include <eigen_q/src/Errors.h>

#include "component.h"
#include "replacement.h"
#include "unicode.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

using Step = Normalizer::Step;

// No real normaliser makes texts longer than NFKD's eleven times; a chain of Replace could fill the memory.
constexpr std::size_t kLargestGrowth = 64, kShortText = 64;

template <NormalForm kForm>
Step readNormalForm(const JsonNode&) {
  return {[](const std::string& text) { return normalize(text, kForm); }};
}

Step readLowercase(const JsonNode&) {
  return {[](const std::string& text) { return toLower(text); }};
}

Step readPrepend(const JsonNode& node) {
  return {[prefix = node.at("prepend").asString()](std::string text) {
    return text.empty() ? text : prefix + text;  // nothing stays nothing
  }};
}

Step readReplace(const JsonNode& node) {
  Replacement replacement(node);
  const bool removes = replacement.content().empty();
  return {[replacement = std::move(replacement)](const std::string& text) { return replacement(text); }, removes};
}

Step readStrip(const JsonNode& node) {
  const bool left = node.at("strip_left").asBool(), right = node.at("strip_right").asBool();
  return {[left, right](std::string text) {
            if (right) text.resize(text.size() - trailingWhitespace(text));
            if (left) text.erase(0, leadingWhitespace(text));
            return text;
          },
          left};
}

constexpr ComponentType<Step> kNormalizers[] = {
    {"Prepend", readPrepend},
    {"Replace", readReplace},
    {"NFC", readNormalForm<NormalForm::kNFC>},
    {"NFD", readNormalForm<NormalForm::kNFD>},
    {"NFKC", readNormalForm<NormalForm::kNFKC>},
    {"NFKD", readNormalForm<NormalForm::kNFKD>},
    {"Lowercase", readLowercase},
    {"Strip", readStrip},
};

}  // namespace

Normalizer Normalizer::read(const JsonNode& node) {
  Normalizer normalizer;
  normalizer.m_file = node.file();
  readComponents(node, "normalizers", kNormalizers, normalizer.m_steps);
  return normalizer;
}

std::string Normalizer::operator()(std::string text) const {
  const std::size_t limit = kLargestGrowth * (text.size() + kShortText);
  for (const Step& step : m_steps) {
    text = step.run(std::move(text));
    if (text.size() > limit)
      throw FormatError(m_file, "normalizer",
                        "expected at most " + std::to_string(limit) + " bytes, found " + std::to_string(text.size()));
  }
  return text;
}

bool Normalizer::canRemoveText() const {
  return std::any_of(m_steps.begin(), m_steps.end(), [](const Step& step) { return step.canRemoveText; });
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
