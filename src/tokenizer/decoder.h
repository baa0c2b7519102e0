// SPDX-License-Identifier: MPL-2.0
// Decoders: from tokens back to text.
//
// A decoder is a chain of steps through which tokens flow. What flows are tokens in parts, so that a step that has to
// see a whole token collects its parts, and one that does not passes them on at once: one chain serves whole texts and
// streams.
#ifndef EIGENQ_TOKENIZER_DECODER_H
#define EIGENQ_TOKENIZER_DECODER_H

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "json_node.h"

namespace EigenQ {
namespace llm {
namespace internal {

class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  /** A part of a token. */
  virtual void text(std::string_view part) = 0;
  /** The token is complete. */
  virtual void endToken() = 0;
  /** There are no more tokens: passes on what is held back, and is as new. */
  virtual void finish() = 0;

  void setNext(DecoderStep* next) { m_next = next; }

 protected:
  DecoderStep& next() const { return *m_next; }

 private:
  DecoderStep* m_next = nullptr;
};

/** Whether a step may pass on the characters of a run of bytes before it knows that the whole run is UTF-8. */
enum class ByteRuns { kWhole, kEager };

class Decoder {
 public:
  /** \param node  the member "decoder" of a tokenizer.json, or null for none */
  static Decoder read(const JsonNode& node);

  using MakeStep = std::function<std::unique_ptr<DecoderStep>(ByteRuns)>;
  const std::vector<MakeStep>& steps() const { return m_steps; }

 private:
  std::vector<MakeStep> m_steps;
};

/** The steps of a decoder at work on one text. */
class DecoderChain {
 public:
  DecoderChain(const Decoder& decoder, ByteRuns byteRuns);
  ~DecoderChain();

  void push(std::string_view token);
  void finish();

  /** The text that has come out since the last call. */
  std::string take();

 private:
  class Sink;
  std::vector<std::unique_ptr<DecoderStep>> m_steps;
  std::unique_ptr<Sink> m_sink;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_DECODER_H
