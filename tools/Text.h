// SPDX-License-Identifier: MPL-2.0
// Text in and out of a model.
#ifndef EIGENQ_TOOLS_TEXT_H
#define EIGENQ_TOOLS_TEXT_H

#include <cstdio>
#include <string>
#include <vector>

#include <unsupported/eigen_q/Tokenizer>

namespace EigenQ {
namespace tools {

/** tokenizer.json in the folder of a model. */
inline llm::Tokenizer tokenizerOf(const std::string& directory) {
  return llm::Tokenizer::fromFile(directory + "/tokenizer.json");
}

/** The content of a file, or of standard input for "-". Throws std::runtime_error where it cannot be read. */
std::string readText(const std::string& path);
/** Its tokens. Throws std::runtime_error where it is not UTF-8 too. */
std::vector<int> encodeFile(const llm::Tokenizer& tokenizer, const std::string& path);

/** Prints text at once, though it ends no line. */
inline void printNow(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_TEXT_H
