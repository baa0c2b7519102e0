// SPDX-License-Identifier: MPL-2.0
// save_pretrained.cpp: a model as a folder of Hugging Face.
#include <cstddef>
#include <deque>
#include <filesystem>
#include <set>
#include <utility>
#include <variant>

#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/Pretrained.h>

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

io::DType dtypeNamed(const std::string& name) {
  if (name == "float32") return io::DType::kF32;
  if (name == "float16") return io::DType::kF16;
  if (name == "bfloat16") return io::DType::kBF16;
  throw FormatError("saveLlama", "dtype", "expected float32, float16 or bfloat16, found " + name);
}

/** The entries of \a m column by column, rounded to Scalar. */
template <typename Scalar>
void writeAs(const Eigen::MatrixXf& m, const io::ByteSink& sink) {
  const Eigen::MatrixX<Scalar> rounded = m.cast<Scalar>();
  sink(rounded.data(), static_cast<std::size_t>(rounded.size()) * sizeof(Scalar));
}

void writeAs(io::DType dtype, const Eigen::MatrixXf& m, const io::ByteSink& sink) {
  if (dtype == io::DType::kF16) return writeAs<Eigen::half>(m, sink);
  if (dtype == io::DType::kBF16) return writeAs<Eigen::bfloat16>(m, sink);
  sink(m.data(), static_cast<std::size_t>(m.size()) * sizeof(float));
}

}  // namespace

struct PretrainedWriter::State {
  LlamaConfig config;
  io::DType dtype;
  std::uint64_t maxShardBytes;
  io::SafetensorsWriter tensors;
  std::deque<HostWeight> kept;            // the writer refers to them
  std::vector<std::string> denseModules;  // projections that are not quantised
  std::optional<QuantizationConfig> quantization;

  /** All quantised projections of a checkpoint are described by one QuantizationConfig. */
  void describe(const std::string& module, const QuantizationConfig& own) {
    if (!quantization) {
      quantization = own;
      return;
    }
    const bool same = quantization->bits == own.bits && quantization->type == own.type &&
                      quantization->int8Threshold == own.int8Threshold;
    if (!same)
      throw FormatError("saveLlama", module, "expected one quantised format for all projections, found a second");
    quantization->doubleQuant = quantization->doubleQuant || own.doubleQuant;
  }

  template <FourBitType kType>
  void add(const std::string& module, const FourBitMatrix<kType>& w) {
    QuantizationConfig own;
    own.type = kType;
    own.doubleQuant = w.state().isNested();
    describe(module, own);
    io::addFourBit(tensors, module + ".weight", w);
  }
  void add(const std::string& module, const Int8Matrix& w, float threshold = 6) {
    QuantizationConfig own;
    own.bits = 8;
    own.int8Threshold = threshold;
    describe(module, own);
    io::addInt8(tensors, module + ".weight", w);
  }
  void add(const std::string& module, const LlmInt8Weight<Int8Matrix>& w) { add(module, w.codes, w.threshold); }
  void add(const std::string&, const Eigen::MatrixXf&) {}  // dense ones come by the other function
};

PretrainedWriter::PretrainedWriter(LlamaConfig config, const SaveOptions& options)
    : m_state(std::make_unique<State>()) {
  m_state->config = std::move(config);
  if (!options.dtype.empty()) m_state->config.dtype = options.dtype;
  m_state->dtype = dtypeNamed(m_state->config.dtype);
  m_state->maxShardBytes = options.maxShardBytes;
}

PretrainedWriter::~PretrainedWriter() = default;

void PretrainedWriter::addDense(const std::string& name, std::vector<Index> shape, Value value) {
  const io::DType dtype = m_state->dtype;
  m_state->tensors.add(name, dtype, std::move(shape),
                       [dtype, value = std::move(value)](const io::ByteSink& sink) { writeAs(dtype, value(), sink); });
}

void PretrainedWriter::addProjection(const std::string& module, Index out, Index in, Value value) {
  m_state->denseModules.push_back(module);
  addDense(module + ".weight", {out, in}, [value = std::move(value)] { return Eigen::MatrixXf(value().transpose()); });
}

void PretrainedWriter::addProjection(const std::string& module, HostWeight weight) {
  m_state->kept.push_back(std::move(weight));
  std::visit([&](const auto& w) { m_state->add(module, w); }, m_state->kept.back());
}

void PretrainedWriter::write(const std::string& directory) {
  LlamaConfig& config = m_state->config;
  config.quantization = m_state->quantization;
  if (config.quantization) {
    config.quantization->computeDtype = config.dtype;
    // By name, lm_head among them: what the list lacks, transformers would quantise while it loads.
    config.quantization->skipModules = m_state->denseModules;
    if (config.tieWordEmbeddings) config.quantization->skipModules.push_back("lm_head");
  }
  io::writeCheckpoint(m_state->tensors, directory, m_state->maxShardBytes);
  io::writeFileAtomically((std::filesystem::path(directory) / "config.json").string(), config.toJson());
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
