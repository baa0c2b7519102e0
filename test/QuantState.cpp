// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE QuantState
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <string>

#include <eigen_q/src/QuantState.h>

#include "support/Safetensors.h"

using namespace EigenQ;
using Eigen::VectorXf;

namespace {

constexpr const char* kPlain = R"({"quant_type": "fp4", "blocksize": 32, "dtype": "bfloat16", "shape": [3, 21]})";
constexpr const char* kNested =
    R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [128, 192], )"
    R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.12932586669921875})";

QuantStateTensors plainTensors() {
  QuantStateTensors t;
  t.absmax = VectorXf::Ones(2);
  t.quantMap = Eigen::Map<const VectorXf>(internal::kFP4Table, 16);
  return t;
}

QuantStateTensors nestedTensors() {
  QuantStateTensors t;
  t.absmaxCodes = ByteVector::Constant(384, 200);
  t.nestedAbsmax = VectorXf::Ones(2);
  t.nestedQuantMap = Eigen::Map<const VectorXf>(internal::signedDynamicMap().data(), 256);
  t.quantMap = Eigen::Map<const VectorXf>(internal::kNF4Table, 16);
  return t;
}

std::string messageOf(const std::string& json, QuantStateTensors tensors) {
  try {
    QuantState::fromPackedJson(json, std::move(tensors), "file: weight");
  } catch (const FormatError& e) {
    BOOST_TEST(e.where() == "file: weight");
    return e.what();
  }
  return "no error";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  BOOST_REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string offsetText(float offset) {
  NestedAbsmax nested{ByteVector::Zero(1), VectorXf::Zero(1), VectorXf::Zero(256), 256, offset};
  const std::string json = QuantState(FourBitType::kNF4, 64, ScalarType::kFloat, {64}, nested).toPackedJson();
  const std::string key = "\"nested_offset\": ";
  return json.substr(json.find(key) + key.size(), json.size() - json.find(key) - key.size() - 1);
}

}  // namespace

BOOST_AUTO_TEST_CASE(packedDictionariesComeBackByteForByte) {
  BOOST_TEST(QuantState::fromPackedJson(kPlain, plainTensors()).toPackedJson() == kPlain);
  BOOST_TEST(QuantState::fromPackedJson(kNested, nestedTensors()).toPackedJson() == kNested);
}

BOOST_AUTO_TEST_CASE(theCheckpointsDictionaryByteForByte, *boost::unit_test::label("golden")) {
  const test::SafetensorsFile file(EIGENQ_TEST_DATA_DIR "/linear4bit_nf4_nested.safetensors");
  const std::string weight = "model.layers.0.mlp.up_proj.weight";
  const std::vector<char>& bytes = file.at(weight + ".quant_state.bitsandbytes__nf4").bytes;
  const std::string json(bytes.begin(), bytes.end());
  const QuantState state = QuantState::fromPackedJson(json, nestedTensors());
  BOOST_TEST(state.toPackedJson() == json);
  BOOST_TEST(weight + "." + state.packedKey() == weight + ".quant_state.bitsandbytes__nf4");
}

BOOST_AUTO_TEST_CASE(fieldsAreWhatTheDictionarySays) {
  const QuantState plain = QuantState::fromPackedJson(kPlain, plainTensors());
  BOOST_TEST((plain.type() == FourBitType::kFP4 && plain.dtype() == ScalarType::kBFloat16));
  BOOST_TEST(plain.blockSize() == 32);
  BOOST_TEST(plain.shape() == (std::vector<Index>{3, 21}), boost::test_tools::per_element());
  BOOST_TEST(plain.size() == 63);
  BOOST_TEST(plain.blocks() == 2);
  BOOST_TEST(!plain.isNested());
  BOOST_TEST(plain.packedKey() == "quant_state.bitsandbytes__fp4");
  BOOST_TEST(plain.absmaxBytes() == 8);

  const QuantState nested = QuantState::fromPackedJson(kNested, nestedTensors());
  BOOST_TEST(nested.isNested());
  BOOST_TEST(nested.nestedAbsmax().offset == 0.12932586669921875f);
  BOOST_TEST(nested.absmaxBytes() == 384 + 4 * (2 + 256 + 1));
  const volatile float scaled = internal::signedDynamicMap()[200] * 1.0f;
  BOOST_TEST(nested.decodedAbsmax()[383] == scaled + 0.12932586669921875f);
}

