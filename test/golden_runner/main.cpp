// SPDX-License-Identifier: MPL-2.0
// eigenq_golden [--device cpu|cuda] FOLDER…: every case of every reference file in the folders against ours.
//
// Prints for each group: cases, exact matches, failures, worst deviation; then each deviation. Exits with 1 on any that
// doc/formats.md does not allow, on a damaged file and on a group that nobody has heard of; with 2 where there is no
// such device. Tables of levels are "host only" with --device cuda.
#include <cstdio>
#include <exception>

#include "Runner.h"

namespace {

int usage() {
  std::fprintf(stderr, "usage: eigenq_golden [--device cpu|cuda] FOLDER...\n");
  return 2;
}

int check(const EigenQ::golden::Backend& backend, const std::vector<std::string>& folders) {
  EigenQ::golden::Run run(backend);
  for (const std::string& folder : folders) EigenQ::golden::checkFolder(folder, run);
  return EigenQ::golden::print(run) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> folders(argv + 1, argv + argc);
  std::string device = "cpu";
  if (folders.size() >= 2 && folders[0] == "--device") {
    device = folders[1];
    folders.erase(folders.begin(), folders.begin() + 2);
  }
  if (folders.empty()) return usage();
  if (device == "cpu") return check(EigenQ::golden::hostBackend(), folders);
  if (device != "cuda") return usage();
  try {
    return check(*EigenQ::golden::cudaBackend(), folders);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "eigenq_golden: %s\n", e.what());
    return 2;
  }
}
