// SPDX-License-Identifier: MPL-2.0
#include <unsupported/eigen_q/Tokenizer>
#include <iostream>

using namespace EigenQ;

// A tokenizer.json of three bytes and two merges; real ones come with their models.
constexpr const char* kJson = R"({"version": "1.0", "added_tokens": [],
  "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                               {"type": "ByteFallback"}, {"type": "Fuse"}]},
  "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
  "model": {"type": "BPE", "byte_fallback": true, "merges": ["l l", "▁ a"],
            "vocab": {"<0xE2>": 0, "<0x82>": 1, "<0xAC>": 2, "a": 3, "l": 4, "▁": 5, "ll": 6, "▁a": 7}}})";

int main() {
  const auto tokenizer = llm::Tokenizer::fromJson(kJson);  // fromFile("tokenizer.json") for a file
  const std::vector<int> ids = tokenizer.encode("all a€");
  for (const int id : ids) std::cout << id << " " << *tokenizer.idToToken(id) << "\n";
  std::cout << tokenizer.decode(ids) << "\n";

  llm::StreamDecoder stream(tokenizer);
  for (const int id : ids) std::cout << "[" << stream.push(id) << "]";
  std::cout << stream.finish() << "\n";

  stream.stopAt({"l a"});
  for (const int id : ids) std::cout << "[" << stream.push(id) << "]";
  std::cout << (stream.stopped() ? " stopped" : " goes on") << "\n";
}
