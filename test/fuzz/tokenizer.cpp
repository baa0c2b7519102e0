// SPDX-License-Identifier: MPL-2.0
// A tokenizer.json, and behind its first zero byte a text for it.
#include <algorithm>
#include <string_view>

#include <eigen_q/src/Errors.h>
#include <unsupported/eigen_q/Tokenizer>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\0'), size);
  try {
    const auto tokenizer = EigenQ::llm::Tokenizer::fromJson(input.substr(0, end), "fuzz");
    const auto ids = tokenizer.encode(input.substr(std::min(end + 1, size)));
    tokenizer.decode(ids);
    EigenQ::llm::StreamDecoder stream(tokenizer);
    for (const int id : ids) stream.push(id);
    stream.finish();
  } catch (const EigenQ::FormatError&) {
  }
  return 0;
}
