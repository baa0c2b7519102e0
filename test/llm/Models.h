// SPDX-License-Identifier: MPL-2.0
// Where the real models are that some tests run.
#ifndef EIGENQ_TEST_LLM_MODELS_H
#define EIGENQ_TEST_LLM_MODELS_H

#include <cstdlib>
#include <filesystem>
#include <string>

#include <boost/test/unit_test.hpp>

namespace EigenQ {
namespace test {

inline std::string modelPath(const std::string& name) {
  const char* folder = std::getenv("EIGENQ_MODELS");
  return (std::filesystem::path(folder ? folder : EIGENQ_MODELS_DIR) / name).string();
}

/** Skips a test case, saying so, where the model is not there. */
inline auto needsModel(const std::string& name) {
  return boost::unit_test::precondition([name](boost::unit_test::test_unit_id) -> boost::test_tools::assertion_result {
    if (std::filesystem::exists(modelPath(name))) return true;
    boost::test_tools::assertion_result missing(false);
    missing.message() << modelPath(name) << " is not there; set EIGENQ_MODELS to the folder of models";
    return missing;
  });
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_LLM_MODELS_H
