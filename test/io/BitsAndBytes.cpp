// SPDX-License-Identifier: MPL-2.0
// Quantised weights that bitsandbytes stored, read and written again.
#define BOOST_TEST_MODULE BitsAndBytes
#include <boost/test/unit_test.hpp>

#include <map>

#include "Support.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using RowMajorFloats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

const std::string kGolden = EIGENQ_TEST_DATA_DIR "/io/bitsandbytes.safetensors";
const std::string kState = "quant_state.bitsandbytes__nf4";

/** Layers of the recorded file that hold a 4-bit weight of that type. */
std::vector<std::string> layersOf(const io::Checkpoint& checkpoint, const std::string& type) {
  std::vector<std::string> layers;
  for (const std::string& name : checkpoint.namesUnder(type + "."))
    if (name.size() > 7 && name.compare(name.size() - 7, 7, ".weight") == 0)
      layers.push_back(name.substr(0, name.size() - 7));
  return layers;
}

/** Bit for bit, but that -0 may stand for 0: the table that is stored says 0 where the kernels say -0. */
template <typename Matrix>
void checkValues(const io::Checkpoint& checkpoint, const std::string& layer, const Matrix& w) {
  const RowMajorFloats expected = io::toMatrix<float, Eigen::RowMajor>(checkpoint.at("expected/" + layer));
  const RowMajorFloats found = w;
  BOOST_TEST((found.array() == expected.array()).all(), layer);
}

/** What \a writer writes of a layer must be what \a checkpoint holds of it. */
void checkSameTensors(const io::SafetensorsWriter& writer, const io::Checkpoint& checkpoint, const std::string& layer,
                      bool sameStorage = true) {
  const TemporaryFolder folder;
  writer.write(folder.path("f"));
  const io::SafetensorsFile file(folder.path("f"));
  BOOST_TEST(file.tensors().size() == checkpoint.namesUnder(layer + ".").size());
  for (const io::TensorView& tensor : file.tensors()) {
    const io::TensorView& recorded = checkpoint.at(tensor.name);
    BOOST_TEST((textOf(tensor) == textOf(recorded)), tensor.name);
    if (!sameStorage && tensor.name == layer + ".weight") continue;
    BOOST_TEST((tensor.dtype == recorded.dtype && tensor.shape == recorded.shape), tensor.name);
  }
}

/** The tensors of one small layer, to be damaged one by one. */
class Layer {
 public:
  explicit Layer(Statistics statistics) : m_matrix(Eigen::MatrixXf::Random(6, 32), 64, statistics) {
    io::SafetensorsWriter writer;
    addFourBit(writer, "p.weight", m_matrix);
    const TemporaryFolder folder;
    writer.write(folder.path("f"));
    const io::SafetensorsFile file(folder.path("f"));
    for (const io::TensorView& tensor : file.tensors())
      m_tensors[tensor.name] = {tensor.dtype, tensor.shape, textOf(tensor)};
  }

  struct Tensor {
    io::DType dtype;
    std::vector<Index> shape;
    std::string bytes;
  };
  Tensor& operator[](const std::string& leaf) { return m_tensors["p.weight" + leaf]; }
  Layer& without(const std::string& leaf) {
    m_tensors.erase("p.weight" + leaf);
    return *this;
  }
  void setState(const std::string& json) { (*this)["." + kState] = {io::DType::kU8, {Index(json.size())}, json}; }

  std::string error() const {
    io::SafetensorsWriter writer;
    for (const auto& [name, tensor] : m_tensors)
      writer.addReference(name, tensor.dtype, tensor.shape, tensor.bytes.data());
    const TemporaryFolder folder;
    writer.write(folder.path("f"));
    const std::string error = errorOf([&] { io::readNF4(io::Checkpoint(folder.path("f")), "p.weight"); });
    return error.rfind(folder.path("f") + ": ", 0) == 0 ? error.substr(folder.path("f").size() + 2) : error;
  }

