// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE TileLayout
#include <boost/test/unit_test.hpp>
#include <boost/test/data/test_case.hpp>

#include <fstream>
#include <set>

#include <nlohmann/json.hpp>

#include <eigen_q/src/TileLayout.h>

using namespace EigenQ;

namespace EigenQ {
std::ostream& operator<<(std::ostream& out, TileOrder order) { return out << "order " << int(order); }
}  // namespace EigenQ

namespace {

constexpr TileOrder kOrders[] = {TileOrder::kRow, TileOrder::kCol, TileOrder::kCol32, TileOrder::kColTuring,
                                 TileOrder::kColAmpere};
using Codes = Eigen::Matrix<std::int8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

Codes sample(Index rows, Index cols) {
  return Codes::NullaryExpr(rows, cols,
                            [](Index i, Index j) { return static_cast<std::int8_t>((i * 29 + j * 7) % 127 + 1); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(theWorkedExample) {
  struct Row {
    Index r, c, col32, turing, ampere;
  };
  for (const Row& e : {Row{13, 37, 1701, 1689, 2661}, Row{27, 6, 870, 918, 486}, Row{10, 33, 1601, 1541, 2369}}) {
    BOOST_TEST(tileOffset(TileOrder::kCol32, 40, 70, e.r, e.c) == e.col32);
    BOOST_TEST(tileOffset(TileOrder::kColTuring, 40, 70, e.r, e.c) == e.turing);
    BOOST_TEST(tileOffset(TileOrder::kColAmpere, 40, 70, e.r, e.c) == e.ampere);
  }
  BOOST_TEST(tileBufferSize(TileOrder::kCol32, 40, 70) == 3840);
  BOOST_TEST(tileBufferSize(TileOrder::kColTuring, 40, 70) == 3840);
  BOOST_TEST(tileBufferSize(TileOrder::kColAmpere, 40, 70) == 6144);
}

BOOST_AUTO_TEST_CASE(everyPositionOfTheRecordedLayouts, *boost::unit_test::label("golden")) {
  std::ifstream in(EIGENQ_TEST_DATA_DIR "/tile_layouts.json");
  const nlohmann::json layouts = nlohmann::json::parse(in);
  BOOST_TEST(layouts.size() == 10u);
  for (const nlohmann::json& layout : layouts) {
    const std::string name = layout["order"];
    const TileOrder order = name == "col32"        ? TileOrder::kCol32
                            : name == "col_turing" ? TileOrder::kColTuring
                                                   : TileOrder::kColAmpere;
    const Index rows = layout["rows"], cols = layout["cols"];
    const auto& source = layout["source_index"];
    BOOST_TEST(Index(source.size()) == tileBufferSize(order, rows, cols));
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c)
        BOOST_REQUIRE(source[std::size_t(tileOffset(order, rows, cols, r, c))] == r * cols + c);
  }
}

BOOST_DATA_TEST_CASE(elementsTakeDistinctPlacesAndPaddingStaysZero, boost::unit_test::data::make(kOrders), order) {
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{1, 1}, {8, 32}, {9, 33}, {32, 32}, {33, 31}, {40, 70}, {65, 97}}) {
    std::set<Index> offsets;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) offsets.insert(tileOffset(order, rows, cols, r, c));
    BOOST_TEST(Index(offsets.size()) == rows * cols);
    BOOST_TEST(*offsets.begin() == 0);
    BOOST_TEST(*offsets.rbegin() < tileBufferSize(order, rows, cols));
    const auto tiled = toTiles(sample(rows, cols), order);
    BOOST_TEST((tiled.buffer.array() != 0).count() == rows * cols);
  }
}

BOOST_DATA_TEST_CASE(thereAndBackCropsThePadding, boost::unit_test::data::make(kOrders), order) {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 0}, {0, 5}, {1, 1}, {13, 45}, {40, 70}}) {
    const Codes a = sample(rows, cols);
    BOOST_TEST((fromTiles(toTiles(a, order)) == a));
    const auto transposed = toTiles(a.transpose(), order);
    BOOST_TEST((transposed.rows == cols && transposed.cols == rows));
    BOOST_TEST((fromTiles(transposed) == a.transpose()));
  }
}

BOOST_AUTO_TEST_CASE(int32SumsAreTiledToo) {
  const Eigen::MatrixXi sums = Eigen::MatrixXi::Random(33, 40);
  BOOST_TEST((fromTiles(toTiles(sums, TileOrder::kCol32)) == sums));
}

