// SPDX-License-Identifier: MPL-2.0
// layers.cpp: layers as Hugging Face saves them, with an input and the output that the original computed for it.
#include <algorithm>

#include <eigen_q/src/Int8Codec.h>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

Eigen::RowVectorXd biasOf(const test::SafetensorsFile& file, const std::string& module, Index outputs) {
  const std::string key = module + ".bias";
  if (!file.has(key)) return Eigen::RowVectorXd::Zero(outputs);
  return asDouble(file.at(key));
}

bool isFourBitLayer(const std::string& key) { return key.find(".quant_state.bitsandbytes__") != std::string::npos; }
bool isInt8Layer(const std::string& key) { return key.size() > 4 && key.compare(key.size() - 4, 4, ".SCB") == 0; }

/** test.output belongs to the layer where it is the only one. */
bool hasOutputOfItsOwn(const test::SafetensorsFile& file) {
  const auto layers = std::count_if(file.tensors().begin(), file.tensors().end(), [](const auto& entry) {
    return isFourBitLayer(entry.first) || isInt8Layer(entry.first);
  });
  return layers == 1 && file.has("test.output");
}

QuantState loadState(const test::SafetensorsFile& file, const std::string& weight, const std::string& packedKey) {
  QuantStateTensors parts;
  const test::Tensor& absmax = file.at(weight + ".absmax");
  parts.quantMap = toEigen(file.at(weight + ".quant_map").floats());
  if (file.has(weight + ".nested_absmax")) {
    parts.absmaxCodes = toEigen(absmax.bytesU8());
    parts.nestedAbsmax = toEigen(file.at(weight + ".nested_absmax").floats());
    parts.nestedQuantMap = toEigen(file.at(weight + ".nested_quant_map").floats());
  } else {
    parts.absmax = toEigen(absmax.floats());
  }
  const std::vector<char>& text = file.at(packedKey).bytes;
  return QuantState::fromPackedJson(std::string(text.begin(), text.end()), std::move(parts), file.path());
}

/** Output against the product in double. The original rounds each weight (level and absmax and their product) and the
 * result: at most 3u of Σ|x||w| and u of the result, a float sum besides.
 * \param u           unit roundoff of the type that it computes in
 * \param inputError  of the outputs, by quantising the input */
void compareOutput(const test::SafetensorsFile& file, const std::string& module, const MatrixXdRow& weights, double u,
                   const Eigen::ArrayXXd& inputError, CaseReport& report) {
  const test::Tensor& input = file.at("test.input");
  const MatrixXdRow x = asDouble(input), y = asDouble(file.at("test.output"));
  if (x.cols() != weights.cols() || y.rows() != x.rows() || y.cols() != weights.rows()) {
    report.fail("test.output: shapes do not fit the weight");
    return;
  }
  const MatrixXdRow exact = (x * weights.transpose()).rowwise() + biasOf(file, module, weights.rows());
  const Eigen::ArrayXXd magnitudes = (x.cwiseAbs() * weights.cwiseAbs().transpose()).array();
  const Eigen::ArrayXXd bound =
      inputError + (3 * u + double(x.cols()) * 0x1p-24) * magnitudes + u * exact.array().abs();
  const Eigen::ArrayXXd error = (y - exact).array().abs();
  if (!(error <= bound).all()) report.fail("test.output: error beyond the original's rounding");
}

void checkLinear4bit(const test::SafetensorsFile& file, const std::string& packedKey, const Backend& backend,
                     CaseReport& report) {
  const std::string weight = packedKey.substr(0, packedKey.find(".quant_state."));
  const QuantState state = loadState(file, weight, packedKey);
  const std::vector<char>& text = file.at(packedKey).bytes;
  if (state.toPackedJson() != std::string(text.begin(), text.end()))
    report.fail("packed dictionary: " + state.toPackedJson());
  if (packedKey != weight + "." + state.packedKey()) report.fail("packed dictionary's key: " + state.packedKey());
  report.compareFloats("quant_map", file.at(weight + ".quant_map").floats(), toVector(state.quantMap()));
  const std::vector<float> decoded =
      backend.dequantize4bit(toEigen(file.at(weight).bytesU8()), state, ScalarType::kFloat);
  const MatrixXdRow weights = MatrixMap<float>(decoded.data(), state.shape().at(0), state.shape().at(1)).cast<double>();
  if (!hasOutputOfItsOwn(file)) return;
  const Eigen::ArrayXXd exactInput = Eigen::ArrayXXd::Zero(file.at("test.input").rows(), weights.rows());
  compareOutput(file, weight.substr(0, weight.rfind('.')), weights, unitRoundoff(file.at("test.input").dtype),
                exactInput, report);
}

