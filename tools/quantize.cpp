// SPDX-License-Identifier: MPL-2.0
// eigenq quantize: a dense model into bitsandbytes' formats.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <variant>
#include <vector>

#include <eigen_q/Io>
#include <unsupported/eigen_q/Llm>

#include "Command.h"
#include "ModelOptions.h"
#include "OutputFolder.h"
#include "WatchedSource.h"

namespace EigenQ {
namespace tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq quantize SmolLM2-135M SmolLM2-135M-nf4 --to nf4 --nested\n"
    "  eigenq quantize SmolLM2-135M SmolLM2-135M-int8 --to int8 --skip lm_head down_proj\n"
    "OUT opens in transformers with bitsandbytes. Tensors are read, quantised and given back one by one: the peak of\n"
    "memory is the quantised model and one tensor.";

struct Options {
  std::string directory;
  std::string out;
  llm::LoadOptions load;
  double shardGigabytes = 5;
  bool force = false;
};

struct Row {
  std::string module;
  Index rows, cols;
  std::uint64_t bytesBefore;
  Index bytesAfter;
  double relativeError;  // ‖stored - given‖ / ‖given‖, Frobenius
};

/** Weights quantised on their way, each compared with what it was. */
class MeasuredSource : public WatchedSource {
 public:
  explicit MeasuredSource(const Options& options)
      : WatchedSource(llm::openPretrained(options.directory, options.load), options.load.skipModules),
        m_original(options.directory) {}

  llm::HostWeight projection(const std::string& module, Index out, Index in) override {
    const std::string weight = module + ".weight";
    if (io::storedAs(m_original, weight) != io::StoredAs::kDense)
      throw FormatError(m_original.path(), weight, "expected a dense weight to quantise, found codes");
    llm::HostWeight w = WatchedSource::projection(module, out, in);
    std::visit([&](const auto& stored) { measure(module, stored); }, w);
    return w;
  }

  const std::vector<Row>& rows() const { return m_rows; }

 private:
  void measure(const std::string&, const Eigen::MatrixXf&) {}  // stays dense
  void measure(const std::string& module, const llm::LlmInt8Weight<Int8Matrix>& w) { measure(module, w.codes); }
  template <typename Quantized>
  void measure(const std::string& module, const Quantized& w) {
    const io::TensorView& tensor = m_original.at(module + ".weight");
    Eigen::MatrixXf difference = w;
    const auto given = io::toMatrix<float>(tensor);
    const double norm = given.template cast<double>().norm();
    difference -= given;
    const double error = difference.template cast<double>().norm();
    m_rows.push_back({module, w.rows(), w.cols(), tensor.bytes, w.sizeInBytes(), norm > 0 ? error / norm : 0});
    m_original.discard(tensor);
  }

  io::Checkpoint m_original;
  std::vector<Row> m_rows;
};

std::uint64_t tensorBytes(const std::string& folder) {
  const io::Checkpoint checkpoint(folder);
  std::uint64_t bytes = 0;
  for (const std::string& name : checkpoint.names())
    if (checkpoint.storedName(name) == name) bytes += checkpoint.at(name).bytes;
  return bytes;
}

void print(const std::vector<Row>& rows) {
  std::printf("%-40s %14s %12s %12s %10s\n", "projection", "shape", "bytes", "quantised", "error");
  for (const Row& row : rows)
    std::printf("%-40s %14s %12llu %12lld %8.2f %%\n", row.module.c_str(), io::shapeText({row.rows, row.cols}).c_str(),
                static_cast<unsigned long long>(row.bytesBefore), static_cast<long long>(row.bytesAfter),
                100 * row.relativeError);
}

void quantize(const Options& options) {
  OutputFolder out(options.out, options.force, {options.directory});
  MeasuredSource source(options);
  llm::Llama<> model(source, /*maxPositions=*/1);
  if (source.rows().empty()) throw std::runtime_error(options.directory + ": --skip leaves nothing to quantise");
  llm::SaveOptions save;
  // No file is larger than 2^63 bytes, and not every double is a number of 64 bits.
  save.maxShardBytes = static_cast<std::uint64_t>(std::min(options.shardGigabytes * 1e9, 0x1p63));
  llm::saveLlama(model, out.path(), save);
  out.copyCompanions(options.directory);
  const std::uint64_t before = tensorBytes(options.directory), after = tensorBytes(out.path());
  out.commit();
  print(source.rows());
  std::printf("whole model: %llu bytes before, %llu after (%.1f %%)\n", static_cast<unsigned long long>(before),
              static_cast<unsigned long long>(after), 100.0 * static_cast<double>(after) / static_cast<double>(before));
}

void addOptions(CLI::App& command, Options& options) {
  static const std::map<std::string, llm::WeightFormat> kFormats = {
      {"nf4", llm::WeightFormat::kNF4}, {"fp4", llm::WeightFormat::kFP4}, {"int8", llm::WeightFormat::kLlmInt8}};
  addDirectory(command, options.directory);
  command.add_option("OUT", options.out, "Folder to write, made if missing")->type_name("")->required();
  command
      .add_option_function<std::string>(
          "--to", [&options](const std::string& name) { options.load.format = kFormats.at(name); },
          "Format of the projections; int8 is LLM.int8()")
      ->type_name("FORMAT")
      ->required()
      ->check(CLI::IsMember({"nf4", "fp4", "int8"}));
  addFormatDetails(command, options.load);
  command.add_option("--shard-size", options.shardGigabytes, "Most gigabytes (10^9 bytes) of a file")
      ->check(finite())
      ->check(positive());
  command.add_flag("--force", options.force, "Replace the model that is in OUT");
}

}  // namespace

void addQuantize(CLI::App& program, Job& job) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("quantize", "Write a model in bitsandbytes' 4-bit or 8-bit format");
  command->footer(kFooter);
  addOptions(*command, *options);
  command->callback([=, &job] {
    checkFormatDetails(*command, options->load);
    job = [options] { quantize(*options); };
  });
}

}  // namespace tools
}  // namespace EigenQ
