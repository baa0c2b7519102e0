// SPDX-License-Identifier: MPL-2.0
// A text on its way to tokens: cut into pieces, each of which is a token already or text still to be looked at.
#ifndef EIGENQ_TOKENIZER_PIECES_H
#define EIGENQ_TOKENIZER_PIECES_H

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace EigenQ {
namespace llm {
namespace internal {

constexpr int kNoToken = -1;

struct Piece {
  std::size_t begin, length;  // in Pieces::text
  int token;                  // kNoToken for text
  bool atStart;               // the whole input begins here
};

struct Pieces {
  std::string text;
  std::vector<Piece> pieces;

  std::string_view textOf(const Piece& piece) const { return std::string_view(text).substr(piece.begin, piece.length); }

  /** Cuts every piece of text: \a spansOf(text) names the parts to keep, as members begin and end. */
  template <typename SpansOf>
  void split(SpansOf&& spansOf) {
    std::vector<Piece> parts;
    parts.reserve(pieces.size());
    for (const Piece& piece : pieces) {
      if (piece.token != kNoToken) {
        parts.push_back(piece);
        continue;
      }
      for (const auto& span : spansOf(textOf(piece)))
        if (span.begin != span.end)
          parts.push_back(
              {piece.begin + span.begin, span.end - span.begin, kNoToken, piece.atStart && span.begin == 0});
    }
    pieces = std::move(parts);
  }

  /** Rewrites every piece of text: \a append(out, text, atStart) adds the new text to out. */
  template <typename Append>
  void rewrite(Append&& append) {
    std::string rewritten;
    rewritten.reserve(text.size() + text.size() / 4);
    for (Piece& piece : pieces) {
      if (piece.token != kNoToken) continue;
      const std::size_t begin = rewritten.size();
      append(rewritten, textOf(piece), piece.atStart);
      piece.begin = begin;
      piece.length = rewritten.size() - begin;
    }
    text = std::move(rewritten);
  }
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_PIECES_H