/** Float sums of int32 products, scaled as bitsandbytes' CUDA kernel does, and rounded to half: exact where the layer
 * found no outlier. The file does not tell its threshold, so outputs that differ are held to what quantised inputs
 * imply, and listed. */
void compareInt8Output(const test::SafetensorsFile& file, const Int8Codes& w, const std::vector<float>& scb,
                       const std::string& module, const Backend& backend, CaseReport& report) {
  const test::Tensor& input = file.at("test.input");
  const Int8Quantized x = backend.int8VectorwiseQuant(viewOf(input), 0);
  const Eigen::RowVectorXd bias = biasOf(file, module, w.rows());
  const RowMajorMatrix<int> sums = x.codes.cast<int>() * w.cast<int>().transpose();
  RowMajorMatrix<float> found(sums.rows(), sums.cols());
  for (Index i = 0; i < sums.rows(); ++i) {
    for (Index j = 0; j < sums.cols(); ++j) {
      const float scaled = static_cast<float>(sums(i, j)) * x.rowStats[i] * scb[static_cast<std::size_t>(j)];
      const float y = std::fma(scaled, 0x1.040c2p-14f, static_cast<float>(bias[j]));  // RN(1/127²)
      found(i, j) = internal::halfToFloat(internal::floatToHalf(y));
    }
  }
  const std::vector<float> expected = widened(file.at("test.output"));
  if (expected == toVector(found)) return;
  const MatrixXdRow weights = int8VectorwiseDequant<double>(w, toEigen(scb));
  const Eigen::VectorXd halfSteps = x.rowStats.cast<double>() / 254;
  const Eigen::ArrayXXd inputError = (halfSteps * weights.cwiseAbs().rowwise().sum().transpose()).array();
  // Whatever the input's type, the original's result passes through half.
  const double u = std::max(unitRoundoff(input.dtype), kHalfRoundoff);
  compareOutput(file, module, weights, u, inputError, report);
  if (report.failures.empty()) report.note("test.output: not the product without outliers, but within its bound", 0);
}

void checkLinear8bit(const test::SafetensorsFile& file, const std::string& scbKey, const Backend& backend,
                     CaseReport& report) {
  const std::string module = scbKey.substr(0, scbKey.rfind('.'));
  const test::Tensor& weight = file.at(module + ".weight");
  const auto codes = weight.as<std::int8_t>("I8");
  const std::vector<float> scb = file.at(scbKey).floats();
  if (file.has(module + ".weight_format") &&
      file.at(module + ".weight_format").bytesU8() != std::vector<std::uint8_t>{0})
    report.fail("weight_format: expected 0, row-major");
  if (!report.sameCount("SCB", scb.size(), static_cast<std::size_t>(weight.rows()))) return;
  const Int8Codes w = MatrixMap<std::int8_t>(codes.data(), weight.rows(), weight.cols());
  if (w.size() != 0 && w.minCoeff() < -127) report.fail("weight: holds -128");
  // Quantising the decoded weight gives the stored codes again.
  const RowMajorMatrix<float> decoded = int8VectorwiseDequant(w, toEigen(scb));
  const Int8Quantized again = backend.int8VectorwiseQuant(internal::viewOf(decoded), 0);
  report.compareIntegers("weight", codes, toVector(again.codes));
  if (hasOutputOfItsOwn(file)) compareInt8Output(file, w, scb, module, backend, report);
}

}  // namespace

bool checkLayers(const test::SafetensorsFile& file, const Backend& backend, Reports& reports) {
  const auto check = [&](const char* group, const std::string& key, auto checkLayer) {
    CaseReport report;
    try {
      checkLayer(file, key, backend, report);
    } catch (const std::exception& e) {
      report.fail(e.what());
    }
    reports[group].add(key, report);
  };
  bool any = false;
  for (const auto& [key, tensor] : file.tensors()) {
    if (isFourBitLayer(key)) check("layer_4bit", key, checkLinear4bit);
    if (isInt8Layer(key)) check("layer_8bit", key, checkLinear8bit);
    any |= isFourBitLayer(key) || isInt8Layer(key);
  }
  return any;
}

}  // namespace golden
}  // namespace EigenQ
