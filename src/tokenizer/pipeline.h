// SPDX-License-Identifier: MPL-2.0
// Everything that a tokenizer.json says, in the order in which it happens.
#ifndef EIGENQ_TOKENIZER_PIPELINE_H
#define EIGENQ_TOKENIZER_PIPELINE_H

#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "bpe.h"
#include "decoder.h"
#include "json_node.h"
#include "normalizer.h"
#include "post_processor.h"
#include "pre_tokenizer.h"

namespace EigenQ {
namespace llm {
namespace internal {

class TokenizerPipeline {
 public:
  /** \param root  the document */
  explicit TokenizerPipeline(const JsonNode& root);

  std::vector<int> encode(std::string_view text, bool addSpecialTokens) const;

  int find(std::string_view token) const;
  /** Null for an id without a token. */
  const std::string* token(int id) const;
  const AddedTokens& addedTokens() const { return m_addedTokens; }
  const Decoder& decoder() const { return m_decoder; }
  int largestId() const;

 private:
  void encodePieces(const Pieces& pieces, std::vector<int>& ids) const;

  Normalizer m_normalizer;
  PreTokenizer m_preTokenizer;
  Bpe m_model;
  AddedTokens m_addedTokens;
  PostProcessor m_postProcessor;
  Decoder m_decoder;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_PIPELINE_H