 private:
  NF4Matrix m_matrix;
  std::map<std::string, Tensor> m_tensors;
};

/** Writes an int8 weight in an old tiled order. */
io::SafetensorsWriter tiledWriter(const Int8Matrix& w, TileOrder order, std::uint8_t number) {
  const TiledBuffer<std::int8_t> tiled = toTiles(w.codes(), order);
  const auto [rows, cols] = tileBufferShape(order, w.rows(), w.cols());
  io::SafetensorsWriter writer;
  writer.add("p.weight", Eigen::Map<const Int8Codes>(tiled.buffer.data(), rows, cols));
  writer.add("p.SCB", w.rowAbsmax());
  writer.add("p.weight_format", io::DType::kU8, {}, [number](const io::ByteSink& sink) { sink(&number, 1); });
  return writer;
}

io::Checkpoint written(const io::SafetensorsWriter& writer, const TemporaryFolder& folder) {
  writer.write(folder.path("f"));
  return io::Checkpoint(folder.path("f"));
}

}  // namespace

BOOST_AUTO_TEST_CASE(fourBitWeightsOfEveryStorageType, *boost::unit_test::label("golden")) {
  const io::Checkpoint checkpoint(kGolden);
  int layers = 0;
  const auto check = [&](const std::string& layer, const auto& w, io::StoredAs stored) {
    BOOST_TEST((io::storedAs(checkpoint, layer + ".weight") == stored), layer);
    BOOST_TEST(w.state().isNested() == (layer.find("nested") != layer.npos));
    checkValues(checkpoint, layer, w);
    io::SafetensorsWriter writer;
    addFourBit(writer, layer + ".weight", w);
    checkSameTensors(writer, checkpoint, layer, checkpoint.at(layer + ".weight").dtype == io::DType::kU8);
    ++layers;
  };
  for (const std::string& layer : layersOf(checkpoint, "nf4"))
    check(layer, io::readNF4(checkpoint, layer + ".weight"), io::StoredAs::kNF4);
  for (const std::string& layer : layersOf(checkpoint, "fp4"))
    check(layer, io::readFP4(checkpoint, layer + ".weight"), io::StoredAs::kFP4);
  BOOST_TEST(layers == 18);
}

BOOST_AUTO_TEST_CASE(eightBitWeights, *boost::unit_test::label("golden")) {
  const io::Checkpoint checkpoint(kGolden);
  BOOST_TEST((io::storedAs(checkpoint, "int8.weight") == io::StoredAs::kInt8));
  const Int8Matrix w = io::readInt8(checkpoint, "int8.weight", 33);
  BOOST_TEST(w.rows() == 6);
  // Decoded in another order of roundings than the recording's: two more of them.
  const RowMajorFloats expected = io::toMatrix<float, Eigen::RowMajor>(checkpoint.at("expected/int8"));
  const RowMajorFloats found = w;
  BOOST_TEST(((found - expected).array().abs() <= expected.array().abs() * 0x3p-23f).all());
  io::SafetensorsWriter writer;
  addInt8(writer, "int8.weight", w);
  checkSameTensors(writer, checkpoint, "int8");
}

BOOST_AUTO_TEST_CASE(theTwoTypesAreNotMixedUp) {
  const io::Checkpoint checkpoint(kGolden);
  BOOST_TEST(errorOf([&] { io::readFP4(checkpoint, "nf4.plain.u8.weight"); }) ==
             kGolden + ": nf4.plain.u8.weight: expected quant_state.bitsandbytes__fp4 beside it, found " + kState);
  BOOST_TEST(errorOf([&] { io::readNF4(checkpoint, "int8.weight"); }) ==
             kGolden + ": int8.weight: expected quant_state.bitsandbytes__nf4 beside it, found none");
  BOOST_TEST((io::storedAs(checkpoint, "expected/int8") == io::StoredAs::kDense));
  BOOST_TEST(errorOf([&] { io::storedAs(checkpoint, "none"); }) == kGolden + ": none: tensor missing");
}

