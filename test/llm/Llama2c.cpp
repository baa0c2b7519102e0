// SPDX-License-Identifier: MPL-2.0
// A second real model, in a format and with rotary pairs of its own: llama2.c's stories260K.
#define BOOST_TEST_MODULE llm_Llama2c
#include "Models.h"

#include <cstdint>
#include <fstream>
#include <iterator>

#include <unsupported/eigen_q/Llm>

namespace {

using namespace EigenQ;

std::string readFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/** The pieces of tok512.bin: after the longest length, for each a score, a length and its bytes. */
std::vector<std::string> readPieces(const std::string& path) {
  const std::string bytes = readFile(path);
  std::vector<std::string> pieces;
  for (std::size_t at = 4; at < bytes.size();) {
    std::int32_t length = 0;
    std::copy_n(bytes.data() + at + 4, 4, reinterpret_cast<char*>(&length));
    pieces.push_back(bytes.substr(at + 8, static_cast<std::size_t>(length)));
    at += 8 + static_cast<std::size_t>(length);
  }
  return pieces;
}

std::string writeFile(const std::string& bytes) {
  const std::string path = (std::filesystem::temp_directory_path() / "eigenq-llama2c.bin").string();
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
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
  const std::string folder = (std::filesystem::temp_directory_path() / "eigenq-llama2c").string();
  llm::saveLlama(model, folder);
  llm::Llama<> again = llm::loadLlama(folder);
  BOOST_TEST(llm::Generator(again)({{1}}, options)[0] == tokens, boost::test_tools::per_element());
  std::filesystem::remove_all(folder);
}

BOOST_AUTO_TEST_CASE(whatIsNoneIsRefused, *EigenQ::test::needsModel("stories260K/stories260K.bin")) {
  const std::string bytes = readFile(test::modelPath("stories260K/stories260K.bin"));
  BOOST_CHECK_THROW(llm::openLlama2c("no-such-file.bin"), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(writeFile(bytes.substr(0, 20))), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(writeFile(bytes.substr(0, bytes.size() - 4))), FormatError);
  BOOST_CHECK_THROW(llm::openLlama2c(writeFile(bytes + "1234")), FormatError);
  for (std::size_t field = 0; field < 7; ++field) {
    std::string wrong = bytes;
    wrong[4 * field + 3] = '\x7f';  // the most significant byte
    BOOST_CHECK_THROW(llm::openLlama2c(writeFile(wrong)), FormatError);
    wrong.replace(4 * field, 4, 4, '\0');
    BOOST_CHECK_THROW(llm::openLlama2c(writeFile(wrong)), FormatError);
  }
  std::filesystem::remove(writeFile(""));
}
