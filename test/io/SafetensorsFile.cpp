// SPDX-License-Identifier: MPL-2.0
// What a reader must refuse, each with words of its own, and what it must accept.
#define BOOST_TEST_MODULE SafetensorsFile
#include <boost/test/unit_test.hpp>
#include <boost/test/data/test_case.hpp>

#include <algorithm>
#include <ctime>

#include "Support.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

/** A header with one tensor "a" of these fields. */
std::string one(const std::string& fields) { return "{\"a\":{" + fields + "}}"; }
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return one("\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets + "]");
}
/** Tensors of one byte a name, at the offsets given. */
std::string bytesAt(const std::vector<std::pair<std::string, std::string>>& tensors) {
  std::string json;
  for (const auto& [name, offsets] : tensors)
    json += (json.empty() ? "\"" : ",\"") + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + offsets + "]}";
  return "{" + json + "}";
}

const std::string kGood = one("U8", "2", "0,2");
const std::string kHuge = "18446744073709551615";

struct Malformed {
  const char* what;
  std::string content;
  std::string error;  // without "file: "
};
std::ostream& operator<<(std::ostream& os, const Malformed& m) { return os << m.what; }

const std::vector<Malformed> kMalformed = {
    {"empty file", "", "header: expected a file of at least 8 bytes, found 0"},
    {"short file", std::string(7, '\0'), "header: expected a file of at least 8 bytes, found 7"},
    {"large header", lengthBytes(100'000'001) + "{}", "header: expected at most 100000000 bytes, found 100000001"},
    {"largest header", lengthBytes(~std::uint64_t{0}) + "{}",
     "header: expected at most 100000000 bytes, found " + kHuge},
    {"text", "Once upon a time",
     "header: no safetensors file: expected the header's length in 8 bytes, at most 100000000, and the header, found "
     "8030046917602012751, the bytes \"Once upo\""},
    {"ZIP archive", std::string("PK\x03\x04\0\0\x08\x08\0\0", 10),
     "header: no safetensors file: expected the header's length in 8 bytes, at most 100000000, and the header, found "
     "578712552184433488, the bytes \"PK\\x03\\x04\\x00\\x00\\x08\\x08\""},
    {"pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\n",
     "header: no safetensors file: expected the header's length in 8 bytes, at most 100000000, and the header, found "
     "2336927755350992246, the bytes \"version \", of a pointer of Git LFS; git lfs pull brings the file"},
    {"header behind the end", lengthBytes(3) + "{}", "header: expected 3 bytes, found the file's end after 2"},
    {"invalid UTF-8", fileBytes("{\"\xff\":1}"), "header: not UTF-8: found 0xff at byte 2"},
    {"overlong UTF-8", fileBytes("{\"\xc0\xaf\":1}"), "header: not UTF-8: found 0xc0 at byte 2"},
    {"surrogate in UTF-8", fileBytes("{\"\xed\xa0\x80\":1}"), "header: not UTF-8: found 0xed at byte 2"},
    {"cut UTF-8", fileBytes("{}\xe2\x82"), "header: not UTF-8: found 0xe2 at byte 2"},
    {"no header", fileBytes(""), "header: expected a JSON object, found nothing"},
    {"byte order mark", fileBytes("\xef\xbb\xbf{}"), "header: expected a JSON object, found 0xef"},
    {"array", fileBytes("[]"), "header: expected a JSON object, found 0x5b"},
    {"zero bytes as padding", fileBytes(std::string("{}\0", 3)), "header: not JSON: found a zero byte at byte 2"},
    {"open object", fileBytes("{\"a\":"), "header: not JSON at byte 6"},
    {"text behind the header", fileBytes("{} {}"), "header: not JSON at byte 4"},
    {"lone surrogate escape", fileBytes("{\"\\ud800\":1}"), "header: not JSON at byte 9"},
    {"entry is no object", fileBytes("{\"a\":7}"), "a: entry: expected an object, found an unsigned integer"},
    {"dtype is no string", fileBytes(one(R"("dtype":1)")), "a: dtype: expected a string, found an unsigned integer"},
    {"unknown dtype", fileBytes(one(R"("dtype":"f32")")),
     "a: dtype: expected one of the format's types, found \"f32\""},
    {"shape is no array", fileBytes(one(R"("shape":null)")), "a: shape: expected an array, found null"},
    {"negative extent", fileBytes(one("U8", "-1", "0,1"), "x"),
     "a: shape: expected an unsigned integer, found a number that is no unsigned integer"},
    {"fractional extent", fileBytes(one("U8", "1.0", "0,1"), "x"),
     "a: shape: expected an unsigned integer, found a number that is no unsigned integer"},
    {"nested extent", fileBytes(one("U8", "[1]", "0,1"), "x"),
     "a: shape: expected an unsigned integer, found an array"},
    {"negative offset", fileBytes(one("U8", "1", "-0,1"), "x"),
     "a: data_offsets: expected an unsigned integer, found a number that is no unsigned integer"},
    {"one offset", fileBytes(one("U8", "1", "0"), "x"), "a: data_offsets: expected 2 numbers, found 1"},
    {"three offsets", fileBytes(one("U8", "1", "0,1,1"), "x"), "a: data_offsets: expected 2 numbers, found more"},
    {"no dtype", fileBytes(one(R"("shape":[],"data_offsets":[0,1])"), "x"), "a: dtype: missing"},
    {"no shape", fileBytes(one(R"("dtype":"U8","data_offsets":[0,1])"), "x"), "a: shape: missing"},
    {"no offsets", fileBytes(one(R"("dtype":"U8","shape":[])"), "x"), "a: data_offsets: missing"},
    {"dtype twice", fileBytes(one(R"("dtype":"U8","dtype":"U8")")), "a: dtype: given twice"},
    {"offset beyond 64 bits", fileBytes(one("U8", "1", "0,18446744073709551616"), "x"),
     "a: data_offsets: expected an unsigned integer, found a number that is no unsigned integer"},
    {"first tensor not at 0", fileBytes(one("U8", "1", "1,2"), "xx"),
     "a: data_offsets: expected to begin at byte 0, the end of the tensor before, found [1, 2], which leaves a gap"},
    {"gap", fileBytes(bytesAt({{"b", "2,3"}, {"a", "0,1"}}), "xxx"),
     "b: data_offsets: expected to begin at byte 1, the end of the tensor before, found [2, 3], which leaves a gap"},
    {"overlap", fileBytes(bytesAt({{"a", "0,1"}, {"b", "0,1"}}), "x"), ", found [0, 1], which overlaps"},
    {"end before the beginning", fileBytes(one("U8", "1", "1,0"), "x"),
     "a: data_offsets: expected an end that is not before the beginning, found [1, 0]"},
    {"shape overflows", fileBytes(one("U8", "4294967296,4294967296", "0,1"), "x"),
     "a: shape: U8 [4294967296, 4294967296] has more bits than 64 bits can count"},
    {"bits overflow", fileBytes(one("F64", "1152921504606846976", "0,1"), "x"),
     "a: shape: F64 [1152921504606846976] has more bits than 64 bits can count"},
    {"extent beyond 63 bits", fileBytes(one("U8", kHuge + ",0", "0,0")), "a: shape: extent " + kHuge + " is too large"},
    {"half a byte", fileBytes(one("F4", "3", "0,2"), "xx"), "a: shape: F4 [3] has 12 bits, no whole number of bytes"},
    {"six bits", fileBytes(one("F6_E2M3", "3", "0,2"), "xx"),
     "a: shape: F6_E2M3 [3] has 18 bits, no whole number of bytes"},
    {"too few bytes", fileBytes(one("F32", "2,2", "0,12"), std::string(12, 'x')),
     "a: data_offsets: expected 16 bytes for F32 [2, 2], found [0, 12]"},
    {"too many bytes", fileBytes(one("F16", "", "0,4"), "xxxx"),
     "a: data_offsets: expected 2 bytes for F16 [], found [0, 4]"},
    {"bytes behind the last tensor", fileBytes(kGood, "xxx"),
     "data: expected 2 bytes of tensors, found 3 behind the header"},
    {"truncated", fileBytes(kGood, "x"), "data: expected 2 bytes of tensors, found 1 behind the header"},
    {"data without tensors", fileBytes("{}", "x"), "data: expected 0 bytes of tensors, found 1 behind the header"},
    {"metadata is no object", fileBytes(R"({"__metadata__":"pt"})"),
     "__metadata__: entry: expected an object, found a string"},
    {"metadata null", fileBytes(R"({"__metadata__":null})"), "__metadata__: entry: expected an object, found null"},
    {"metadata holds a number", fileBytes(R"({"__metadata__":{"n":1}})"),
     "__metadata__: n: expected a string, found an unsigned integer"},
    {"metadata holds an object", fileBytes(R"({"__metadata__":{"n":{"m":"x"}}})"),
     "__metadata__: n: expected a string, found an object"},
    {"tensor twice", fileBytes(bytesAt({{"a", "0,1"}, {"a", "1,2"}}), "xx"), "a: given twice"},
    {"tensor twice, once escaped", fileBytes(bytesAt({{"a", "0,1"}, {"\\u0061", "1,2"}}), "xx"), "a: given twice"},
    {"metadata twice", fileBytes(R"({"__metadata__":{},"__metadata__":{}})"), "__metadata__: given twice"},
    {"metadata key twice", fileBytes(R"({"__metadata__":{"k":"1","k":"2"}})"), "__metadata__: k: given twice"},
    {"deep nesting", fileBytes("{\"a\":{\"x\":" + std::string(200, '[') + std::string(200, ']') + "}}"),
     "header: expected at most 128 levels, found more"},
};