BOOST_AUTO_TEST_CASE(damagedFourBitWeights) {
  const auto damaged = [](Statistics statistics, auto&& damage) {
    Layer layer(statistics);
    damage(layer);
    return layer.error();
  };
  const auto plain = [&](auto&& damage) { return damaged(Statistics::kPlain, damage); };
  const auto nested = [&](auto&& damage) { return damaged(Statistics::kNested, damage); };
  BOOST_TEST(plain([](Layer&) {}) == "accepted");
  BOOST_TEST(nested([](Layer&) {}) == "accepted");
  BOOST_TEST(plain([](Layer& l) { l.without("." + kState); }) ==
             "p.weight: expected quant_state.bitsandbytes__nf4 beside it, found none");
  BOOST_TEST(plain([](Layer& l) { l[".quant_state.bitsandbytes__fp4"] = l["." + kState]; }) ==
             "p.weight: expected one quant_state, found p.weight.quant_state.bitsandbytes__fp4 and p.weight." + kState);
  BOOST_TEST(plain([](Layer& l) {
               l[".quant_state.bitsandbytes__int4"] = l["." + kState];
               l.without("." + kState);
             }) ==
             "p.weight.quant_state.bitsandbytes__int4: expected quant_state.bitsandbytes__nf4 or "
             "quant_state.bitsandbytes__fp4");
  BOOST_TEST(plain([](Layer& l) { l[".scale"] = l[".absmax"]; }) ==
             "p.weight.scale: no tensor of a 4-bit weight has that name");
  BOOST_TEST(plain([](Layer& l) { l.without(".absmax"); }) == "p.weight.absmax: tensor missing");
  BOOST_TEST(plain([](Layer& l) { l.without(".quant_map"); }) == "p.weight.quant_map: tensor missing");
  BOOST_TEST(nested([](Layer& l) { l.without(".nested_absmax"); }) == "p.weight.nested_absmax: tensor missing");
  BOOST_TEST(nested([](Layer& l) { l.without(".nested_quant_map"); }) == "p.weight.nested_quant_map: tensor missing");
  BOOST_TEST(plain([](Layer& l) { l[".nested_absmax"] = l[".absmax"]; }) ==
             "p.weight.nested_absmax: belongs to an absmax of type U8, found F32");
  BOOST_TEST(plain([](Layer& l) { l[".absmax"].dtype = io::DType::kI32; }) ==
             "p.weight.absmax: expected F32, found I32");
  BOOST_TEST(plain([](Layer& l) {
               l[".absmax"].shape = {1, 3};
             }) == "p.weight.absmax: expected one dimension, found shape [1, 3]");
  BOOST_TEST(plain([](Layer& l) {
               l[".absmax"] = {io::DType::kF32, {2}, std::string(8, '\0')};
             }) == "p.weight: absmax: expected 3 blocks of 64, found 2");
  BOOST_TEST(plain([](Layer& l) {
               l[""].shape = {1, 96};
             }) == "p.weight: expected a column of packed codes, found shape [1, 96]");
  BOOST_TEST(plain([](Layer& l) { l[""].dtype = io::DType::kI8; }) ==
             "p.weight: expected U8, F16, BF16 or F32, found I8");
  const std::string fewer = plain([](Layer& l) { l[""] = {io::DType::kU8, {95, 1}, std::string(95, 'x')}; });
  BOOST_TEST(fewer.rfind("p.weight: ", 0) == 0, fewer);
  BOOST_TEST(fewer.find("96") != fewer.npos, fewer);
  // A plain dictionary beside nested statistics, and the other way round.
  const std::string json = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [6, 32])";
  const std::string nestedJson =
      json + R"(, "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5})";
  BOOST_TEST(nested([&](Layer& l) { l.setState(json + "}"); }) == "p.weight: absmax: expected 3 blocks of 64, found 0");
  BOOST_TEST(plain([&](Layer& l) { l.setState(nestedJson); }) ==
             "p.weight: absmax: expected 3 codes for blocks of 64, found 0");
  BOOST_TEST(plain([&](Layer& l) { l.setState(std::string("{}\0", 3)); }) ==
             "p.weight." + kState + ": not JSON: holds a zero byte");
  BOOST_TEST(plain([&](Layer& l) { l.setState(std::string(5000, ' ') + json + "}"); }) ==
             "p.weight." + kState + ": expected at most 4096 bytes, found 5076");
  BOOST_TEST(plain([&](Layer& l) { l.setState(json + R"(, "new": 1})"); }) == "p.weight: new: unknown key");
  const std::string rank = plain(
      [&](Layer& l) { l.setState(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [192]})"); });
  BOOST_TEST(rank.rfind("p.weight: ", 0) == 0, rank);
}

