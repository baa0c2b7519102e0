// SPDX-License-Identifier: MPL-2.0
// Folders with one file or with shards and their index.
#define BOOST_TEST_MODULE Checkpoint
#include <boost/test/unit_test.hpp>
#include <boost/test/data/test_case.hpp>

#include <stdexcept>

#include "Support.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kSingle = "model.safetensors";

/** A file of tensors of one byte each, which is the first of their names. */
std::string shard(const std::vector<std::string>& names, const std::string& metadata = "") {
  std::string json = metadata.empty() ? "" : "\"__metadata__\":{" + metadata + "},", data;
  for (const std::string& name : names) {
    json += "\"" + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(data.size()) + "," +
            std::to_string(data.size() + 1) + "]},";
    data += name[0];
  }
  if (!json.empty()) json.pop_back();
  return fileBytes("{" + json + "}", data);
}

std::string indexOf(const std::string& weightMap) {
  return R"({"metadata":{"total_size":3},"weight_map":{)" + weightMap + "}}";
}
const std::string kTwoShards = indexOf(R"("a":"1.safetensors","b":"2.safetensors","c":"1.safetensors")");

/** A folder with shards of "a", "c" and of "b". */
struct Sharded {
  explicit Sharded(const std::string& index = kTwoShards) {
    folder.write(kIndex, index);
    folder.write("1.safetensors", shard({"a", "c"}, R"("alias":"c","format":"pt")"));
    folder.write("2.safetensors", shard({"b"}));
  }
  std::string error() const {
    const std::string text = errorOf([this] {
      const io::Checkpoint checkpoint(folder.path());
      for (const std::string& name : checkpoint.names()) checkpoint.at(name);
    });
    return text.rfind(folder.path(), 0) == 0 ? text.substr(folder.path().size() + 1) : text;
  }
  TemporaryFolder folder;
};

io::SafetensorsWriter threeVectors(float value) {
  io::SafetensorsWriter writer;
  for (const char* name : {"z", "y", "x"}) writer.add(name, Eigen::VectorXf::Constant(100, value));
  return writer;
}

float firstOf(const std::string& folder) { return io::toVector<float>(io::Checkpoint(folder).at("y"))[0]; }

struct BadIndex {
  std::string text, error;
};
std::ostream& operator<<(std::ostream& os, const BadIndex& bad) { return os << bad.text; }

const std::vector<BadIndex> kBadIndexes = {
    {"", "index: expected a JSON object, found nothing"},
    {"[]", "index: expected a JSON object, found 0x5b"},
    {"{}", "weight_map: missing"},
    {R"({"weight_map":[]})", "weight_map: expected an object, found an array"},
    {R"({"weight_map":{},"weight_map":{}})", "weight_map: given twice"},
    {indexOf(R"("a":{"file":"1.safetensors","offset":7})"), "a: expected the name of a file, found an object"},
    {indexOf(R"("a":7)"), "a: expected the name of a file, found an unsigned integer"},
    {indexOf(R"("a":"")"), "a: expected the name of a file in the index's folder, found \"\""},
    {indexOf(R"("a":"../1.safetensors")"),
     "a: expected the name of a file in the index's folder, found \"../1.safetensors\""},
    {indexOf(R"("a":"/etc/passwd")"), "a: expected the name of a file in the index's folder, found \"/etc/passwd\""},
    {indexOf(R"("a":"..\\1")"), "a: expected the name of a file in the index's folder, found \"..\\1\""},
    {indexOf(R"("a":"..")"), "a: expected the name of a file in the index's folder, found \"..\""},
    {indexOf(R"("a":"1.safetensors","a":"2.safetensors")"), "a: given twice"},
    {indexOf(R"("a":"3.safetensors")"), "3.safetensors: the index names it, but there is no such file"},
};

}  // namespace

