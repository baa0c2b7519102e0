// SPDX-License-Identifier: MPL-2.0
// Text files as bytes to learn from and bytes to be judged on.
#ifndef EIGENQ_FINETUNE_TEXT_H
#define EIGENQ_FINETUNE_TEXT_H

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <vector>

namespace finetune {

/** One text, split. Nothing in \c heldOut is trained on, nor a near copy of it. */
struct Corpus {
  std::string train;
  std::string heldOut;
  int nearCopies = 0;  // records left out of both: chosen for heldOut, but too much like something in train
};

/** The Debian package to name when a file below a folder is missing. */
struct TextPackage {
  const char* folder;
  const char* package;
};
constexpr TextPackage kTextPackages[] = {{"/usr/share/games/fortunes", "fortunes"},
                                         {"/usr/share/common-licenses", "base-files"}};

/** The large and inoffensive ones of Debian's fortunes, 1.2 MB of English prose, jokes and quotations. */
inline std::vector<std::string> defaultTrainFiles() {
  std::vector<std::string> files;
  for (const char* name :
       {"art", "computers", "education", "food", "humorists", "law", "linux", "literature", "medicine", "miscellaneous",
        "people", "platitudes", "riddles", "science", "startrek", "tao", "wisdom", "work"})
    files.push_back(std::string(kTextPackages[0].folder) + "/" + name);
  return files;
}

/** The licence texts of every Debian system: another kind of English. */
inline std::vector<std::string> defaultTuneFiles() { return {kTextPackages[1].folder}; }

/** Throws std::runtime_error naming \a path, and the Debian package that has it where that is known. */
[[noreturn]] inline void failToRead(const std::string& path, const std::string& reason) {
  std::string message = path + ": " + reason;
  for (const TextPackage& p : kTextPackages)
    if (path.rfind(p.folder, 0) == 0) message += "; the Debian package '" + std::string(p.package) + "' provides it";
  throw std::runtime_error(message);
}

/** Throws std::runtime_error where the file cannot be read. */
inline std::string readFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) failToRead(path, "cannot be opened");
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) failToRead(path, "cannot be read");
  return bytes;
}

/** Binary files hold zero bytes, texts do not. */
inline bool isText(const std::string& bytes) { return bytes.find('\0') == std::string::npos; }

/** Throws std::runtime_error where the file cannot be read or is no text. */
inline std::string readText(const std::string& path) {
  std::string text = readFile(path);
  if (!isText(text)) throw std::runtime_error(path + ": not a text: it holds a zero byte");
  return text;
}

/** Files as they are; folders as the texts in them, in the order of their names. Links inside a folder are skipped:
 * they name a file that is there anyway (GPL → GPL-3). */
inline std::vector<std::string> expandFolders(const std::vector<std::string>& paths) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    const auto first = static_cast<std::ptrdiff_t>(files.size());
    for (const fs::directory_entry& entry : fs::directory_iterator(path))
      if (entry.is_regular_file() && !entry.is_symlink() && isText(readFile(entry.path().string())))
        files.push_back(entry.path().string());
    std::sort(files.begin() + first, files.end());
  }
  return files;
}

/** Fortunes are separated by lines of one percent sign, other texts by empty lines. */
inline std::vector<std::string> splitRecords(const std::string& text) {
  const bool fortunes = text.rfind("%\n", 0) == 0 || text.find("\n%\n") != std::string::npos;
  const auto isBlank = [](const std::string& s) { return s.find_first_not_of(" \t\r\f") == std::string::npos; };
  std::vector<std::string> records(1);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (fortunes ? line == "%" : isBlank(line))
      records.emplace_back();
    else
      records.back() += line + "\n";
  }
  records.erase(std::remove_if(records.begin(), records.end(), isBlank), records.end());
  return records;
}

/** Every run of eight words, hashed; of a shorter record, all its words. Words, not bytes: licences quote each other
 * with other line breaks. */
inline std::vector<std::size_t> shingles(const std::string& record) {
  constexpr std::size_t kWords = 8;
  std::istringstream in(record);
  const std::vector<std::string> words((std::istream_iterator<std::string>(in)), std::istream_iterator<std::string>());
  std::vector<std::size_t> hashes;
  for (std::size_t first = 0; first == 0 || first + kWords <= words.size(); ++first) {
    std::string run;
    for (std::size_t i = first; i < std::min(first + kWords, words.size()); ++i) run += words[i] + " ";
    hashes.push_back(std::hash<std::string>()(run));
  }
  return hashes;
}

/** Holds out every \a stride-th record, except those that share more than a quarter of their eight-word runs with the
 * records that stay: one fortune stands in several files, and one paragraph in several licences. */
inline Corpus splitCorpus(const std::vector<std::string>& records, std::size_t stride) {
  Corpus corpus;
  std::unordered_set<std::size_t> seen;
  const auto isChosen = [stride](std::size_t i) { return i % stride == stride - 1; };
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (isChosen(i)) continue;
    corpus.train += records[i] + "\n";
    for (const std::size_t hash : shingles(records[i])) seen.insert(hash);
  }
  for (std::size_t i = stride - 1; i < records.size(); i += stride) {
    const std::vector<std::size_t> hashes = shingles(records[i]);
    const auto shared =
        std::count_if(hashes.begin(), hashes.end(), [&seen](std::size_t hash) { return seen.count(hash) > 0; });
    if (4 * static_cast<std::size_t>(shared) > hashes.size())
      ++corpus.nearCopies;
    else
      corpus.heldOut += records[i] + "\n";
  }
  return corpus;
}

/** Reads, splits and checks: each part has at least \a window bytes. Throws std::runtime_error, see readText(). */
inline Corpus loadCorpus(const std::vector<std::string>& paths, std::size_t stride, std::size_t window) {
  std::vector<std::string> records;
  for (const std::string& file : expandFolders(paths)) {
    const std::vector<std::string> more = splitRecords(readText(file));
    records.insert(records.end(), more.begin(), more.end());
  }
  Corpus corpus = splitCorpus(records, stride);
  if (std::min(corpus.train.size(), corpus.heldOut.size()) < window)
    throw std::runtime_error(paths.front() + (paths.size() > 1 ? " …" : "") + ": expected at least " +
                             std::to_string(window) + " bytes to train on and as many held out, found " +
                             std::to_string(corpus.train.size()) + " and " + std::to_string(corpus.heldOut.size()) +
                             "; take a longer text or a shorter --context");
  return corpus;
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_TEXT_H