BOOST_AUTO_TEST_CASE(tiledWeightsAreUndoneAndCropped) {
  const Int8Matrix w(Eigen::MatrixXf::Random(37, 45));
  const std::pair<TileOrder, std::uint8_t> orders[] = {
      {TileOrder::kCol32, 1}, {TileOrder::kColTuring, 2}, {TileOrder::kColAmpere, 3}};
  for (const auto& [order, number] : orders) {
    const TemporaryFolder folder;
    const io::Checkpoint checkpoint = written(tiledWriter(w, order, number), folder);
    const Int8Matrix cropped = io::readInt8(checkpoint, "p.weight", 45);
    BOOST_TEST((cropped.codes() == w.codes()), "order " << int(number));
    BOOST_TEST((cropped.rowAbsmax() == w.rowAbsmax()));
    const Int8Matrix padded = io::readInt8(checkpoint, "p.weight");
    BOOST_TEST(padded.cols() == 64);
    BOOST_TEST((padded.codes().leftCols(45) == w.codes()));
    BOOST_TEST((padded.codes().rightCols(19).array() == 0).all());
    const std::string error = errorOf([&] { io::readInt8(checkpoint, "p.weight", 65); });
    BOOST_TEST(error.find("p.weight: expected shape [") != error.npos, error);
  }
}

BOOST_AUTO_TEST_CASE(damagedEightBitWeights) {
  const Int8Matrix w(Eigen::MatrixXf::Random(6, 8));
  const auto error = [](const io::SafetensorsWriter& writer, const std::string& weight = "p.weight") {
    const TemporaryFolder folder;
    const io::Checkpoint checkpoint = written(writer, folder);
    const std::string text = errorOf([&] { io::readInt8(checkpoint, weight); });
    return text.substr(std::min(text.size(), text == "accepted" ? 0 : folder.path("f").size() + 2));
  };
  BOOST_TEST(error(tiledWriter(w, TileOrder::kRow, 0)) == "accepted");
  BOOST_TEST(error(tiledWriter(w, TileOrder::kRow, 4)) ==
             "p.weight_format: expected 0 (row), 1 (col32), 2 (col_turing) or 3 (col_ampere), found 4");
  BOOST_TEST(error(tiledWriter(w, TileOrder::kRow, 2)) == "p.weight: expected shape [8, 32], found [6, 8]");
  io::SafetensorsWriter bare;
  bare.add("p.weight", w.codes());
  bare.add("q", w.codes());
  bare.add("r.weight", w.codes());
  bare.add("r.SCB", Eigen::VectorXf(w.rowAbsmax().head(5)));
  bare.add("s.weight", w.codes());
  bare.add("s.SCB", w.rowAbsmax());
  BOOST_TEST(error(bare) == "p.SCB: tensor missing");
  BOOST_TEST(error(bare, "q") == "q: expected a name that ends in \"weight\", beside which SCB stands");
  BOOST_TEST(error(bare, "r.weight") == "r.weight: expected shape [5, 8], found [6, 8]");
  BOOST_TEST(error(bare, "r.SCB") == "r.SCB: expected I8, found F32");
  BOOST_TEST(error(bare, "s.weight") == "accepted");  // without a format: row by row
}
