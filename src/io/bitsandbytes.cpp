// SPDX-License-Identifier: MPL-2.0
// bitsandbytes.cpp: quantised weights from and to the tensors in which bitsandbytes keeps them.
//
//   W                                     packed codes          W                int8 codes
//   W.absmax, W.quant_map                 statistics            P.SCB            row absmax      W = P.weight
//   W.nested_absmax, W.nested_quant_map   nested: of absmax     P.weight_format  order of the codes
//   W.quant_state.bitsandbytes__nf4       the dictionary
#include <eigen_q/src/io/BitsAndBytes.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include <eigen_q/src/TileLayout.h>

namespace EigenQ {
namespace io {
namespace {

constexpr const char* kStatePrefix = "quant_state.";
constexpr const char* kNF4State = "quant_state.bitsandbytes__nf4";
constexpr const char* kFP4State = "quant_state.bitsandbytes__fp4";
constexpr const char* kFourBitTensors[] = {"absmax", "quant_map", "nested_absmax", "nested_quant_map"};

bool startsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

std::string whereOf(const TensorView& tensor) { return *tensor.file + ": " + tensor.name; }

/** The key of the one dictionary of a weight, behind "WEIGHT."; empty where it has none. */
std::string stateKey(const Checkpoint& checkpoint, const std::string& weight) {
  const std::vector<std::string> states = checkpoint.namesUnder(weight + "." + kStatePrefix);
  if (states.empty()) return {};
  if (states.size() > 1)
    throw FormatError(checkpoint.path(), weight, "expected one quant_state, found " + states[0] + " and " + states[1]);
  const std::string key = states[0].substr(weight.size() + 1);
  if (key != kNF4State && key != kFP4State)
    throw FormatError(checkpoint.path(), states[0], std::string("expected ") + kNF4State + " or " + kFP4State);
  return key;
}

/** "P.SCB" for "P.weight"; empty for other names. */
std::string besideWeight(const std::string& weight, const std::string& leaf) {
  constexpr const char* kLeaf = "weight";
  const std::size_t dot = weight.rfind('.');
  const std::size_t begin = dot == weight.npos ? 0 : dot + 1;
  return weight.substr(begin) == kLeaf ? weight.substr(0, begin) + leaf : std::string();
}

Eigen::VectorXf readFloatVector(const TensorView& tensor) {
  tensor.requireDType(DType::kF32);
  if (tensor.shape.size() != 1) tensor.fail("expected one dimension, found shape " + shapeText(tensor.shape));
  return toVector<float>(tensor);
}

ByteVector readByteVector(const TensorView& tensor) {
  tensor.requireDType(DType::kU8);
  if (tensor.shape.size() != 1) tensor.fail("expected one dimension, found shape " + shapeText(tensor.shape));
  return toVector<std::uint8_t>(tensor);
}

/** The dictionary's text. */
std::string readDictionary(const TensorView& tensor) {
  constexpr Index kLongest =
      4096;  // real ones have less than 200 bytes; a tree of what is not one could have gigabytes
  const ByteVector bytes = readByteVector(tensor);
  if (bytes.size() > kLongest)
    tensor.fail("expected at most " + std::to_string(kLongest) + " bytes, found " + std::to_string(bytes.size()));
  std::string text(bytes.data(), bytes.data() + bytes.size());
  if (text.find('\0') != text.npos) tensor.fail("not JSON: holds a zero byte");
  return text;
}

/** One 4-bit weight being read. */
class FourBitReader {
 public:
  FourBitReader(const Checkpoint& checkpoint, const std::string& weight)
      : m_checkpoint(checkpoint), m_codes(checkpoint.at(weight)) {}

  template <FourBitType kType>
  FourBitMatrix<kType> read() const {
    const char* expected = kType == FourBitType::kNF4 ? kNF4State : kFP4State;
    const std::string key = stateKey(m_checkpoint, m_codes.name);
    if (key != expected)
      m_codes.fail(std::string("expected ") + expected + " beside it, found " + (key.empty() ? "none" : key));
    const std::string json = readDictionary(tensor(key));
    QuantState state = QuantState::fromPackedJson(json, readStatistics(), whereOf(m_codes));
    return FourBitMatrix<kType>(readCodes(), std::move(state), whereOf(m_codes));
  }