struct Accepted {
  const char* what;
  std::string content;
  std::size_t tensors;
};
std::ostream& operator<<(std::ostream& os, const Accepted& a) { return os << a.what; }

const std::vector<Accepted> kAccepted = {
    {"no tensors", fileBytes("{}"), 0},
    {"metadata alone", fileBytes(R"({"__metadata__":{}})"), 0},
    {"padded at the end", fileBytes(kGood + " \t\r\n    ", "xx"), 1},
    {"padded at the front", fileBytes(std::string(4096, ' ') + kGood, "xx"), 1},
    {"scalar", fileBytes(one("F64", "", "0,8"), std::string(8, 'x')), 1},
    {"zero extent", fileBytes(one("F32", "3,0,5", "0,0")), 1},
    {"zero extent among large ones", fileBytes(one("F32", "9223372036854775807,0,9223372036854775807", "0,0")), 1},
    {"empty tensors share an offset",
     fileBytes(R"({"z":{"dtype":"F32","shape":[0],"data_offsets":[1,1]},)"
               R"("y":{"dtype":"F32","shape":[0],"data_offsets":[1,1]},)"
               R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
               "x"),
     3},
    {"any order", fileBytes(bytesAt({{"b", "1,2"}, {"c", "2,3"}, {"a", "0,1"}}), "xyz"), 3},
    {"empty name", fileBytes(bytesAt({{"", "0,1"}}), "x"), 1},
    {"escapes and Unicode", fileBytes(bytesAt({{"\\u00e9\\n\xc3\xa9\xf0\x9f\xa6\x86\\ud83e\\udd86", "0,1"}}), "x"), 1},
    {"unknown field",
     fileBytes(one(R"("dtype":"U8","new":{"x":[1,{"y":-2.5}]},"shape":[1],"data_offsets":[0,1])"), "x"), 1},
    {"two values of 4 bits", fileBytes(one("F4", "2,3", "0,3"), "xyz"), 1},
    {"four values of 6 bits", fileBytes(one("F6_E3M2", "4", "0,3"), "xyz"), 1},
};

}  // namespace

