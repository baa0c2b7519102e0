// SPDX-License-Identifier: MPL-2.0
// The recorded cases match, and the runner that says so can also say no.
#define BOOST_TEST_MODULE Golden
#include <boost/test/unit_test.hpp>

#include <cstring>

#include <nlohmann/json.hpp>

#include "golden_runner/Runner.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using golden::Run;
using test::readFile;
using test::TemporaryFolder;

namespace {

std::string safetensors(const std::string& header, const std::string& data = "") {
  std::string file(8, '\0');
  const std::uint64_t size = header.size();
  std::memcpy(file.data(), &size, sizeof size);
  return file + header + data;
}

int failures(const Run& run) {
  int failed = 0;
  for (const auto& [name, group] : run.reports) failed += group.failed;
  return failed;
}

Run runOn(const TemporaryFolder& folder) {
  Run run;
  golden::checkFolder(folder.path(), run);
  return run;
}

}  // namespace

BOOST_AUTO_TEST_CASE(everyRecordedCaseMatches, *boost::unit_test::label("golden")) {
  Run run;
  golden::checkFolder(EIGENQ_TEST_DATA_DIR, run);
  BOOST_TEST(golden::print(run) == 0);
  const std::map<std::string, int> expected = {{"quantize_4bit", 67},
                                               {"nested_4bit", 6},
                                               {"quantize_blockwise", 26},
                                               {"int8_vectorwise_quant", 20},
                                               {"int8_double_quant", 5},
                                               {"tables", 3},
                                               {"tile_layouts", 10},
                                               {"layer_4bit", 1},
                                               {"layer_8bit", 1},
                                               {"matmul_4bit", 30},
                                               {"matmul_8bit", 15},
                                               {"vectorwise_quant", 14},
                                               {"matmul_8bit_vectorwise", 19},
                                               {"adamw8bit", 2}};
  for (const auto& [group, cases] : expected) BOOST_TEST(run.reports[group].cases == cases);
  BOOST_TEST(run.reports["int8_vectorwise_quant"].exact == 18);
  BOOST_TEST(run.reports["tile_layouts"].exact == 10);
  BOOST_TEST(run.reports["vectorwise_quant"].exact == 14);
  BOOST_TEST(run.reports["matmul_8bit_vectorwise"].exact == 19);
}

// Every byte of a case's tensors matters: change one and the case fails.
BOOST_AUTO_TEST_CASE(aChangedByteIsFound) {
  const std::string original = readFile(EIGENQ_TEST_DATA_DIR "/bitsandbytes.safetensors");
  std::uint64_t headerSize = 0;
  std::memcpy(&headerSize, original.data(), sizeof headerSize);
  const auto header = nlohmann::json::parse(original.begin() + 8, original.begin() + 8 + std::ptrdiff_t(headerSize));
  for (const char* key : {"quantize_4bit/0/packed", "quantize_4bit/9/absmax", "quantize_4bit/40/dequantized",
                          "nested_4bit/49/absmax_codes", "nested_4bit/49/nested_absmax", "nested_4bit/49/absmax_offset",
                          "quantize_blockwise/55/codes", "int8_vectorwise_quant/68/codes",
                          "int8_vectorwise_quant/68/outlier_columns", "int8_double_quant/74/col_stats",
                          "matmul_8bit/75/CB", "matmul_8bit/75/SCB", "matmul_4bit/90/packed", "dynamic_map"}) {
    std::string changed = original;
    const auto begin = header.at(key).at("data_offsets").at(0).get<std::size_t>();
    changed[8 + headerSize + begin] ^= 0x20;
    const TemporaryFolder folder;
    folder.write("changed.safetensors", changed);
    BOOST_TEST_CONTEXT(key) { BOOST_TEST(failures(runOn(folder)) == 1); }
  }
}

BOOST_AUTO_TEST_CASE(unknownGroupsAndMissingTensorsFail) {
  const auto casesFile = [](const std::string& cases) {
    return safetensors(nlohmann::json{{"__metadata__", {{"cases", cases}}}}.dump());
  };
  for (const char* cases :
       {R"([{"group": "quantise_6bit", "name": "quantise_6bit/0"}])",
        R"([{"group": "quantize_4bit", "name": "quantize_4bit/0", "quant_type": "nf4", "blocksize": 64}])",
        R"([{"group": "quantize_blockwise"}])", "no JSON"}) {
    const TemporaryFolder folder;
    folder.write("cases.safetensors", casesFile(cases));
    BOOST_TEST_CONTEXT(cases) { BOOST_TEST(failures(runOn(folder)) == 1); }
  }
}

BOOST_AUTO_TEST_CASE(nothingToCompareIsAFailure) {
  const TemporaryFolder empty;
  BOOST_TEST(failures(runOn(empty)) == 1);
  const TemporaryFolder foreign;
  foreign.write("foreign.safetensors", safetensors("{}"));
  BOOST_TEST(failures(runOn(foreign)) == 1);
  const TemporaryFolder wrongOrder;
  wrongOrder.write("tile_layouts.json", R"([{"order": "col64", "rows": 1, "cols": 1, "source_index": [0]}])");
  BOOST_TEST(failures(runOn(wrongOrder)) == 1);
}
