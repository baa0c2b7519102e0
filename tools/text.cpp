// SPDX-License-Identifier: MPL-2.0
#include "Text.h"

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

namespace EigenQ {
namespace tools {

std::string readText(const std::string& path) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in) throw std::runtime_error(path + ": cannot be read");
  return text;
}

}  // namespace tools
}  // namespace EigenQ