BOOST_DATA_TEST_CASE(malformedFilesAreRefused, boost::unit_test::data::make(kMalformed), malformed) {
  const std::string error = errorOf([&] { parse(malformed.content); });
  BOOST_TEST(error.find(malformed.error) != std::string::npos, error);
  BOOST_TEST(error.rfind("file: ", 0) == 0, error);
}

BOOST_AUTO_TEST_CASE(theErrorsOfMalformedFilesDiffer) {
  // One of each case of the format's reference implementation, by the words that tell them apart.
  const std::vector<std::string> telling = {"of at least 8 bytes", "at most 100000000", "the file's end",
                                            "not UTF-8",           "not JSON",          "which overlaps",
                                            "64 bits can count",   "no whole number",   "bytes for",
                                            "behind the header",   "__metadata__: n:"};
  for (const std::string& words : telling)
    BOOST_TEST(std::any_of(kMalformed.begin(), kMalformed.end(),
                           [&](const auto& m) { return m.error.find(words) != std::string::npos; }),
               words);
}

BOOST_DATA_TEST_CASE(unusualFilesAreAccepted, boost::unit_test::data::make(kAccepted), accepted) {
  const std::string error = errorOf([&] { BOOST_TEST(parse(accepted.content).tensors().size() == accepted.tensors); });
  BOOST_TEST(error == "accepted");
}