BOOST_AUTO_TEST_CASE(offsetsReadLikePythonsRepr) {
  BOOST_TEST(offsetText(0) == "0.0");
  BOOST_TEST(offsetText(-0.0f) == "-0.0");
  BOOST_TEST(offsetText(2) == "2.0");
  BOOST_TEST(offsetText(0.1f) == "0.10000000149011612");
  BOOST_TEST(offsetText(1e-4f) == "9.999999747378752e-05");
  BOOST_TEST(offsetText(0.0001220703125f) == "0.0001220703125");
  BOOST_TEST(offsetText(0x1p-14f) == "6.103515625e-05");
  BOOST_TEST(offsetText(1e15f) == "999999986991104.0");
  BOOST_TEST(offsetText(0x1p54f) == "1.8014398509481984e+16");
  BOOST_TEST(offsetText(1e30f) == "1.0000000150474662e+30");
  BOOST_TEST(offsetText(std::numeric_limits<float>::denorm_min()) == "1.401298464324817e-45");
}

BOOST_AUTO_TEST_CASE(spacesAndOrderAreFree) {
  const std::string json = R"( {"shape":[3,21],"dtype":"bfloat16","blocksize":32,"quant_type":"fp4"} )";
  BOOST_TEST(QuantState::fromPackedJson(json, plainTensors()).toPackedJson() == kPlain);
}

BOOST_AUTO_TEST_CASE(damagedDictionariesAreNamed) {
  const auto message = [](const char* from, const char* to) {
    return messageOf(replaced(kNested, from, to), nestedTensors());
  };
  BOOST_TEST(messageOf("{", nestedTensors()).find("file: weight: JSON: ") == 0);
  BOOST_TEST(messageOf("[]", nestedTensors()) == "file: weight: quant_state: expected an object, found array");
  BOOST_TEST(messageOf("{}", nestedTensors()) == "file: weight: quant_type: missing");
  BOOST_TEST(message("nf4", "int4") == "file: weight: quant_type: expected one of nf4, fp4, found \"int4\"");
  BOOST_TEST(message("\"nf4\"", "4") == "file: weight: quant_type: expected a string, found number");
  BOOST_TEST(message("\"blocksize\": 64, ", "") == "file: weight: blocksize: missing");
  BOOST_TEST(message("64,", "65,") == "file: weight: blocksize: expected a power of two from 32 to 4096, found 65");
  BOOST_TEST(message("64,", "16,") == "file: weight: blocksize: expected a power of two from 32 to 4096, found 16");
  BOOST_TEST(message("64,", "64.5,") == "file: weight: blocksize: expected an integer, found 64.5");
  BOOST_TEST(message("64,", "1e99,") == "file: weight: blocksize: expected an integer, found 1e+99");
  BOOST_TEST(message("\"dtype\": \"float32\"", "\"dtype\": \"int8\"") ==
             "file: weight: dtype: expected one of float32, float16, bfloat16, float64, found \"int8\"");
  BOOST_TEST(message("[128, 192]", "24576") == "file: weight: shape: expected an array, found number");
  BOOST_TEST(message("[128, 192]", "[128, -192]") == "file: weight: shape: [128, -192]: negative extent");
  BOOST_TEST(message("[128, 192]", "[4294967296, 4294967296]") ==
             "file: weight: shape: [4294967296, 4294967296]: too many values");
  BOOST_TEST(message("[128, 192]", "[18446744073709551615]") == "file: weight: shape: too large: 18446744073709551615");
  BOOST_TEST(message("\"shape\"", "\"Shape\"") == "file: weight: Shape: unknown key");
  BOOST_TEST(message("\"dtype\"", "\"blocksize\"") == "file: weight: blocksize: given twice");
  BOOST_TEST(message("256", "100") ==
             "file: weight: nested_blocksize: expected a power of two from 32 to 4096, found 100");
  BOOST_TEST(message("\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\"") ==
             "file: weight: nested_dtype: expected float32");
  BOOST_TEST(message(", \"nested_offset\": 0.12932586669921875", "") == "file: weight: nested_offset: missing");
  BOOST_TEST(message("0.12932586669921875", "1e60") == "file: weight: nested_offset: not a float");
  BOOST_TEST(message("0.12932586669921875", "\"0\"") == "file: weight: nested_offset: expected a number, found string");
}

