// SPDX-License-Identifier: MPL-2.0
// Walks folders of reference files and sends each case to the check of its group.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H
#define EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H

#include <string>

#include "Report.h"

namespace EigenQ {
namespace golden {

struct Run {
  Reports reports;
  int files = 0;
};

/** Compares every *.safetensors and tile_layouts.json of \a folder; a folder without any is a failure. */
void checkFolder(const std::string& folder, Run& run);

/** Prints the run and returns the number of failed cases. */
int print(const Run& run);

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H