BOOST_AUTO_TEST_CASE(everyTypeHasItsNameAndSize) {
  const std::vector<std::pair<std::string, int>> types = {
      {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
      {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
      {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
      {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
  BOOST_TEST(types.size() == static_cast<std::size_t>(io::DType::kU64) + 1);
  for (const auto& [name, bits] : types) {
    const auto dtype = io::dtypeNamed(name);
    BOOST_REQUIRE(dtype.has_value());
    BOOST_TEST(io::nameOf(*dtype) == name);
    BOOST_TEST(io::bitsOf(*dtype) == bits);
    const std::string content = fileBytes(one(name, "4", "0," + std::to_string(bits / 2)),
                                          std::string(static_cast<std::size_t>(bits / 2), 'x'));
    BOOST_TEST(parse(content).at("a").bytes == static_cast<std::size_t>(bits / 2));
  }
  BOOST_TEST(!io::dtypeNamed("f32").has_value());
  BOOST_TEST(!io::dtypeNamed("").has_value());
}

BOOST_AUTO_TEST_CASE(tensorsComeInTheOrderOfTheirBytesAndAreFoundByName) {
  const io::SafetensorsFile file = parse(fileBytes(bytesAt({{"b", "1,2"}, {"c", "0,1"}, {"a", "2,3"}}), "xyz"));
  std::string names, bytes;
  for (const io::TensorView& tensor : file.tensors()) {
    names += tensor.name;
    bytes += textOf(tensor);
  }
  BOOST_TEST(names == "cba");
  BOOST_TEST(bytes == "xyz");
  BOOST_TEST(textOf(file.at("a")) == "z");
  BOOST_TEST(file.has("b"));
  BOOST_TEST(!file.has("bb"));
  BOOST_TEST(errorOf([&] { file.at("d"); }) == "file: d: tensor missing");
}

BOOST_AUTO_TEST_CASE(metadataIsRead) {
  const io::SafetensorsFile file = parse(fileBytes(R"({"__metadata__":{"format":"pt","tied":"lm_head.weight"}})"));
  BOOST_TEST(file.metadata("tied") == "lm_head.weight");
  BOOST_TEST(file.metadata("other") == "");
  BOOST_TEST(file.metadata().size() == 2u);
}

BOOST_AUTO_TEST_CASE(floatsAreConvertedAndUnalignedOnesAreRead) {
  // One byte in front of everything puts each element at an odd address.
  const std::vector<float> values = {1.0f, -2.5f, 0.1f, 65519.9f, 1e-8f, -0.0f};
  std::string data = "x", half, brain;
  for (const float v : values) {
    data.append(reinterpret_cast<const char*>(&v), sizeof v);
    const Eigen::half h(v);
    const Eigen::bfloat16 b(v);
    half.append(reinterpret_cast<const char*>(&h), sizeof h);
    brain.append(reinterpret_cast<const char*>(&b), sizeof b);
  }
  const io::SafetensorsFile file = parse(fileBytes(
      R"({"pad":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2,3],"data_offsets":[1,25]},)"
      R"("h":{"dtype":"F16","shape":[2,3],"data_offsets":[25,37]},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[37,49]}})",
      data + half + brain));
  const Eigen::MatrixXf f = io::toMatrix<float>(file.at("f"), 2, 3);
  for (Index i = 0; i < 2; ++i) {
    for (Index j = 0; j < 3; ++j) {
      const float v = values[static_cast<std::size_t>(3 * i + j)];
      BOOST_TEST(f(i, j) == v);
      BOOST_TEST(io::toMatrix<double>(file.at("f"))(i, j) == double(v));
      BOOST_TEST(float(io::toMatrix<Eigen::half>(file.at("f"))(i, j)) == float(Eigen::half(v)));
      BOOST_TEST(float(io::toMatrix<Eigen::bfloat16>(file.at("f"))(i, j)) == float(Eigen::bfloat16(v)));
      BOOST_TEST((io::toMatrix<float, Eigen::RowMajor>(file.at("h"))(i, j)) == float(Eigen::half(v)));
      BOOST_TEST(io::toMatrix<float>(file.at("b"))(i, j) == float(Eigen::bfloat16(v)));
    }
  }
  BOOST_TEST((io::toVector<float>(file.at("f")).array() == Eigen::Map<const Eigen::ArrayXf>(values.data(), 6)).all());
}

BOOST_AUTO_TEST_CASE(sixteenBitPayloadsOfNaNsSurvive) {
  const std::string bits("\x01\x7c\xff\xff", 4);  // a signalling NaN and one with every payload bit
  const io::SafetensorsFile file = parse(fileBytes(one("F16", "2", "0,4"), bits));
  const auto v = io::toVector<Eigen::half>(file.at("a"));
  BOOST_TEST(std::string(reinterpret_cast<const char*>(v.data()), 4) == bits);
}

BOOST_AUTO_TEST_CASE(largeMatricesAreTransposedWhole) {
  const Index rows = 67, cols = 129;  // more than two squares each way, and no multiple
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> m =
      Eigen::VectorXf::LinSpaced(rows * cols, 0, float(rows * cols - 1)).reshaped(cols, rows).transpose();
  const std::string data(reinterpret_cast<const char*>(m.data()), static_cast<std::size_t>(m.size()) * sizeof(float));
  const io::SafetensorsFile file = parse(fileBytes(one("F32", "67,129", "0," + std::to_string(data.size())), data));
  BOOST_TEST((io::toMatrix<float>(file.at("a")).array() == m.array()).all());
}

BOOST_AUTO_TEST_CASE(readersNameWhatTheyExpected) {
  const io::SafetensorsFile file = parse(fileBytes(one("I32", "2,1", "0,8"), "12345678"));
  const io::TensorView& a = file.at("a");
  BOOST_TEST(errorOf([&] { io::toMatrix<float>(a, 1, 2); }) == "file: a: expected shape [1, 2], found [2, 1]");
  BOOST_TEST(errorOf([&] { io::toVector<float>(a); }) == "file: a: expected F32, F16, BF16 or F64, found I32");
  BOOST_TEST(errorOf([&] { io::toVector<std::int64_t>(a); }) == "file: a: expected I64, found I32");
  BOOST_TEST(io::toVector<std::int32_t>(a).size() == 2);
  const io::SafetensorsFile scalar = parse(fileBytes(one("U8", "", "0,1"), "x"));
  BOOST_TEST(errorOf([&] { io::toMatrix<float>(scalar.at("a")); }) == "file: a: expected a matrix, found shape []");
  BOOST_TEST(io::toVector<std::uint8_t>(scalar.at("a"))[0] == 'x');
}

BOOST_AUTO_TEST_CASE(filesThatCannotBeReadAreNamed) {
  const TemporaryFolder folder;
  const auto open = [](const std::string& path) { return errorOf([&] { const io::SafetensorsFile file(path); }); };
  BOOST_TEST(open(folder.path("none")) == folder.path("none") + ": file: cannot be opened: No such file or directory");
  BOOST_TEST(open(folder.path()) == folder.path() + ": file: is no regular file");
  const std::string empty = folder.write("empty", "");
  BOOST_TEST(open(empty) == empty + ": header: expected a file of at least 8 bytes, found 0");
}

BOOST_AUTO_TEST_CASE(discardedTensorsAreReadAgain) {
  const TemporaryFolder folder;
  const std::string data(1 << 20, 'd');
  const std::string path = folder.write("f", fileBytes(one("U8", std::to_string(data.size()), "0,1048576"), data));
  io::SafetensorsFile opened(path);
  const io::SafetensorsFile file = std::move(opened);  // views move with their file
  const io::TensorView& tensor = file.at("a");
  BOOST_TEST(textOf(tensor) == data);
  file.discard(tensor);
  BOOST_TEST(textOf(tensor) == data);
  BOOST_TEST(*tensor.file == path);
}

// A header of overlapping entries: nothing may compare each with each.
BOOST_AUTO_TEST_CASE(manyOverlappingEntriesFailFast) {
  std::string json = "{";
  for (int i = 0; i < 100'000; ++i)
    json += "\"" + std::to_string(i) + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)";
  json.back() = '}';
  const std::clock_t start = std::clock();  // of this process: the machine may be busy
  const std::string error = errorOf([&] { parse(fileBytes(json, "x")); });
  const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;
  BOOST_TEST(error.find("which overlaps") != std::string::npos, error);
  BOOST_TEST(seconds < 10.0);  // a comparison of each with each would take more, this takes a tenth of a second
}
