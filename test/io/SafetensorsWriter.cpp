// SPDX-License-Identifier: MPL-2.0
// Files as Python's safetensors writes them, whole or not at all.
#define BOOST_TEST_MODULE SafetensorsWriter
#include <boost/test/unit_test.hpp>

#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include <sys/resource.h>
#include <sys/stat.h>

#include "Support.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

/** What a writer makes of the tensors and texts of \a file, added last to first. */
std::string rewritten(const io::SafetensorsFile& file, const TemporaryFolder& folder) {
  io::SafetensorsWriter writer;
  for (auto tensor = file.tensors().rbegin(); tensor != file.tensors().rend(); ++tensor) writer.add(*tensor);
  for (const auto& [key, text] : file.metadata()) writer.setMetadata(key, text);
  writer.write(folder.path("rewritten"));
  return readFile(folder.path("rewritten"));
}

io::SafetensorsWriter oneVector(const Eigen::VectorXf& v) {
  io::SafetensorsWriter writer;
  writer.add("v", v);
  return writer;
}

}  // namespace

BOOST_AUTO_TEST_CASE(filesOfThePythonLibraryComeBackByteForByte, *boost::unit_test::label("golden")) {
  const TemporaryFolder folder;
  for (const char* name : {"/io/python.safetensors", "/io/bitsandbytes.safetensors", "/linear8bit.safetensors"}) {
    const std::string path = EIGENQ_TEST_DATA_DIR + std::string(name);
    const io::SafetensorsFile file(path);
    BOOST_TEST(file.tensors().size() > 3u);
    BOOST_TEST((rewritten(file, folder) == readFile(path)), name);
  }
}

BOOST_AUTO_TEST_CASE(theBytesOfASmallFile) {
  const TemporaryFolder folder;
  io::SafetensorsWriter writer;
  writer.setMetadata("format", "pt");
  writer.add("b", (Eigen::Matrix<std::uint8_t, 2, 3>() << 1, 2, 3, 4, 5, 6).finished());
  writer.add("a", Eigen::Matrix<std::uint8_t, 1, 1>::Constant(7));
  writer.add("ff", Eigen::Vector2f(1, 2));
  writer.write(folder.path("f"));
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"ff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},"b":{"dtype":"U8","shape":[2,3],"data_offsets":[9,15]}})";
  BOOST_TEST(header.size() == 193u);  // so seven spaces make it a multiple of 8
  BOOST_TEST(readFile(folder.path("f")) ==
             fileBytes(header + "       ", std::string("\0\0\x80\x3f\0\0\0\x40\7\1\2\3\4\5\6", 15)));
  BOOST_TEST(writer.dataBytes() == 15u);
}

BOOST_AUTO_TEST_CASE(matricesComeBackWhateverTheirStorageOrder) {
  const TemporaryFolder folder;
  const Eigen::MatrixXf m = Eigen::MatrixXf::Random(5, 7);
  const Eigen::Matrix<Eigen::half, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> h = m.cast<Eigen::half>();
  io::SafetensorsWriter writer;
  writer.add("m", m);
  writer.add("block", m.block(1, 2, 3, 4).transpose());
  writer.add("h", h);
  writer.write(folder.path("f"));
  const io::SafetensorsFile file(folder.path("f"));
  BOOST_TEST((io::toMatrix<float>(file.at("m"), 5, 7) == m));
  BOOST_TEST((io::toMatrix<float>(file.at("block"), 4, 3) == m.block(1, 2, 3, 4).transpose()));
  BOOST_TEST((io::toMatrix<Eigen::half>(file.at("h"), 5, 7).cast<float>() == h.cast<float>()));
}

BOOST_AUTO_TEST_CASE(sourcesAreAskedInTheOrderOfTheFile) {
  const TemporaryFolder folder;
  io::SafetensorsWriter writer;
  std::string asked;
  for (const char* name : {"c", "a", "b"}) {
    writer.add(name, io::DType::kU8, {3}, [&asked, name](const io::ByteSink& sink) {
      asked += name;
      sink(name, 1);  // in pieces
      sink("yz", 2);
    });
  }
  writer.write(folder.path("f"));
  BOOST_TEST(asked == "abc");
  BOOST_TEST(textOf(io::SafetensorsFile(folder.path("f")).at("b")) == "byz");
}