 private:
  std::string nameOf(const std::string& leaf) const { return m_codes.name + "." + leaf; }
  const TensorView& tensor(const std::string& leaf) const { return m_checkpoint.at(nameOf(leaf)); }
  bool has(const std::string& leaf) const { return m_checkpoint.has(nameOf(leaf)); }

  void requireKnownNames() const {
    for (const std::string& name : m_checkpoint.namesUnder(nameOf(""))) {
      const std::string leaf = name.substr(m_codes.name.size() + 1);
      const auto is = [&leaf](const char* known) { return leaf == known; };
      if (!startsWith(leaf, kStatePrefix) && std::none_of(std::begin(kFourBitTensors), std::end(kFourBitTensors), is))
        throw FormatError(m_checkpoint.path(), name, "no tensor of a 4-bit weight has that name");
    }
  }

  QuantStateTensors readStatistics() const {
    requireKnownNames();
    QuantStateTensors tensors;
    tensors.quantMap = readFloatVector(tensor("quant_map"));
    if (tensor("absmax").dtype == DType::kU8) {
      tensors.absmaxCodes = readByteVector(tensor("absmax"));
      tensors.nestedAbsmax = readFloatVector(tensor("nested_absmax"));
      tensors.nestedQuantMap = readFloatVector(tensor("nested_quant_map"));
      return tensors;
    }
    tensors.absmax = readFloatVector(tensor("absmax"));
    for (const char* leaf : {"nested_absmax", "nested_quant_map"})
      if (has(leaf)) tensor(leaf).fail("belongs to an absmax of type U8, found F32");
    return tensors;
  }

  /** The bytes are the codes, whatever type they are stored as; the matrix compares their number with its shape. */
  ByteVector readCodes() const {
    constexpr DType kStorage[] = {DType::kU8, DType::kF16, DType::kBF16, DType::kF32};
    if (std::find(std::begin(kStorage), std::end(kStorage), m_codes.dtype) == std::end(kStorage))
      m_codes.fail(std::string("expected U8, F16, BF16 or F32, found ") + io::nameOf(m_codes.dtype));
    if (m_codes.shape.size() != 2 || m_codes.shape[1] != 1)
      m_codes.fail("expected a column of packed codes, found shape " + shapeText(m_codes.shape));
    ByteVector codes(static_cast<Index>(m_codes.bytes));
    if (m_codes.bytes != 0) std::memcpy(codes.data(), m_codes.data, m_codes.bytes);
    return codes;
  }

