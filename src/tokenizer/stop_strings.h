// SPDX-License-Identifier: MPL-2.0
// Strings that end a text which comes in pieces.
#ifndef EIGENQ_TOKENIZER_STOP_STRINGS_H
#define EIGENQ_TOKENIZER_STOP_STRINGS_H

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace EigenQ {
namespace llm {
namespace internal {

/** How much of a string the end of a growing text repeats: the automaton of Knuth, Morris and Pratt (SIAM J. Comput. 6,
 * 1977). It never looks back into the text, so that the text may be given away. */
class GrowingMatch {
 public:
  /** \param string  not empty */
  explicit GrowingMatch(std::string string);

  /** Adds a byte to the text. Not for a match that is whole. */
  void push(char byte);

  /** Bytes of the longest beginning of the string with which the text ends. */
  std::size_t length() const { return m_length; }
  bool isWhole() const { return m_length == m_string.size(); }

 private:
  std::size_t extend(std::size_t length, char byte) const;

  std::string m_string;
  /** Of the first n bytes, the longest shorter beginning with which they end: what is left to try behind a mismatch. */
  std::vector<std::size_t> m_border;
  std::size_t m_length = 0;
};

/** Ends a text before the first of some strings that becomes whole; of several, before the longest. Nothing depends on
 * where the text is cut into pieces. */
class StopStrings {
 public:
  /** Looks for these from here on, and for no others. What was held back stays text.
   * \param strings  UTF-8, none empty: then whatever is given consists of whole characters if the text does. */
  void replace(const std::vector<std::string>& strings);

  /** Adds to the text. \returns as much of it as no stop string can take away any more; nothing once one is found. */
  std::string push(std::string_view piece);

  /** What is held back, when no more text comes. */
  std::string takeHeld();

  bool found() const { return m_found; }

 private:
  /** Adds a byte. \returns the length of the longest string that is whole with it; 0: none. */
  std::size_t match(char byte);

  std::vector<GrowingMatch> m_matches;
  std::string m_held;
  bool m_found = false;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_STOP_STRINGS_H
