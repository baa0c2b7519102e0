// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_OPTIONS_H
#define EIGENQ_FINETUNE_OPTIONS_H

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ModelOptions.h"
#include "Text.h"

namespace finetune {

/** Everything that can be chosen on the command line; the defaults are those of scripts/demo. */
struct Options {
  std::vector<std::string> train = defaultTrainFiles();
  std::vector<std::string> tune = defaultTuneFiles();
  int holdOut = 10;  // every n-th record

  ModelOptions model;
  Index blockSize = 64;
  AdapterOptions adapter;

  Index trainSteps = 1200;
  Index tuneSteps = 200;
  double trainRate = 3e-3;
  double tuneRate = 4e-3;
  Index batch = 8;
  Index shards = 2;
  std::uint64_t seed = 1;
  int threads = 0;  // 0: as many as there are cores
  std::string device = "cpu";

  std::string prompt = "The ";
  Index sample = 300;  // bytes
  double temperature = 0.7;

  std::string out = "finetune-out";
  bool quick = false;
};

/** Reads the command line. \returns nothing when the program has nothing more to do; \a status is then its exit status:
 * 0 after --help, another after an error, which has been printed. */
std::optional<Options> parseOptions(int argc, char** argv, int& status);

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_OPTIONS_H