  const Checkpoint& m_checkpoint;
  const TensorView& m_codes;
};

constexpr TileOrder kStoredOrders[] = {TileOrder::kRow, TileOrder::kCol32, TileOrder::kColTuring,
                                       TileOrder::kColAmpere};

/** The order that "P.weight_format" says, which may be absent: row-major. */
TileOrder readOrder(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView* format = checkpoint.find(name);
  if (!format) return TileOrder::kRow;
  if (format->size() != 1) format->fail("expected one number, found shape " + shapeText(format->shape));
  const int number = toVector<std::uint8_t>(*format)[0];
  if (number >= static_cast<int>(std::size(kStoredOrders)))
    format->fail("expected 0 (row), 1 (col32), 2 (col_turing) or 3 (col_ampere), found " + std::to_string(number));
  return kStoredOrders[number];
}

/** Adds \a data, which must live until the file is written. */
template <typename Vector>
void addVector(SafetensorsWriter& writer, const std::string& name, const Vector& data) {
  writer.addReference(name, kDTypeOf<typename Vector::Scalar>, {data.size()}, data.data());
}

}  // namespace

StoredAs storedAs(const Checkpoint& checkpoint, const std::string& weight) {
  const TensorView& codes = checkpoint.at(weight);
  const std::string key = stateKey(checkpoint, codes.name);
  if (!key.empty()) return key == kNF4State ? StoredAs::kNF4 : StoredAs::kFP4;
  const std::string scb = besideWeight(codes.name, "SCB");
  return codes.dtype == DType::kI8 && !scb.empty() && checkpoint.has(scb) ? StoredAs::kInt8 : StoredAs::kDense;
}

NF4Matrix readNF4(const Checkpoint& checkpoint, const std::string& weight) {
  return FourBitReader(checkpoint, weight).read<FourBitType::kNF4>();
}

FP4Matrix readFP4(const Checkpoint& checkpoint, const std::string& weight) {
  return FourBitReader(checkpoint, weight).read<FourBitType::kFP4>();
}

Int8Matrix readInt8(const Checkpoint& checkpoint, const std::string& weight, Index cols) {
  const TensorView& codes = checkpoint.at(weight);
  codes.requireDType(DType::kI8);
  if (codes.shape.size() != 2) codes.fail("expected a matrix, found shape " + shapeText(codes.shape));
  const std::string scb = besideWeight(codes.name, "SCB");
  if (scb.empty()) codes.fail("expected a name that ends in \"weight\", beside which SCB stands");
  Eigen::VectorXf rowAbsmax = readFloatVector(checkpoint.at(scb));
  const TileOrder order = readOrder(checkpoint, besideWeight(codes.name, "weight_format"));

  const Index rows = rowAbsmax.size(), width = cols >= 0 ? cols : codes.shape[1];
  if (width > std::numeric_limits<Index>::max() - EigenQ::internal::tileCols(order))
    codes.fail("the matrix is too wide");
  const auto [paddedRows, paddedCols] = tileBufferShape(order, rows, width);
  codes.requireShape({paddedRows, paddedCols});
  if (order == TileOrder::kRow)
    return Int8Matrix(toMatrix<std::int8_t, Eigen::RowMajor>(codes), std::move(rowAbsmax), whereOf(codes));
  const TiledBuffer<std::int8_t> tiled{toVector<std::int8_t>(codes), order, rows, width};
  return Int8Matrix(fromTiles(tiled), std::move(rowAbsmax), whereOf(codes));
}

template <FourBitType kType>
void addFourBit(SafetensorsWriter& writer, const std::string& weight, const FourBitMatrix<kType>& w) {
  const QuantState& state = w.state();
  const auto name = [&weight](const std::string& leaf) { return weight + "." + leaf; };
  writer.addReference(weight, DType::kU8, {w.packed().size(), 1}, w.packed().data());
  writer.add(name("quant_map"), state.quantMap());
  if (state.isNested()) {
    addVector(writer, name("absmax"), state.nestedAbsmax().codes);
    addVector(writer, name("nested_absmax"), state.nestedAbsmax().absmax);
    addVector(writer, name("nested_quant_map"), state.nestedAbsmax().codeTable);
  } else {
    addVector(writer, name("absmax"), state.absmax());
  }
  const std::string json = state.toPackedJson();
  writer.add(name(state.packedKey()), Eigen::Map<const ByteVector>(reinterpret_cast<const std::uint8_t*>(json.data()),
                                                                   static_cast<Index>(json.size())));
}

void addInt8(SafetensorsWriter& writer, const std::string& weight, const Int8Matrix& w) {
  const std::string scb = besideWeight(weight, "SCB");
  if (scb.empty()) throw FormatError("addInt8", weight, "expected a name that ends in \"weight\"");
  writer.addReference(weight, DType::kI8, {w.rows(), w.cols()}, w.codes().data());
  addVector(writer, scb, w.rowAbsmax());
  const std::uint8_t rowMajor = 0;
  writer.add(besideWeight(weight, "weight_format"), DType::kU8, {},
             [rowMajor](const ByteSink& sink) { sink(&rowMajor, sizeof rowMajor); });
}

template void addFourBit(SafetensorsWriter&, const std::string&, const NF4Matrix&);
template void addFourBit(SafetensorsWriter&, const std::string&, const FP4Matrix&);

}  // namespace io
}  // namespace EigenQ
