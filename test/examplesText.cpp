// SPDX-License-Identifier: MPL-2.0
// How examples/finetune reads, splits and batches texts.
#define BOOST_TEST_MODULE examplesText
#include <boost/test/unit_test.hpp>

#include "examples/finetune/Batch.h"
#include "examples/finetune/Output.h"
#include "examples/finetune/Text.h"

namespace fs = std::filesystem;
using namespace finetune;

namespace {

/** A folder that goes with the test. */
struct Folder {
  Folder()
      : path(fs::temp_directory_path() / ("eigenq-" + boost::unit_test::framework::current_test_case().p_name.get())) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Folder() { fs::remove_all(path); }
  fs::path path;
};

auto saying(const std::string& part) {
  return [part](const std::exception& e) {
    BOOST_TEST_MESSAGE(e.what());
    return std::string(e.what()).find(part) != std::string::npos;
  };
}

/** A record of twelve words that no other number shares. */
std::string record(int number) {
  std::string text;
  for (int i = 0; i < 12; ++i)
    text += "w" + std::to_string(number) + "." + std::to_string(i) + (i % 4 == 3 ? "\n" : " ");
  return text;
}

}  // namespace

BOOST_AUTO_TEST_CASE(fortunesAreSplitAtPercentSigns) {
  const std::vector<std::string> expected = {"one\n\n100 % of it\n", "two\n"};
  BOOST_TEST(splitRecords("one\n\n100 % of it\n%\n%\ntwo\n%\n") == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(otherTextsAreSplitAtEmptyLines) {
  const std::vector<std::string> expected = {"one\n  more\n", "two % three\n"};
  BOOST_TEST(splitRecords("\none\n  more\n \t\n\ntwo % three") == expected, boost::test_tools::per_element());
  BOOST_TEST(splitRecords("").empty());
}

BOOST_AUTO_TEST_CASE(everyNthRecordIsHeldOut) {
  std::vector<std::string> records;
  for (int i = 0; i < 9; ++i) records.push_back(record(i));
  const Corpus corpus = splitCorpus(records, 4);
  BOOST_TEST(corpus.heldOut == record(3) + "\n" + record(7) + "\n");
  BOOST_TEST(corpus.train.find("w3.") == std::string::npos);
  BOOST_TEST(corpus.train.find("w8.") != std::string::npos);
  BOOST_TEST(corpus.nearCopies == 0);
}

BOOST_AUTO_TEST_CASE(nearCopiesOfTrainedRecordsAreNotHeldOut) {
  std::string reflowed = record(0);
  for (char& c : reflowed)
    if (c == '\n' || c == ' ') c = c == ' ' ? '\n' : ' ';
  // Twelve words make five runs of eight. Two of five shared are too many, one is not.
  const std::string sharesTwo = record(0).substr(0, record(0).find("w0.9")) + "new words here";
  const std::string sharesOne = record(0).substr(0, record(0).find("w0.8")) + "other words right here";
  const Corpus corpus = splitCorpus({record(0), reflowed, record(1), sharesTwo, record(2), sharesOne}, 2);
  BOOST_TEST(corpus.nearCopies == 2);
  BOOST_TEST(corpus.heldOut == sharesOne + "\n");
}

BOOST_AUTO_TEST_CASE(foldersGiveTheirTextsWithoutLinks) {
  const Folder folder;
  writeFile(folder.path / "b", "text");
  writeFile(folder.path / "a", "text");
  fs::create_symlink("b", folder.path / "c");
  fs::create_directory(folder.path / "d");
  writeFile(folder.path / "e.dat", std::string("\0\1", 2));
  const std::vector<std::string> expected = {"x", (folder.path / "a").string(), (folder.path / "b").string()};
  BOOST_TEST(expandFolders({"x", folder.path.string()}) == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(unreadableTextsAreNamed) {
  const Folder folder;
  writeFile(folder.path / "binary", std::string("a\0b", 3));
  BOOST_CHECK_EXCEPTION(readText((folder.path / "binary").string()), std::runtime_error, saying("binary: not a text"));
  BOOST_CHECK_EXCEPTION(readText((folder.path / "none").string()), std::runtime_error,
                        saying("none: cannot be opened"));
  BOOST_CHECK_EXCEPTION(readText("/usr/share/games/fortunes/none"), std::runtime_error, saying("package 'fortunes'"));
  writeFile(folder.path / "short", record(0));
  BOOST_CHECK_EXCEPTION(loadCorpus({(folder.path / "short").string()}, 10, 33), std::runtime_error,
                        saying("expected at least 33 bytes"));
}

BOOST_AUTO_TEST_CASE(filesAreReplacedAsAWhole) {
  const Folder folder;
  writeFile(folder.path / "file", "first, longer");
  writeFile(folder.path / "file", "second");
  BOOST_TEST(readText((folder.path / "file").string()) == "second");
  BOOST_TEST(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
  BOOST_CHECK_EXCEPTION(writeFile(folder.path / "none" / "file", ""), std::runtime_error, saying("cannot be written"));
  BOOST_CHECK_EXCEPTION(prepareFolder(folder.path / "file" / "sub"), std::runtime_error, saying("cannot be created"));
}

BOOST_AUTO_TEST_CASE(windowsPredictTheNextByte) {
  const std::string text = "abcdef\xff";
  const Batch batch = windows(text, {0, 4}, 2);
  BOOST_TEST((batch.tokens == Eigen::Vector4i('a', 'b', 'e', 'f')));
  BOOST_TEST((batch.targets == Eigen::Vector4i('b', 'c', 'f', 255)));
  BOOST_TEST((batch.positions == Eigen::Vector4i(0, 1, 0, 1)));
  BOOST_TEST((batch.offsets == Eigen::Vector3i(0, 2, 4)));
}

BOOST_AUTO_TEST_CASE(windowsStayInsideTheText) {
  const std::string text(100, 'x');
  std::mt19937_64 random(1);
  const std::vector<Index> starts = randomStarts(text, 1000, 96, random);
  BOOST_TEST(*std::min_element(starts.begin(), starts.end()) == 0);
  BOOST_TEST(*std::max_element(starts.begin(), starts.end()) == 3);  // its last target is the last byte
  const std::vector<Index> all = {0, 33, 66}, two = {0, 33};
  BOOST_TEST(consecutiveStarts(text, 33, 10) == all, boost::test_tools::per_element());
  BOOST_TEST(consecutiveStarts(text, 33, 2) == two, boost::test_tools::per_element());
  BOOST_TEST(consecutiveStarts(text, 34, 10).size() == 2u);
}