BOOST_AUTO_TEST_CASE(tensorsThatDoNotFitAreNamed) {
  QuantStateTensors t = plainTensors();
  t.absmax.setOnes(3);
  BOOST_TEST(messageOf(kPlain, t) == "file: weight: absmax: expected 2 blocks of 32, found 3");
  t = plainTensors();
  t.absmax[1] = std::numeric_limits<float>::quiet_NaN();
  BOOST_TEST(messageOf(kPlain, t) == "file: weight: absmax: entry 1 is negative or NaN");
  t = plainTensors();
  t.quantMap.setZero(256);
  BOOST_TEST(messageOf(kPlain, t) == "file: weight: quant_map: expected 16 levels, found 256");
  t = plainTensors();
  t.quantMap.resize(0);
  BOOST_TEST(messageOf(kPlain, t) == "file: weight: quant_map: missing");
  t = plainTensors();
  t.quantMap[3] = std::numeric_limits<float>::infinity();
  BOOST_TEST(messageOf(kPlain, t) == "file: weight: quant_map: entry 3 is not finite");

  t = nestedTensors();
  t.absmaxCodes.conservativeResize(383);
  BOOST_TEST(messageOf(kNested, t) == "file: weight: absmax: expected 384 codes for blocks of 64, found 383");
  t = nestedTensors();
  t.nestedAbsmax.setOnes(1);
  BOOST_TEST(messageOf(kNested, t) == "file: weight: nested_absmax: expected 2 blocks of 256, found 1");
  t = nestedTensors();
  t.nestedAbsmax[0] = -1;
  BOOST_TEST(messageOf(kNested, t) == "file: weight: nested_absmax: entry 0 is negative or NaN");
  t = nestedTensors();
  t.nestedQuantMap.setZero(16);
  BOOST_TEST(messageOf(kNested, t) == "file: weight: nested_quant_map: expected 256 levels, found 16");
  t = nestedTensors();
  t.nestedQuantMap[9] = std::numeric_limits<float>::quiet_NaN();
  BOOST_TEST(messageOf(kNested, t) == "file: weight: nested_quant_map: entry 9 is not finite");
}

BOOST_AUTO_TEST_CASE(theStoredTableHoldsPlusZeroAndDecodingMinusZero) {
  const QuantState state = QuantState::fromPackedJson(kPlain, plainTensors());
  BOOST_TEST(std::signbit(state.codeTable()[8]));
  BOOST_TEST(!std::signbit(state.quantMap()[8]));
  QuantStateTensors stored = plainTensors();
  stored.quantMap = state.quantMap();
  BOOST_TEST(std::signbit(QuantState::fromPackedJson(kPlain, stored).codeTable()[8]));
}

BOOST_AUTO_TEST_CASE(anEmptyStateIsValid) {
  const QuantState empty;
  BOOST_TEST(empty.size() == 0);
  BOOST_TEST(empty.toPackedJson() == R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [0, 0]})");
}