BOOST_AUTO_TEST_CASE(shardsAreFoundThroughTheirIndex) {
  const Sharded sharded;
  const io::Checkpoint checkpoint(sharded.folder.path());
  BOOST_TEST(checkpoint.names() == (std::vector<std::string>{"a", "b", "c"}), boost::test_tools::per_element());
  BOOST_TEST(textOf(checkpoint.at("b")) == "b");
  BOOST_TEST(textOf(checkpoint.at("c")) == "c");
  BOOST_TEST(!checkpoint.has("d"));
  BOOST_TEST(errorOf([&] { checkpoint.at("d"); }) == checkpoint.path() + ": d: tensor missing");
  BOOST_TEST(checkpoint.declaredBytes().value() == 3u);
  BOOST_TEST(checkpoint.metadata("format") == "pt");
}

BOOST_AUTO_TEST_CASE(aliasesAreFound) {
  const Sharded sharded;
  const io::Checkpoint checkpoint(sharded.folder.path());
  BOOST_TEST(checkpoint.has("alias"));
  BOOST_TEST(textOf(checkpoint.at("alias")) == "c");
  BOOST_TEST(checkpoint.storedName("alias") == "c");
  BOOST_TEST(!checkpoint.has("format"));  // a text, no tensor's name
  const io::Checkpoint single(parse(shard({"lm_head.weight"}, R"("model.embed_tokens.weight":"lm_head.weight")")));
  BOOST_TEST(single.at("model.embed_tokens.weight").name == "lm_head.weight");
}

BOOST_AUTO_TEST_CASE(aSingleFileComesBeforeAnIndex) {
  const Sharded sharded;
  sharded.folder.write(kSingle, shard({"x", "y"}));
  BOOST_TEST(io::Checkpoint(sharded.folder.path()).names().size() == 2u);
  BOOST_TEST(textOf(io::Checkpoint(sharded.folder.path("2.safetensors")).at("b")) == "b");  // a file by its path
  const TemporaryFolder empty;
  BOOST_TEST(errorOf([&] { io::Checkpoint(empty.path()); }) ==
             empty.path() + ": folder: expected model.safetensors or model.safetensors.index.json, found neither");
}

BOOST_AUTO_TEST_CASE(namesUnderAPrefix) {
  const io::Checkpoint checkpoint(
      parse(shard({"w.weight", "w.weight.absmax", "w.weight.quant_map", "w.weights", "x"})));
  BOOST_TEST(checkpoint.namesUnder("w.weight.") == (std::vector<std::string>{"w.weight.absmax", "w.weight.quant_map"}),
             boost::test_tools::per_element());
  BOOST_TEST(checkpoint.namesUnder("y").empty());
}

BOOST_DATA_TEST_CASE(badIndexesAreRefused, boost::unit_test::data::make(kBadIndexes), bad) {
  BOOST_TEST(Sharded(bad.text).error() == std::string(kIndex) + ": " + bad.error);
}

BOOST_AUTO_TEST_CASE(anIndexMayHoldMore) {
  BOOST_TEST(Sharded(R"({"new":[{"weight_map":1}],"metadata":{"total_size":3.5,"x":{}},"weight_map":)"
                     R"({"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors","alias":"1.safetensors"}})")
                 .error() == "accepted");
}

BOOST_AUTO_TEST_CASE(shardsAndIndexMustAgree) {
  const auto startsWith = [](const std::string& text, const std::string& begin) { return text.rfind(begin, 0) == 0; };
  const std::string more = Sharded(indexOf(R"("a":"1.safetensors","b":"2.safetensors")")).error();
  BOOST_TEST(startsWith(more, "1.safetensors: c: is not in the index"), more);
  const std::string fewer = Sharded(indexOf(R"("a":"1.safetensors","c":"1.safetensors","d":"1.safetensors")")).error();
  BOOST_TEST(startsWith(fewer, "1.safetensors: d: tensor missing, which the index"), fewer);
  const std::string elsewhere =
      Sharded(indexOf(R"("a":"1.safetensors","b":"2.safetensors","c":"2.safetensors")")).error();
  BOOST_TEST(startsWith(elsewhere, "1.safetensors: c: is in "), elsewhere);
}

