// SPDX-License-Identifier: MPL-2.0
// open_llama2c.cpp: models in llama2.c's format.
//
//   int32 dim, hidden, layers, heads, kvHeads, vocabulary (negative: the head is not tied), context
//   float embedding[vocabulary][dim]
//         attentionNorm[layers][dim]  q[layers][dim][dim]  k, v[layers][kv][dim]  o[layers][dim][dim]
//         ffnNorm[layers][dim]  gate[layers][hidden][dim]  down[layers][dim][hidden]  up[layers][hidden][dim]
//         norm[dim]  cosines, sines[context][dim/heads/2], which nobody needs  head[vocabulary][dim], if not tied
//
// Little endian. A layer's tensor of a kind follows that of the layer before.
#include <array>
#include <cstdlib>
#include <fstream>
#include <map>
#include <utility>
#include <vector>

#include <unsupported/eigen_q/src/llm/Llama2c.h>

namespace EigenQ {
namespace llm {
namespace {

/** Where the tensors of one kind lie. */
struct Kind {
  std::streamoff begin;  // in floats from the end of the header
  Index size;            // of one layer's
};

class Llama2c : public WeightSource {
 public:
  Llama2c(const std::string& path, LoadOptions options)
      : m_path(path), m_options(std::move(options)), m_file(path, std::ios::binary) {
    if (!m_file) throw FormatError(path, "file", "cannot be opened");
    readHeader();
    layOut();
  }

  const LlamaConfig& config() const override { return m_config; }

  Eigen::VectorXf vector(const std::string& name, Index size) override { return read(name, size, 1); }
  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    return read(name, hidden, vocabulary);
  }
  HostWeight projection(const std::string& module, Index out, Index in) override {
    Eigen::MatrixXf w = read(module + ".weight", in, out).transpose();
    if (endsWith(module, "q_proj") || endsWith(module, "k_proj")) w = withHalves(w);
    if (isSkipped(module, m_options.skipModules)) return w;
    return quantized(std::move(w), m_options);
  }

 private:
  static bool endsWith(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
  }

  /** Here entries 2i and 2i + 1 of a head turn together, elsewhere i and i + headDim/2: the rows change places. */
  Eigen::MatrixXf withHalves(const Eigen::MatrixXf& w) const {
    const Index dim = m_config.headDim, half = dim / 2;
    Eigen::MatrixXf moved(w.rows(), w.cols());
    for (Index first = 0; first < w.rows(); first += dim)
      for (Index i = 0; i < half; ++i) {
        moved.row(first + i) = w.row(first + 2 * i);
        moved.row(first + half + i) = w.row(first + 2 * i + 1);
      }
    return moved;
  }

  void readHeader() {
    std::array<std::int32_t, 7> header{};
    m_file.read(reinterpret_cast<char*>(header.data()), sizeof header);
    if (!m_file) throw FormatError(m_path, "header", "expected seven integers, found the end of the file");
    m_config.hiddenSize = header[0];
    m_config.intermediateSize = header[1];
    m_config.numHiddenLayers = header[2];
    m_config.numAttentionHeads = header[3];
    m_config.numKeyValueHeads = header[4];
    m_config.tieWordEmbeddings = header[5] > 0;
    m_config.vocabSize = std::abs(static_cast<Index>(header[5]));
    m_config.maxPositionEmbeddings = header[6];
    m_config.headDim = header[3] > 0 ? header[0] / header[3] : 0;
    m_config.rmsNormEps = 1e-5;
    m_config.bosTokenId = 1;
    m_config.eosTokenIds = {1, 2};  // it separates stories by begin-of-text
    // Two such sizes can be multiplied; layOut() compares what is more with the file.
    for (const std::int32_t n : header)
      if (std::abs(static_cast<Index>(n)) > (Index(1) << 24))
        throw FormatError(m_path, "header", "expected sizes below 2^24, found " + std::to_string(n));
    m_config.validate(m_path);
  }

  void layOut() {
    const LlamaConfig& c = m_config;
    const Index dim = c.hiddenSize, kv = c.numKeyValueHeads * c.headDim, hidden = c.intermediateSize;
    const std::streamoff bytes = fileSize(), floats = (bytes - kHeaderBytes) / kFloatBytes;
    std::streamoff at = 0;
    const auto place = [&](const char* name, std::streamoff size, Index count) {
      if (size > 0 && count > (floats - at) / size)
        throw FormatError(m_path, name,
                          "expected " + std::to_string(count) + " of " + std::to_string(size) +
                              " floats by the header, found a file of " + std::to_string(bytes) + " bytes");
      m_kinds[name] = {at, size};
      at += size * count;
    };
    place("model.embed_tokens.weight", c.vocabSize * dim, 1);
    const std::pair<const char*, Index> kinds[] = {
        {"input_layernorm.weight", dim},        {"self_attn.q_proj.weight", dim * dim},
        {"self_attn.k_proj.weight", kv * dim},  {"self_attn.v_proj.weight", kv * dim},
        {"self_attn.o_proj.weight", dim * dim}, {"post_attention_layernorm.weight", dim},
        {"mlp.gate_proj.weight", hidden * dim}, {"mlp.down_proj.weight", hidden * dim},
        {"mlp.up_proj.weight", hidden * dim}};
    for (const auto& [name, size] : kinds) place(name, size, c.numHiddenLayers);
    place("model.norm.weight", dim, 1);
    place("angles", c.maxPositionEmbeddings * c.headDim, 1);
    if (!c.tieWordEmbeddings) place("lm_head.weight", c.vocabSize * dim, 1);
    if (const std::streamoff end = kHeaderBytes + at * kFloatBytes; end != bytes)
      throw FormatError(m_path, "size",
                        "expected " + std::to_string(end) + " bytes by the header, found " + std::to_string(bytes));
  }

  std::streamoff fileSize() {
    m_file.seekg(0, std::ios::end);
    return m_file.tellg();
  }

  /** The tensor of that name, whose rows become columns. */
  Eigen::MatrixXf read(const std::string& name, Index rows, Index cols) {
    constexpr const char* kLayers = "model.layers.";
    std::string kind = name;
    Index layer = 0;
    if (name.rfind(kLayers, 0) == 0) {
      const std::size_t number = std::string(kLayers).size(), dot = name.find('.', number);
      layer = std::stol(name.substr(number, dot - number));
      kind = name.substr(dot + 1);
    }
    const Kind& k = m_kinds.at(kind);
    Eigen::MatrixXf m(rows, cols);
    m_file.seekg(kHeaderBytes + (k.begin + static_cast<std::streamoff>(layer * k.size)) * kFloatBytes);
    m_file.read(reinterpret_cast<char*>(m.data()), m.size() * kFloatBytes);
    if (!m_file) throw FormatError(m_path, name, "cannot be read");
    return m;
  }

  static constexpr std::streamoff kHeaderBytes = 7 * sizeof(std::int32_t), kFloatBytes = sizeof(float);

  std::string m_path;
  LoadOptions m_options;
  std::ifstream m_file;
  LlamaConfig m_config;
  std::map<std::string, Kind> m_kinds;
};

}  // namespace

std::unique_ptr<WeightSource> openLlama2c(const std::string& path, const LoadOptions& options) {
  return std::make_unique<Llama2c>(path, options);
}

}  // namespace llm
}  // namespace EigenQ
