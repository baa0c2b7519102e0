// SPDX-License-Identifier: MPL-2.0
// layouts.cpp: tile_layouts.json, where cuBLASLt put each element of a matrix.
#include <fstream>

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
void checkLayout(const nlohmann::json& entry, TileOrder order, const Backend& backend, CaseReport& report) {
  const auto rows = entry.at("rows").get<Index>(), cols = entry.at("cols").get<Index>();
  auto expected = entry.at("source_index").get<std::vector<std::int64_t>>();
  for (std::int64_t& index : expected)
    if (index < 0 || index >= rows * cols) index = -1;

  Int32Matrix counting(rows, cols);  // from 1 on: padding is 0
  for (Index i = 0; i < counting.size(); ++i) counting.data()[i] = static_cast<std::int32_t>(i + 1);
  const TiledBuffer<std::int32_t> tiled = backend.toTiles(counting, order);
  std::vector<std::int64_t> found(tiled.buffer.begin(), tiled.buffer.end());
  for (std::int64_t& index : found) --index;
  report.compareIntegers("source_index", expected, found);
  if (backend.fromTiles(tiled) != counting) report.fail("the round trip changes the matrix");
}

}  // namespace

void checkTileLayouts(const std::string& path, const Backend& backend, Reports& reports) {
  std::ifstream in(path);
  const nlohmann::json layouts = nlohmann::json::parse(in);
  for (const nlohmann::json& entry : layouts) {
    CaseReport report;
    const auto name = entry.at("order").get<std::string>();
    try {
      checkLayout(entry, orderOf(name), backend, report);
    } catch (const std::exception& e) {
      report.fail(e.what());
    }
    reports["tile_layouts"].add(name, report);
  }
}

}  // namespace golden
}  // namespace EigenQ
