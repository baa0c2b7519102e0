// SPDX-License-Identifier: MPL-2.0
// eigenq_golden FOLDER…: every case of every reference file in the folders against ours.
//
// Prints for each group: cases, exact matches, failures, worst deviation; then each deviation. Exits with 1 on any that
// doc/formats.md does not allow, on a damaged file and on a group that nobody has heard of.
#include <cstdio>

#include "Runner.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: eigenq_golden FOLDER...\n");
    return 2;
  }
  EigenQ::golden::Run run;
  for (int i = 1; i < argc; ++i) EigenQ::golden::checkFolder(argv[i], run);
  return EigenQ::golden::print(run) == 0 ? 0 : 1;
}
