// SPDX-License-Identifier: MPL-2.0
#include "Text.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

#include <eigen_q/src/Errors.h>

namespace EigenQ {
namespace tools {

std::string readText(const std::string& path) {
  std::ifstream file;
  errno = 0;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  try {
    std::string text(std::istreambuf_iterator<char>(in), {});
    if (in) return text;
  } catch (const std::ios_base::failure&) {  // libstdc++ throws for a folder, whatever the stream's exceptions() say
  }
  throw std::runtime_error(path + ": cannot be read" + (errno != 0 ? std::string(": ") + std::strerror(errno) : ""));
}

std::vector<int> encodeFile(const llm::Tokenizer& tokenizer, const std::string& path) {
  const std::string text = readText(path);
  try {
    return tokenizer.encode(text);
  } catch (const FormatError& e) {  // it knows the text, not where it came from
    throw std::runtime_error(path + ": " + e.what());
  }
}

}  // namespace tools
}  // namespace EigenQ
