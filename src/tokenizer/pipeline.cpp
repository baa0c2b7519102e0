// SPDX-License-Identifier: MPL-2.0
#include "pipeline.h"

#include <algorithm>
#include <unordered_map>

#include <eigen_q/src/Errors.h>

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

constexpr const char* kVersion = "1.0";

const JsonNode& requireVersion(const JsonNode& root) {
  if (root.at("version").asString() != kVersion) root.at("version").expected(std::string("\"") + kVersion + "\"");
  return root;
}

/** A component that may be missing or null. */
template <typename Component>
Component readOptional(const JsonNode& root, const char* key) {
  static const nlohmann::json null;
  const auto node = root.find(key);
  return Component::read(node ? *node : JsonNode(null, root.file()));
}

}  // namespace

TokenizerPipeline::TokenizerPipeline(const JsonNode& root)
    : m_normalizer(readOptional<Normalizer>(requireVersion(root), "normalizer")),
      m_preTokenizer(readOptional<PreTokenizer>(root, "pre_tokenizer")),
      m_model(root.at("model")),
      m_addedTokens(root.at("added_tokens"), m_model.vocabulary(), m_normalizer),
      m_postProcessor(readOptional<PostProcessor>(root, "post_processor")),
      m_decoder(readOptional<Decoder>(root, "decoder")) {
  if (m_normalizer.canRemoveText() && m_preTokenizer.mindsTheStart())
    root.at("pre_tokenizer").fail("prepend_scheme \"first\" behind a normalizer that removes text is not supported");
}

std::vector<int> TokenizerPipeline::encode(std::string_view text, bool addSpecialTokens) const {
  const std::size_t malformed = findMalformed(text);
  if (malformed != std::string_view::npos)
    throw FormatError("text", "byte " + std::to_string(malformed),
                      "expected UTF-8, found the byte " + std::to_string(static_cast<unsigned char>(text[malformed])));
  Pieces pieces = m_addedTokens.extract(text, m_normalizer);
  m_preTokenizer(pieces);

  std::vector<int> ids;
  if (addSpecialTokens) ids = m_postProcessor.before;
  encodePieces(pieces, ids);
  if (addSpecialTokens) ids.insert(ids.end(), m_postProcessor.behind.begin(), m_postProcessor.behind.end());
  return ids;
}

void TokenizerPipeline::encodePieces(const Pieces& pieces, std::vector<int>& ids) const {
  // Words repeat: those seen before are copied from where their ids stand.
  struct Range {
    std::size_t begin, end;
  };
  std::unordered_map<std::string_view, Range> seen;
  Bpe::Workspace workspace;
  for (const Piece& piece : pieces.pieces) {
    if (piece.token != kNoToken) {
      ids.push_back(piece.token);
      continue;
    }
    const std::string_view word = pieces.textOf(piece);
    const std::size_t begin = ids.size();
    const auto [entry, isNew] = seen.try_emplace(word, Range{begin, begin});
    if (isNew) {
      m_model.encode(word, workspace, ids);
      entry->second.end = ids.size();
    } else {
      const Range known = entry->second;
      for (std::size_t i = known.begin; i != known.end; ++i) ids.push_back(ids[i]);
    }
  }
}

int TokenizerPipeline::find(std::string_view token) const {
  const int added = m_addedTokens.vocabulary().find(token);
  return added != kNoToken ? added : m_model.vocabulary().find(token);
}

const std::string* TokenizerPipeline::token(int id) const {
  const std::string* added = m_addedTokens.vocabulary().token(id);
  return added != nullptr ? added : m_model.vocabulary().token(id);
}

int TokenizerPipeline::largestId() const {
  return std::max(m_addedTokens.vocabulary().largestId(), m_model.vocabulary().largestId());
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