BOOST_AUTO_TEST_CASE(aWriteThatFailsLeavesTheOldFileAndNothingElse) {
  const TemporaryFolder folder;
  const std::string path = folder.write("f", "old");
  const auto fails = [&](const io::ByteSource& source) {
    io::SafetensorsWriter writer = oneVector(Eigen::VectorXf::Ones(100'000));  // beyond any buffer
    writer.add("w", io::DType::kU8, {2}, source);
    const std::string error = errorOf([&] { writer.write(path); });
    BOOST_TEST(readFile(path) == "old");
    BOOST_TEST(folder.names() == std::vector<std::string>{"f"}, boost::test_tools::per_element());
    return error;
  };
  BOOST_TEST(fails([](const io::ByteSink& sink) { sink("x", 1); }) ==
             path + ": w: its source: expected 2 bytes, found 1");
  BOOST_TEST(fails([](const io::ByteSink& sink) { sink("xyz", 3); }) ==
             path + ": w: its source: expected 2 bytes, found more");
  BOOST_CHECK_THROW(fails([](const io::ByteSink&) { throw std::runtime_error("no more"); }), std::runtime_error);
  BOOST_TEST(folder.names().size() == 1u);
}

BOOST_AUTO_TEST_CASE(whatTheSystemRefusesIsNamed) {
  const TemporaryFolder folder;
  const auto message = [](const std::string& path) {
    try {
      oneVector(Eigen::VectorXf::Ones(3)).write(path);
    } catch (const std::system_error& e) {
      BOOST_TEST((e.code().value() != 0));
      return std::string(e.what());
    }
    return std::string("written");
  };
  BOOST_TEST(message(folder.path("no/f")).find("cannot be created: No such file") != std::string::npos);
  std::filesystem::create_directory(folder.path("folder"));
  BOOST_TEST(message(folder.path("folder")).find("cannot be replaced") != std::string::npos);
  BOOST_REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
  BOOST_TEST(message(folder.path("pipe")).find("is no regular file") != std::string::npos);
  BOOST_TEST(std::filesystem::is_fifo(folder.path("pipe")));
  const std::vector<std::string> untouched = {"folder", "pipe"};
  BOOST_TEST(folder.names() == untouched, boost::test_tools::per_element());
}

// A disk that fills up, imitated by a limit on the size of files.
BOOST_AUTO_TEST_CASE(aFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  folder.write("f", "old");
  rlimit before{};
  BOOST_REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);  // else it kills
  const rlimit small{1000, before.rlim_max};
  BOOST_REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  BOOST_CHECK_THROW(oneVector(Eigen::VectorXf::Ones(100'000)).write(folder.path("f")), std::system_error);
  BOOST_REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  BOOST_TEST(readFile(folder.path("f")) == "old");
  BOOST_TEST(folder.names() == std::vector<std::string>{"f"}, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(aFileThatIsMappedSurvivesItsReplacement) {
  const TemporaryFolder folder;
  oneVector(Eigen::VectorXf::Ones(10'000)).write(folder.path("f"));
  const io::SafetensorsFile old(folder.path("f"));
  oneVector(Eigen::VectorXf::Zero(3)).write(folder.path("f"));
  BOOST_TEST(io::toVector<float>(old.at("v"), 10'000).sum() == 10'000.0f);
  BOOST_TEST(io::toVector<float>(io::SafetensorsFile(folder.path("f")).at("v")).size() == 3);
}

BOOST_AUTO_TEST_CASE(namesAndShapesAreChecked) {
  io::SafetensorsWriter writer = oneVector(Eigen::VectorXf::Ones(3));
  const auto add = [&](const std::string& name, io::DType dtype, std::vector<Index> shape) {
    return errorOf([&] { writer.addReference(name, dtype, std::move(shape), nullptr); });
  };
  BOOST_TEST(add("v", io::DType::kU8, {}) == "SafetensorsWriter: v: given twice");
  BOOST_TEST(add("__metadata__", io::DType::kU8, {}) == "SafetensorsWriter: __metadata__: is no name for a tensor");
  BOOST_TEST(add("\xff", io::DType::kU8, {}) == "SafetensorsWriter: name: not UTF-8");
  BOOST_TEST(add("n", io::DType::kU8, {3, -1}) == "SafetensorsWriter: n: shape: negative extent in [3, -1]");
  BOOST_TEST(add("n", io::DType::kF4, {3}) ==
             "SafetensorsWriter: n: shape: F4 [3] has 12 bits, no whole number of bytes");
  BOOST_TEST(add("n", io::DType::kF64, {Index{1} << 60, 16}) ==
             "SafetensorsWriter: n: shape: F64 [1152921504606846976, 16] has more bits than 64 bits can count");
  BOOST_TEST(errorOf([&] { writer.setMetadata("k", "\xc3"); }) == "SafetensorsWriter: __metadata__: k: not UTF-8");
  BOOST_TEST(writer.dataBytes() == 12u);
}
