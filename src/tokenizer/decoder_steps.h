// SPDX-License-Identifier: MPL-2.0
// The steps of decoders; see decoder.h.
#ifndef EIGENQ_TOKENIZER_DECODER_STEPS_H
#define EIGENQ_TOKENIZER_DECODER_STEPS_H

#include <string>
#include <string_view>

#include "decoder.h"
#include "metaspace.h"
#include "replacement.h"

namespace EigenQ {
namespace llm {
namespace internal {

/** A step that needs whole tokens. */
class TokenStep : public DecoderStep {
 public:
  void text(std::string_view part) final { m_token += part; }
  void endToken() final {
    token(m_token);
    m_token.clear();
  }

 protected:
  virtual void token(const std::string& token) = 0;
  void passToken(std::string_view token) {
    next().text(token);
    next().endToken();
  }

 private:
  std::string m_token;
};

/** Puts a space between tokens: what is done where there is no decoder. */
class JoinWithSpaces final : public TokenStep {
 public:
  void finish() override;

 private:
  void token(const std::string& token) override;
  bool m_first = true;
};

class ReplaceInTokens final : public TokenStep {
 public:
  explicit ReplaceInTokens(Replacement replacement) : m_replacement(std::move(replacement)) {}
  void finish() override { next().finish(); }

 private:
  void token(const std::string& token) override { passToken(m_replacement(token)); }
  Replacement m_replacement;
};

/** Marks become spaces; in the first token they vanish, unless nothing was put before texts. */
class MetaspaceToSpace final : public TokenStep {
 public:
  explicit MetaspaceToSpace(Metaspace metaspace) : m_metaspace(std::move(metaspace)) {}
  void finish() override;

 private:
  void token(const std::string& token) override;
  Metaspace m_metaspace;
  bool m_first = true;
};

/** All tokens as bytes of GPT-2's alphabet make one token of UTF-8. */
class ByteLevelToText final : public TokenStep {
 public:
  void finish() override;

 private:
  void token(const std::string& token) override;
  std::string m_bytes;  // the beginning of a character
};

/** Runs of "<0x…>" become UTF-8. */
class ByteTokensToText final : public TokenStep {
 public:
  explicit ByteTokensToText(ByteRuns runs) : m_runs(runs) {}
  void finish() override;

 private:
  void token(const std::string& token) override;
  void endRun();
  ByteRuns m_runs;
  std::string m_run;  // the run, or what has not been passed on of it
  bool m_inRun = false;
};

/** All tokens become one. */
class Fuse final : public DecoderStep {
 public:
  void text(std::string_view part) override { next().text(part); }
  void endToken() override {}
  void finish() override;
};

/** Takes a character away, up to so many times, at the beginning and at the end of each token. */
class StripTokens final : public DecoderStep {
 public:
  StripTokens(std::string character, int start, int stop)
      : m_character(std::move(character)), m_start(start), m_stop(stop), m_toStrip(start) {}
  void text(std::string_view part) override;
  void endToken() override;
  void finish() override { next().finish(); }

 private:
  std::string m_character;
  int m_start, m_stop;
  int m_toStrip;   // at the beginning of this token
  int m_held = 0;  // characters held back, which may be the end
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_DECODER_STEPS_H
