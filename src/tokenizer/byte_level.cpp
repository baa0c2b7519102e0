// SPDX-License-Identifier: MPL-2.0
#include "byte_level.h"

#include "utf8.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

constexpr char32_t kFirstStandIn = 0x100;

constexpr bool printsInLatin1(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);  // U+00AD is the soft hyphen
}

struct ByteLevelTables {
  std::array<std::string, 256> characters;
  std::array<int, 2 * 256> bytes;  // by code point; -1 for those that stand for nothing

  ByteLevelTables() {
    bytes.fill(-1);
    char32_t standIn = kFirstStandIn;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char32_t codePoint = printsInLatin1(byte) ? byte : standIn++;
      appendUtf8(characters[byte], codePoint);
      bytes[codePoint] = static_cast<int>(byte);
    }
  }
};

const ByteLevelTables& tables() {
  static const ByteLevelTables instance;
  return instance;
}

}  // namespace

const std::array<std::string, 256>& byteLevelAlphabet() { return tables().characters; }

std::optional<unsigned char> byteLevelByte(char32_t codePoint) {
  const auto& bytes = tables().bytes;
  if (codePoint >= bytes.size() || bytes[codePoint] < 0) return std::nullopt;
  return static_cast<unsigned char>(bytes[codePoint]);
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