BOOST_AUTO_TEST_CASE(inverseIndicesUndoATile) {
  for (const TileOrder order : {TileOrder::kCol32, TileOrder::kColTuring, TileOrder::kColAmpere}) {
    const TileIndices& indices = tileIndices(order);
    BOOST_TEST(&indices == &tileIndices(order));  // made once
    const auto [rows, cols] = tileShape(order);
    BOOST_TEST((indices.rows() == rows && indices.cols() == cols));
    BOOST_TEST(rows == (order == TileOrder::kCol32 ? 1 : order == TileOrder::kColTuring ? 8 : 32));
    BOOST_TEST(cols == 32);
    const Codes tile = sample(rows, cols);
    const auto tiled = toTiles(tile, order);
    for (Index p = 0; p < indices.size(); ++p) BOOST_REQUIRE(tiled.buffer[p] == tile.data()[indices.data()[p]]);
    // The same, found by asking the transform.
    const TileIndices found = getInverseTransformIndices(
        [&, r = rows, c = cols](const Codes& a) -> Codes {
          return Eigen::Map<const Codes>(toTiles(a, order).buffer.data(), r, c);
        },
        rows, cols);
    BOOST_TEST((found == indices));
  }
}

BOOST_AUTO_TEST_CASE(indicesOfAnyTransform) {
  const auto reverse = [](const Codes& a) -> Codes { return a.reverse(); };
  const TileIndices indices = getInverseTransformIndices(reverse, 150, 131);  // indices beyond 14 bits
  for (Index p = 0; p < indices.size(); ++p) BOOST_REQUIRE(indices.data()[p] == indices.size() - 1 - p);
  const auto repeat = [](const Codes& a) -> Codes { return Codes::Constant(a.rows(), a.cols(), a(0, 0)); };
  BOOST_CHECK_THROW(getInverseTransformIndices(repeat, 8, 32), FormatError);
  const auto crop = [](const Codes& a) -> Codes { return a.topRows(1); };
  BOOST_CHECK_THROW(getInverseTransformIndices(crop, 8, 32), FormatError);
}

BOOST_AUTO_TEST_CASE(undoneLayoutsAreCropped) {
  for (const TileOrder order : {TileOrder::kColTuring, TileOrder::kColAmpere}) {
    for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1}, {32, 64}, {40, 70}, {65, 33}}) {
      const Codes a = sample(rows, cols);
      const auto tiled = toTiles(a, order);
      const auto [paddedRows, paddedCols] = tileBufferShape(order, rows, cols);
      const Eigen::Map<const Codes> buffer(tiled.buffer.data(), paddedRows, paddedCols);
      BOOST_TEST((undoLayout(buffer, tileIndices(order), rows, cols) == a));
      const Codes padded = undoLayout(buffer, tileIndices(order));
      BOOST_TEST((padded.rows() == paddedRows && padded.cols() == paddedCols));
      BOOST_TEST((padded.topLeftCorner(rows, cols) == a));
      BOOST_TEST((padded.array() != 0).count() == rows * cols);
      BOOST_CHECK_THROW(undoLayout(buffer, tileIndices(order), paddedRows + 1, cols), FormatError);
    }
  }
  BOOST_CHECK_THROW(undoLayout(sample(9, 32), tileIndices(TileOrder::kColTuring)), FormatError);
}

BOOST_AUTO_TEST_CASE(formatsOfDevices) {
  BOOST_TEST(specialFormat(0) == TileOrder::kColTuring);
  BOOST_TEST(specialFormat(7) == TileOrder::kColTuring);
  BOOST_TEST(specialFormat(8) == TileOrder::kColAmpere);
  BOOST_TEST(specialFormat(9) == TileOrder::kColTuring);
}

BOOST_AUTO_TEST_CASE(rowsOfAnAmpereTile) {
  const Index order[] = {0, 1, 8, 9, 16, 17, 24, 25, 2, 3, 10, 11, 18, 19, 26, 27};
  for (Index place = 0; place < 16; ++place) BOOST_TEST(internal::ampereRow(order[place]) == place);
}

BOOST_AUTO_TEST_CASE(aBufferOfTheWrongSizeIsRefused) {
  auto tiled = toTiles(sample(9, 33), TileOrder::kColTuring);
  tiled.buffer.conservativeResize(tiled.buffer.size() - 1);
  BOOST_CHECK_THROW(fromTiles(tiled), FormatError);
}
