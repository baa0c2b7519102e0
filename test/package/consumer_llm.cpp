// SPDX-License-Identifier: MPL-2.0
// A user of EigenQ::Llm, and of EigenQ::Tokenizer where it was installed.
#include <cstdlib>
#include <string>

#include <unsupported/eigen_q/src/llm/LlamaConfig.h>
#ifdef HAVE_TOKENIZER
#include <unsupported/eigen_q/Tokenizer>
#endif

int main() {
  const std::string written = EigenQ::llm::LlamaConfig().toJson();
  bool good = EigenQ::llm::LlamaConfig::fromJson(written).toJson() == written;
#ifdef HAVE_TOKENIZER
  const auto tokenizer = EigenQ::llm::Tokenizer::fromJson(
      R"({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
          "merges": ["a b"]}})");
  good = good && tokenizer.encode("ab").size() == 1;
#endif
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
