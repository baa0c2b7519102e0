// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOKENIZER_STREAM_DECODER_H
#define EIGENQ_TOKENIZER_STREAM_DECODER_H

#include <memory>
#include <string>

#include "Tokenizer.h"

namespace EigenQ {
namespace llm {

namespace internal {
class DecoderChain;
}  // namespace internal

/** Decodes ids one at a time, as a model produces them, and gives every character as soon as it is whole.
 *
 * The pieces, joined, are what Tokenizer::decode gives for all the ids at once, with one exception: where byte tokens
 * ("<0x0A>") are no UTF-8, decode replaces the whole run of them, byte by byte, and a stream has already given away the
 * characters that were whole.
 *
 * Rules about the beginning of a text, such as the space that SentencePiece puts before it, apply to the first id
 * pushed. To continue a prompt, push its ids first and leave out what they give. */
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skipSpecialTokens = true);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /** The characters that \a id completes, UTF-8; possibly none, possibly many. An id without a token adds nothing. */
  std::string push(int id);

  /** What was held back, with U+FFFD for a character that never became whole. The next push begins a new text. */
  std::string finish();

 private:
  Tokenizer m_tokenizer;
  bool m_skipSpecialTokens;
  std::unique_ptr<internal::DecoderChain> m_chain;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_STREAM_DECODER_H
