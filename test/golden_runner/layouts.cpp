// SPDX-License-Identifier: MPL-2.0
// layouts.cpp: tile_layouts.json, where cuBLASLt put each element of a matrix.
#include <fstream>

#include <eigen_q/src/TileLayout.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

TileOrder orderOf(const std::string& name) {
  if (name == "col32") return TileOrder::kCol32;
  if (name == "col_turing") return TileOrder::kColTuring;
  if (name == "col_ampere") return TileOrder::kColAmpere;
  throw FormatError("tile_layouts.json", "order", "unknown order " + name);
}

/** The file: source_index[p] is the row-major index of the element at position p; what is no index is padding. */
void checkLayout(const nlohmann::json& entry, TileOrder order, CaseReport& report) {
  const auto rows = entry.at("rows").get<Index>(), cols = entry.at("cols").get<Index>();
  auto expected = entry.at("source_index").get<std::vector<std::int64_t>>();
  for (std::int64_t& index : expected)
    if (index < 0 || index >= rows * cols) index = -1;

  std::vector<std::int64_t> found(static_cast<std::size_t>(tileBufferSize(order, rows, cols)), -1);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c)
      found[static_cast<std::size_t>(tileOffset(order, rows, cols, r, c))] = r * cols + c;
  report.compareIntegers("source_index", expected, found);

  Eigen::Matrix<int, Eigen::Dynamic, Eigen::Dynamic> counting(rows, cols);
  for (Index i = 0; i < counting.size(); ++i) counting.data()[i] = static_cast<int>(i);
  if (fromTiles(toTiles(counting, order)) != counting) report.fail("the round trip changes the matrix");
}

}  // namespace

void checkTileLayouts(const std::string& path, Reports& reports) {
  std::ifstream in(path);
  const nlohmann::json layouts = nlohmann::json::parse(in);
  for (const nlohmann::json& entry : layouts) {
    CaseReport report;
    const auto name = entry.at("order").get<std::string>();
    try {
      checkLayout(entry, orderOf(name), report);
    } catch (const std::exception& e) {
      report.fail(e.what());
    }
    reports["tile_layouts"].add(name, report);
  }
}

}  // namespace golden
}  // namespace EigenQ
