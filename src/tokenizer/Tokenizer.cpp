// SPDX-License-Identifier: MPL-2.0
#include <algorithm>
#include <stdexcept>
#include <utility>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/Tokenizer>

#include "../read_file.h"
#include "../strict_json.h"
#include "json_node.h"
#include "pipeline.h"
#include "stop_strings.h"
#include "utf8.h"

namespace EigenQ {
namespace llm {

using internal::ByteRuns;
using internal::DecoderChain;
using internal::kNoToken;
using internal::StopStrings;
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
      m_chain(std::make_unique<DecoderChain>(tokenizer.m_pipeline->decoder(), ByteRuns::kEager)),
      m_stops(std::make_unique<StopStrings>()) {}

StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int id) {
  if (stopped()) return {};
  m_metStopToken = std::find(m_stopTokens.begin(), m_stopTokens.end(), id) != m_stopTokens.end();
  const std::string* token = m_tokenizer.m_pipeline->token(id);
  if (token != nullptr && !(m_skipSpecialTokens && m_tokenizer.isSpecial(id))) m_chain->push(*token);
  return m_stops->push(m_chain->take());
}

void StreamDecoder::checkStop(const std::string& string) const {
  const auto fail = [](const std::string& message) {
    throw std::invalid_argument("StreamDecoder: stop string: " + message);
  };
  if (string.empty()) fail("expected text, found none");
  const std::size_t malformed = internal::findMalformed(string);
  if (malformed != std::string::npos) fail("expected UTF-8, found another byte at " + std::to_string(malformed));
  if (!m_skipSpecialTokens || m_tokenizer.isSpecial(m_tokenizer.m_pipeline->find(string))) return;
  for (const int id : m_tokenizer.specialIds()) {
    const std::string& token = *m_tokenizer.m_pipeline->token(id);
    if (string.find(token) != std::string::npos)
      fail("expected " + token + " alone, a special token that the text leaves out, found " + string);
  }
}

void StreamDecoder::stopAt(const std::vector<std::string>& strings) {
  std::vector<int> tokens;
  for (const std::string& string : strings) {
    checkStop(string);
    const int id = m_tokenizer.m_pipeline->find(string);
    if (m_skipSpecialTokens && m_tokenizer.isSpecial(id)) tokens.push_back(id);
  }
  m_stops->replace(strings);
  m_stopTokens = std::move(tokens);
  m_metStopToken = false;
}

bool StreamDecoder::stopped() const { return m_metStopToken || m_stops->found(); }

std::string StreamDecoder::finish() {
  m_chain->finish();
  std::string text = m_stops->push(m_chain->take());
  text += m_stops->takeHeld();
  stopAt({});
  return text;
}

}  // namespace llm
}  // namespace EigenQ
