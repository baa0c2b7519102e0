// SPDX-License-Identifier: MPL-2.0
// A second real model, in a format and with rotary pairs of its own: llama2.c's stories260K.
#define BOOST_TEST_MODULE llm_Llama2c
#include "Models.h"

#include <algorithm>
#include <cstdint>

#include <unsupported/eigen_q/Llm>

#include "support/TemporaryFolder.h"

namespace {

using namespace EigenQ;

/** The pieces of tok512.bin: after the longest length, for each a score, a length and its bytes. */
std::vector<std::string> readPieces(const std::string& path) {
  const std::string bytes = test::readFile(path);
  std::vector<std::string> pieces;
  for (std::size_t at = 4; at < bytes.size();) {
    std::int32_t length = 0;
    std::copy_n(bytes.data() + at + 4, 4, reinterpret_cast<char*>(&length));
    pieces.push_back(bytes.substr(at + 8, static_cast<std::size_t>(length)));
    at += 8 + static_cast<std::size_t>(length);
  }
  return pieces;
}

}  // namespace

// What run.c of llama2.c prints at temperature 0, as its own test has it.
BOOST_AUTO_TEST_CASE(itTellsTheKnownStory, *EigenQ::test::needsModel("stories260K/stories260K.bin")) {
  const auto source = llm::openLlama2c(test::modelPath("stories260K/stories260K.bin"));
  llm::Llama<> model(*source);
  llm::Generator generate(model);
  llm::GenerateOptions options;
  options.maxNewTokens = 80;
  const auto tokens = generate({{1}}, options)[0];
  const auto pieces = readPieces(test::modelPath("stories260K/tok512.bin"));
  std::string text;
  for (const int token : tokens) text += pieces.at(static_cast<std::size_t>(token));
  const std::string expected =
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
      "big, red ball.";
  BOOST_TEST(text.substr(text.find_first_not_of(' '), expected.size()) == expected);

  // As a folder of Hugging Face it is the same model.
  const test::TemporaryFolder folder;
  llm::saveLlama(model, folder.path());
  llm::Llama<> again = llm::loadLlama(folder.path());
  BOOST_TEST(llm::Generator(again)({{1}}, options)[0] == tokens, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(whatIsNoneIsRefused, *EigenQ::test::needsModel("stories260K/stories260K.bin")) {
  const test::TemporaryFolder folder;
  const std::string bytes = test::readFile(test::modelPath("stories260K/stories260K.bin"));
  BOOST_CHECK_THROW(llm::openLlama2c("no-such-file.bin"), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(folder.write("model.bin", bytes.substr(0, 20))), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(folder.write("model.bin", bytes.substr(0, bytes.size() - 4))), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(folder.write("model.bin", bytes + "1234")), FormatError);
  for (std::size_t field = 0; field < 7; ++field) {
    std::string wrong = bytes;
    wrong[4 * field + 3] = '\x7f';  // the most significant byte
    BOOST_CHECK_THROW(llm::openLlama2c(folder.write("model.bin", wrong)), FormatError);
    wrong.replace(4 * field, 4, 4, '\0');
    BOOST_CHECK_THROW(llm::openLlama2c(folder.write("model.bin", wrong)), FormatError);
  }
}

BOOST_AUTO_TEST_CASE(sizesBeyondAllFilesAreRefused) {
  // Two times 2^24 and as many layers: 2^72 weights.
  const std::int32_t large = 1 << 24, header[] = {large, large, large, 2, 2, 1, 1};
  const test::TemporaryFolder folder;
  const std::string path =
      folder.write("model.bin", std::string(reinterpret_cast<const char*>(header), sizeof header) + "1234");
  BOOST_CHECK_EXCEPTION(llm::openLlama2c(path), FormatError, [](const FormatError& e) {
    return std::string(e.what()).find("floats by the header, found a file of 32 bytes") != std::string::npos;
  });
}
