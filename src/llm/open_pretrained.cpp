// SPDX-License-Identifier: MPL-2.0
// open_pretrained.cpp: a model's weights from a folder of Hugging Face.
#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <stdexcept>
#include <utility>

#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/Pretrained.h>

#include "../read_file.h"
#include "json_object.h"
#include "quantize_weight.h"

namespace EigenQ {
namespace llm {
namespace {

namespace fs = std::filesystem;

/** config.json; generation_config.json, where there is one, has the last word on which tokens end a text. */
LlamaConfig readConfig(const fs::path& directory) {
  LlamaConfig config = LlamaConfig::fromFile((directory / "config.json").string());
  const std::string path = (directory / "generation_config.json").string();
  if (!fs::exists(path)) return config;
  const auto json = internal::JsonObject::parse(EigenQ::internal::readFile(path), path);
  if (json.has("eos_token_id")) config.eosTokenIds = json.ids("eos_token_id");
  return config;
}

bool endsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

class Pretrained : public WeightSource {
 public:
  Pretrained(const std::string& directory, LoadOptions options)
      : m_config(readConfig(directory)), m_checkpoint(directory), m_options(std::move(options)) {}

  const LlamaConfig& config() const override { return m_config; }

  Eigen::VectorXf vector(const std::string& name, Index size) override {
    const io::TensorView& tensor = take(name);
    return given(tensor, io::toVector<float>(tensor, size));
  }

  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    const bool underHead = m_config.tieWordEmbeddings && !m_checkpoint.has(name) && m_checkpoint.has("lm_head.weight");
    const io::TensorView& tensor = take(underHead ? "lm_head.weight" : name);
    tensor.requireShape({vocabulary, hidden});
    Eigen::MatrixXf columns(hidden, vocabulary);
    io::internal::readFloats(tensor, EigenQ::internal::mutableViewOf(columns).transpose());
    return given(tensor, std::move(columns));
  }

  HostWeight projection(const std::string& module, Index out, Index in) override {
    const std::string weight = module + ".weight";
    HostWeight w = read(module, io::storedAs(m_checkpoint, weight), out, in);
    takeAll(module);
    const auto shape = std::visit([](const auto& m) { return std::pair<Index, Index>(m.rows(), m.cols()); }, w);
    if (shape != std::pair<Index, Index>(out, in))
      fail(weight, "expected a weight of shape " + io::shapeText({out, in}) + ", found " +
                       io::shapeText({shape.first, shape.second}));
    return w;
  }

  void finish() override {
    for (const std::string& name : m_checkpoint.names())
      if (m_taken.count(name) == 0 && !isHarmless(name)) fail(name, "a tensor that no part of this architecture reads");
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& message) const {
    throw FormatError(m_checkpoint.path(), name, message);
  }

  const io::TensorView& take(const std::string& name) {
    const io::TensorView& tensor = m_checkpoint.at(name);
    m_taken.insert(tensor.name);
    return tensor;
  }
  /** A weight with its statistics: all that a quantised projection is stored as. */
  void takeAll(const std::string& module) {
    take(module + ".weight");
    for (const std::string& name : m_checkpoint.namesUnder(module + ".weight.")) give(take(name));
    for (const char* suffix : {".SCB", ".weight_format"})
      if (m_checkpoint.has(module + suffix)) give(take(module + suffix));
    give(m_checkpoint.at(module + ".weight"));
  }
  /** \a value, read from \a tensor, whose pages go back to the system. */
  template <typename T>
  T given(const io::TensorView& tensor, T&& value) const {
    give(tensor);
    return std::forward<T>(value);
  }
  void give(const io::TensorView& tensor) const { m_checkpoint.discard(tensor); }

  /** What older versions of transformers stored beside the weights, or what is stored twice. */
  bool isHarmless(const std::string& name) const {
    return endsWith(name, "rotary_emb.inv_freq") || (m_config.tieWordEmbeddings && name == "lm_head.weight");
  }

  HostWeight read(const std::string& module, io::StoredAs stored, Index out, Index in) {
    const std::string weight = module + ".weight";
    switch (stored) {
      case io::StoredAs::kDense:
        return readDense(module, out, in);
      case io::StoredAs::kInt8:
        return readInt8(weight, in);
      case io::StoredAs::kNF4:
        return readFourBit(io::readNF4(m_checkpoint, weight), weight, WeightFormat::kNF4);
      case io::StoredAs::kFP4:
        return readFourBit(io::readFP4(m_checkpoint, weight), weight, WeightFormat::kFP4);
    }
    fail(weight, "stored in a way that is not known");
  }

  HostWeight readDense(const std::string& module, Index out, Index in) {
    const io::TensorView& tensor = m_checkpoint.at(module + ".weight");
    if (!internal::isQuantizing(m_options.format) || isSkipped(module, m_options.skipModules))
      return io::toMatrix<float>(tensor, out, in);
    // From the values as they are stored: the quantised state then says what they were.
    if (tensor.dtype == io::DType::kBF16) return quantizeFrom<Eigen::bfloat16>(tensor, out, in);
    if (tensor.dtype == io::DType::kF16) return quantizeFrom<Eigen::half>(tensor, out, in);
    return quantizeFrom<float>(tensor, out, in);
  }

  template <typename Scalar>
  HostWeight quantizeFrom(const io::TensorView& tensor, Index out, Index in) const {
    const auto w = io::toMatrix<Scalar, Eigen::RowMajor>(tensor, out, in);
    try {
      return internal::quantizeWeight(w, m_options);
    } catch (const std::invalid_argument& e) {
      fail(tensor.name, e.what());
    }
  }

  HostWeight readInt8(const std::string& weight, Index in) {
    Int8Matrix w = io::readInt8(m_checkpoint, weight, in);
    const float threshold = m_config.quantization ? m_config.quantization->int8Threshold : 6.0f;
    switch (m_options.format) {
      case WeightFormat::kAsStored:
        return LlmInt8Weight<Int8Matrix>{std::move(w), threshold};
      case WeightFormat::kLlmInt8:
        return LlmInt8Weight<Int8Matrix>{std::move(w), m_options.int8Threshold};
      case WeightFormat::kInt8:
        return w;
      case WeightFormat::kDense:
        return Eigen::MatrixXf(w);
      default:
        fail(weight, "expected a dense weight to quantise to 4 bits, found int8");
    }
  }

  template <FourBitType kType>
  HostWeight readFourBit(FourBitMatrix<kType> w, const std::string& weight, WeightFormat own) {
    if (m_options.format == WeightFormat::kAsStored || m_options.format == own) return w;
    if (m_options.format == WeightFormat::kDense) return Eigen::MatrixXf(w);
    fail(weight, std::string("expected a dense weight to quantise, found ") + w.name());
  }

  LlamaConfig m_config;
  io::Checkpoint m_checkpoint;
  LoadOptions m_options;
  std::set<std::string> m_taken;
};

}  // namespace

std::unique_ptr<WeightSource> openPretrained(const std::string& directory, const LoadOptions& options) {
  return std::make_unique<Pretrained>(directory, options);
}

}  // namespace llm
}  // namespace EigenQ
