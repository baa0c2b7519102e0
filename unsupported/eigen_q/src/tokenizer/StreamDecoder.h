// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOKENIZER_STREAM_DECODER_H
#define EIGENQ_TOKENIZER_STREAM_DECODER_H

#include <memory>
#include <string>
#include <vector>

#include "Tokenizer.h"

namespace EigenQ {
namespace llm {

namespace internal {
class DecoderChain;
class StopStrings;
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

  /** Ends the text before the first of \a strings that becomes whole in what comes from here on; of several that do so
   * with the same character, before the longest. It may begin and end inside tokens. From then on push and finish give
   * nothing; until then they hold back what may still become a stop string. A string that is a special token ends the
   * text at that token as well, though the text leaves it out.
   *
   * To be called behind a prompt's ids: what they hold is no stop. Replaces the strings given before; the text behind a
   * finish has none.
   * \throws std::invalid_argument, and changes nothing, for a string that is empty or no UTF-8, or that has more than a
   *         special token which the text leaves out: it would never be found */
  void stopAt(const std::vector<std::string>& strings);

  /** Whether the text has come to a stop string: no id behind it adds anything. */
  bool stopped() const;

  /** What was held back, with U+FFFD for a character that never became whole. The next push begins a new text. */
  std::string finish();

 private:
  void checkStop(const std::string& string) const;

  Tokenizer m_tokenizer;
  bool m_skipSpecialTokens;
  std::unique_ptr<internal::DecoderChain> m_chain;
  std::unique_ptr<internal::StopStrings> m_stops;
  std::vector<int> m_stopTokens;  // stop strings that are tokens which the text leaves out
  bool m_metStopToken = false;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_STREAM_DECODER_H