BOOST_AUTO_TEST_CASE(checkpointsAreWrittenInOneFileOrInShards) {
  const TemporaryFolder folder;
  io::writeCheckpoint(threeVectors(1), folder.path("new/model"));
  BOOST_TEST(io::Checkpoint(folder.path("new/model")).metadata("format") == "pt");
  BOOST_TEST(io::Checkpoint(folder.path("new/model")).path() == folder.path("new/model/model.safetensors"));

  io::writeCheckpoint(threeVectors(1), folder.path("sharded"), 900);  // two vectors of 400 bytes a shard
  const io::Checkpoint sharded(folder.path("sharded"));
  BOOST_TEST(readFile(folder.path(std::string("sharded/") + kIndex)) == R"({
  "metadata": {
    "total_size": 1200
  },
  "weight_map": {
    "x": "model-00002-of-00002.safetensors",
    "y": "model-00001-of-00002.safetensors",
    "z": "model-00001-of-00002.safetensors"
  }
}
)");
  for (const std::string& name : sharded.names())
    BOOST_TEST(io::toVector<float>(sharded.at(name), 100).sum() == 100.0f);
  sharded.discard(sharded.at("y"));
  BOOST_TEST(io::toVector<float>(sharded.at("y"), 100).sum() == 100.0f);

  io::writeCheckpoint(threeVectors(1), folder.path("least"), 1);  // a tensor larger than a shard is one of its own
  BOOST_TEST(io::Checkpoint(folder.path("least")).names().size() == 3u);
}

BOOST_AUTO_TEST_CASE(aNewCheckpointReplacesTheOldOneWhole) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  float value = 0;
  // From each form to each.
  for (const unsigned shardBytes : {5000u, 900u, 900u, 500u, 5000u, 5000u, 900u, 5000u}) {
    value += 1;
    io::writeCheckpoint(threeVectors(value), folder.path(), shardBytes);
    BOOST_TEST(firstOf(folder.path()) == value);
    const std::size_t files = shardBytes == 5000 ? 1 : shardBytes == 900 ? 3 : 4;
    BOOST_TEST(folder.names().size() == files + 1);  // nothing of the old one; what is no part of it stays
  }
  BOOST_TEST(readFile(folder.path("config.json")) == "{}");
}

BOOST_AUTO_TEST_CASE(aFailedWriteLeavesTheOldCheckpoint) {
  for (const unsigned before : {5000u, 900u}) {
    for (const unsigned shardBytes : {5000u, 900u, 500u}) {
      const TemporaryFolder folder;
      io::writeCheckpoint(threeVectors(1), folder.path(), before);
      const std::vector<std::string> files = folder.names();
      io::SafetensorsWriter writer = threeVectors(2);
      writer.add("last", io::DType::kU8, {100}, [](const io::ByteSink&) { throw std::runtime_error("no more"); });
      BOOST_CHECK_THROW(io::writeCheckpoint(writer, folder.path(), shardBytes), std::runtime_error);
      BOOST_TEST(firstOf(folder.path()) == 1.0f);
      BOOST_TEST(folder.names() == files, boost::test_tools::per_element());
    }
  }
}

// A process killed between the last shard and the index: the old checkpoint is whole, the next write finds room.
BOOST_AUTO_TEST_CASE(shardsThatAKilledWriteLeftAreNoHindrance) {
  const TemporaryFolder folder;
  io::writeCheckpoint(threeVectors(1), folder.path(), 900);
  folder.write("model-r2-00001-of-00002.safetensors", "half of a shard");
  BOOST_TEST(firstOf(folder.path()) == 1.0f);
  io::writeCheckpoint(threeVectors(2), folder.path(), 900);
  BOOST_TEST(firstOf(folder.path()) == 2.0f);
}
