// SPDX-License-Identifier: MPL-2.0
#include "Runner.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

namespace fs = std::filesystem;

struct Group {
  const char* name;
  void (*check)(const Case&, CaseReport&);
};

constexpr Group kGroups[] = {
    {"quantize_4bit", checkQuantize4bit},
    {"nested_4bit", checkNested4bit},
    {"quantize_blockwise", checkQuantizeBlockwise},
    {"int8_vectorwise_quant", checkInt8VectorwiseQuant},
    {"int8_double_quant", checkInt8DoubleQuant},
    {"matmul_4bit", checkMatmul4bit},
    {"matmul_8bit", checkMatmul8bit},
    {"adamw8bit", checkAdamW8bit},
    {"vectorwise_quant", checkVectorwiseQuant},
    {"matmul_8bit_vectorwise", checkMatmul8bitVectorwise},
};

void failFile(Run& run, const std::string& path, const std::string& message) {
  CaseReport report;
  report.fail(message);
  run.reports["files"].add(path, report);
}

void checkCase(const Case& c, Run& run) {
  const std::string group = c.group();
  const auto known =
      std::find_if(std::begin(kGroups), std::end(kGroups), [&](const Group& g) { return group == g.name; });
  CaseReport report;
  if (known == std::end(kGroups)) {
    report.fail("unknown group");
  } else {
    try {
      known->check(c, report);
    } catch (const std::exception& e) {
      report.fail(e.what());
    }
  }
  run.reports[group].add(c.name(), report);
}

/** The group and number at the front of a tensor's key; empty for a table. */
std::string caseOf(const std::string& key) {
  const std::size_t slash = key.rfind('/');
  return slash == std::string::npos ? std::string() : key.substr(0, slash);
}

void checkCases(const test::SafetensorsFile& file, Run& run) {
  const nlohmann::json cases = nlohmann::json::parse(file.metadata("cases"));
  std::set<std::string> names;
  for (const nlohmann::json& parameters : cases) {
    const Case c(file, parameters, *run.backend);
    names.insert(c.name());
    checkCase(c, run);
  }
  for (const auto& [key, tensor] : file.tensors()) {
    if (names.count(caseOf(key)) != 0) continue;
    if (!run.backend->isHost()) {
      ++run.reports["tables"].skipped;
      continue;
    }
    CaseReport report;
    try {
      if (!checkTable(tensor, report)) report.fail("belongs to no case and is no known table");
    } catch (const std::exception& e) {
      report.fail(e.what());
    }
    run.reports["tables"].add(key, report);
  }
}

void checkFile(const fs::path& path, Run& run) {
  try {
    if (path.filename() == "tile_layouts.json") {
      checkTileLayouts(path.string(), *run.backend, run.reports);
    } else {
      const test::SafetensorsFile file(path.string());
      if (!file.metadata("cases").empty()) {
        checkCases(file, run);
      } else if (!checkLayers(file, *run.backend, run.reports)) {
        failFile(run, path.string(), "holds neither cases nor quantised layers");
      }
    }
  } catch (const std::exception& e) {
    failFile(run, path.string(), e.what());
  }
  ++run.files;
}

}  // namespace

void checkFolder(const std::string& folder, Run& run) {
  if (!fs::is_directory(folder)) return failFile(run, folder, "is no folder");
  std::vector<fs::path> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors" || entry.path().filename() == "tile_layouts.json")
      paths.push_back(entry.path());
  }
  if (paths.empty()) failFile(run, folder, "holds no *.safetensors and no tile_layouts.json");
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) checkFile(path, run);
}

int print(const Run& run) {
  std::printf("%-24s %7s %7s %7s %7s %7s  %s\n", "group", "cases", "exact", "allowed", "flips", "failed",
              "worst (codes or ulps)");
  int failed = 0, passed = 0, skipped = 0;
  for (const auto& [name, group] : run.reports) {
    skipped += group.skipped;
    if (group.cases == 0) {
      std::printf("%-24s %7d host only\n", name.c_str(), group.skipped);
      continue;
    }
    std::printf("%-24s %7d %7d %7d %7zu %7d  %g\n", name.c_str(), group.cases, group.exact,
                group.cases - group.exact - group.failed, group.flips, group.failed, group.worst);
    failed += group.failed;
    passed += group.cases - group.failed;
  }
  std::printf("\n");
  for (const auto& [name, group] : run.reports)
    for (const std::string& line : group.lines) std::printf("%s\n", line.c_str());
  std::printf("%d files, %d failed cases\n", run.files, failed);
  if (!run.backend->isHost())
    std::printf("%d cases pass on %s; %d are of the host only and were not run\n", passed,
                run.backend->device().c_str(), skipped);
  return failed;
}

}  // namespace golden
}  // namespace EigenQ
