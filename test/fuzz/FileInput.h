// SPDX-License-Identifier: MPL-2.0
// The input of a fuzz target as a file, for readers that take a path.
#ifndef EIGENQ_TEST_FUZZ_FILE_INPUT_H
#define EIGENQ_TEST_FUZZ_FILE_INPUT_H

#include <string>

#include "support/TemporaryFolder.h"

namespace EigenQ {
namespace fuzz {

/** \returns the path of a file with that content. The next call overwrites it. */
inline std::string fileOf(const unsigned char* data, std::size_t size) {
  static const test::TemporaryFolder folder;
  return folder.write("fuzz", std::string(data, data + size));
}

}  // namespace fuzz
}  // namespace EigenQ

#endif  // EIGENQ_TEST_FUZZ_FILE_INPUT_H
