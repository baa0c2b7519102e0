// SPDX-License-Identifier: MPL-2.0
#include <utility>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/Tokenizer>

#include "../read_file.h"
#include "../strict_json.h"
#include "json_node.h"
#include "pipeline.h"

namespace EigenQ {
namespace llm {

using internal::ByteRuns;
using internal::DecoderChain;
using internal::kNoToken;
using internal::TokenizerPipeline;

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerPipeline> pipeline) : m_pipeline(std::move(pipeline)) {}

Tokenizer Tokenizer::fromFile(const std::string& path) { return fromJson(EigenQ::internal::readFile(path), path); }

Tokenizer Tokenizer::fromJson(std::string_view json, const std::string& where) {
  const nlohmann::json document = EigenQ::internal::parseStrictJson<nlohmann::json>(json, where);
  return Tokenizer(std::make_shared<const TokenizerPipeline>(internal::JsonNode(document, where)));
}

std::vector<int> Tokenizer::encode(std::string_view text, bool addSpecialTokens) const {
  return m_pipeline->encode(text, addSpecialTokens);
}

std::string Tokenizer::decode(const std::vector<int>& ids, bool skipSpecialTokens) const {
  DecoderChain chain(m_pipeline->decoder(), ByteRuns::kWhole);
  for (const int id : ids) {
    const std::string* token = m_pipeline->token(id);
    if (token != nullptr && !(skipSpecialTokens && isSpecial(id))) chain.push(*token);
  }
  chain.finish();
  return chain.take();
}

int Tokenizer::vocabularySize() const { return m_pipeline->largestId() + 1; }

std::optional<int> Tokenizer::tokenToId(std::string_view token) const {
  const int id = m_pipeline->find(token);
  return id == kNoToken ? std::nullopt : std::optional<int>(id);
}

std::optional<std::string> Tokenizer::idToToken(int id) const {
  const std::string* token = m_pipeline->token(id);
  return token == nullptr ? std::nullopt : std::optional<std::string>(*token);
}

bool Tokenizer::isSpecial(int id) const { return m_pipeline->addedTokens().isSpecial(id); }

std::vector<int> Tokenizer::specialIds() const { return m_pipeline->addedTokens().specialIds(); }

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skipSpecialTokens)
    : m_tokenizer(tokenizer),
      m_skipSpecialTokens(skipSpecialTokens),
      m_chain(std::make_unique<DecoderChain>(tokenizer.m_pipeline->decoder(), ByteRuns::kEager)) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int id) {
  const std::string* token = m_tokenizer.m_pipeline->token(id);
  if (token != nullptr && !(m_skipSpecialTokens && m_tokenizer.isSpecial(id))) m_chain->push(*token);
  return m_chain->take();
}

std::string StreamDecoder::finish() {
  m_chain->finish();
  return m_chain->take();
}

}  // namespace llm
}  // namespace EigenQ
