// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOKENIZER_TOKENIZER_H
#define EIGENQ_TOKENIZER_TOKENIZER_H

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace EigenQ {
namespace llm {

namespace internal {
class TokenizerPipeline;
}  // namespace internal

/** Text to token ids and back, as a tokenizer.json of Hugging Face's library `tokenizers` says: byte-pair encoding
 * (BPE) with the normalisers, pre-tokenisers, post-processors and decoders listed in doc/tokenizers.md, the same ids
 * and the same text as that library's. A file that asks for anything else is refused when it is read.
 *
 * Immutable, and cheap to copy: copies share one vocabulary. Every member may be called from several threads at once.
 */
class Tokenizer {
 public:
  /** Reads a tokenizer.json. The settings `truncation` and `padding`, which are those of batches, are not applied.
   * \throws FormatError naming the file, the place in the JSON, what was expected there and what was found. */
  static Tokenizer fromFile(const std::string& path);

  /** The same from text in memory; \a where stands for the file in errors. */
  static Tokenizer fromJson(std::string_view json, const std::string& where = "tokenizer.json");

  /** The ids of \a text. Characters without a token become bytes or the unknown token, or vanish, as the file says.
   * \param text              UTF-8, of any length; the time taken grows as n log n even without spaces
   * \param addSpecialTokens  whether the file's post-processor adds its tokens, such as one that begins a text. Special
   *                          tokens written out in \a text are recognised either way.
   * \throws FormatError if \a text is not UTF-8, naming the first byte that is not; if the file names an unknown token
   *         that it lacks and \a text needs it; if a pattern of the file gives up on \a text (its matching is limited).
   */
  std::vector<int> encode(std::string_view text, bool addSpecialTokens = true) const;

  /** The text of \a ids, UTF-8. Bytes that make no character become U+FFFD; an id without a token adds nothing (the
   * output layer of many models is larger than their vocabulary).
   * \param skipSpecialTokens  leaves out tokens that the file calls special */
  std::string decode(const std::vector<int>& ids, bool skipSpecialTokens = true) const;

  /** One more than the largest id: the least number of rows that an embedding needs. Ids below it may be unused. */
  int vocabularySize() const;

  /** The id of a token as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>"), or nothing. */
  std::optional<int> tokenToId(std::string_view token) const;

  /** The token as the vocabulary spells it, or nothing. */
  std::optional<std::string> idToToken(int id) const;

  /** Whether the file calls the token special, so that decode can leave it out. False for an id without a token. */
  bool isSpecial(int id) const;

  /** The ids of all special tokens, ascending. */
  std::vector<int> specialIds() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const internal::TokenizerPipeline> pipeline);

  std::shared_ptr<const internal::TokenizerPipeline> m_pipeline;
};

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_TOKENIZER_H
