// SPDX-License-Identifier: MPL-2.0
// Walks folders of reference files and sends each case to the check of its group.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H
#define EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H

#include <string>

#include "Backend.h"
#include "Report.h"

namespace EigenQ {
namespace golden {

struct Run {
  explicit Run(const Backend& computedBy = hostBackend()) : backend(&computedBy) {}

  const Backend* backend;
  Reports reports;
  int files = 0;
};

/** Compares every *.safetensors and tile_layouts.json of \a folder; a folder without any is a failure. */
void checkFolder(const std::string& folder, Run& run);

/** Prints the run and returns the number of failed cases. Groups of cases without a device part are marked where a
 * device computes; they do not count as its passes. */
int print(const Run& run);

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_RUNNER_H
