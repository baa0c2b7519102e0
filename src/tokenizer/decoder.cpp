// SPDX-License-Identifier: MPL-2.0
#include "decoder.h"

#include <utility>

#include "component.h"
#include "decoder_steps.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

using MakeStep = Decoder::MakeStep;

template <typename Step>
MakeStep readPlain(const JsonNode&) {
  return [](ByteRuns) { return std::make_unique<Step>(); };
}

MakeStep readByteFallback(const JsonNode&) {
  return [](ByteRuns runs) { return std::make_unique<ByteTokensToText>(runs); };
}

MakeStep readReplace(const JsonNode& node) {
  return [replacement = Replacement(node)](ByteRuns) { return std::make_unique<ReplaceInTokens>(replacement); };
}

MakeStep readMetaspace(const JsonNode& node) {
  return [metaspace = Metaspace::read(node)](ByteRuns) { return std::make_unique<MetaspaceToSpace>(metaspace); };
}

MakeStep readStrip(const JsonNode& node) {
  const std::string character = node.at("content").asCharacter();
  const int start = node.at("start").asIndex(), stop = node.at("stop").asIndex();
  return [=](ByteRuns) { return std::make_unique<StripTokens>(character, start, stop); };
}

constexpr ComponentType<MakeStep> kDecoders[] = {
    {"ByteLevel", readPlain<ByteLevelToText>},
    {"Replace", readReplace},
    {"ByteFallback", readByteFallback},
    {"Fuse", readPlain<Fuse>},
    {"Strip", readStrip},
    {"Metaspace", readMetaspace},
};

}  // namespace

Decoder Decoder::read(const JsonNode& node) {
  Decoder decoder;
  if (node.isNull())
    decoder.m_steps.push_back([](ByteRuns) { return std::make_unique<JoinWithSpaces>(); });
  else
    readComponents(node, "decoders", kDecoders, decoder.m_steps);
  return decoder;
}

class DecoderChain::Sink final : public DecoderStep {
 public:
  void text(std::string_view part) override { m_text += part; }
  void endToken() override {}
  void finish() override {}
  std::string take() { return std::exchange(m_text, {}); }

 private:
  std::string m_text;
};

DecoderChain::DecoderChain(const Decoder& decoder, ByteRuns byteRuns) : m_sink(std::make_unique<Sink>()) {
  for (const MakeStep& make : decoder.steps()) m_steps.push_back(make(byteRuns));
  for (std::size_t i = 0; i < m_steps.size(); ++i)
    m_steps[i]->setNext(i + 1 < m_steps.size() ? m_steps[i + 1].get() : m_sink.get());
}

DecoderChain::~DecoderChain() = default;

void DecoderChain::push(std::string_view token) {
  DecoderStep& first = m_steps.empty() ? *m_sink : *m_steps[0];
  first.text(token);
  first.endToken();
}

void DecoderChain::finish() {
  if (!m_steps.empty()) m_steps[0]->finish();
}

std::string DecoderChain::take() { return m_sink->take(); }

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
