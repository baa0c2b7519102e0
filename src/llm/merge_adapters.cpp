// SPDX-License-Identifier: MPL-2.0
#include <stdexcept>
#include <utility>

#include <unsupported/eigen_q/src/llm/MergeAdapters.h>

#include "quantize_weight.h"

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

struct Decode {
  Eigen::MatrixXf operator()(const LlmInt8Weight<Int8Matrix>& w) const { return Eigen::MatrixXf(w.codes); }
  template <typename W>
  Eigen::MatrixXf operator()(const W& w) const {
    return Eigen::MatrixXf(w);
  }
};

/** Sets what another weight needs to be stored as one is. */
struct FormatOf {
  LoadOptions& options;

  void operator()(const Eigen::MatrixXf&) const { options.format = WeightFormat::kDense; }
  void operator()(const Int8Matrix&) const { options.format = WeightFormat::kInt8; }
  void operator()(const LlmInt8Weight<Int8Matrix>& w) const {
    options.format = WeightFormat::kLlmInt8;
    options.int8Threshold = w.threshold;
  }
  template <FourBitType kType>
  void operator()(const FourBitMatrix<kType>& w) const {
    options.format = kType == FourBitType::kNF4 ? WeightFormat::kNF4 : WeightFormat::kFP4;
    options.blockSize = w.blockSize();
    options.statistics = w.state().isNested() ? Statistics::kNested : Statistics::kPlain;
  }
};

/** How \a module is to be stored. */
LoadOptions formatFor(const HostWeight& w, const std::string& module, LoadOptions options) {
  if (options.format == WeightFormat::kAsStored)
    std::visit(FormatOf{options}, w);
  else if (isSkipped(module, options.skipModules))
    options.format = WeightFormat::kDense;
  return options;
}

HostWeight stored(Eigen::MatrixXf&& w, const std::string& module, const LoadOptions& options) {
  if (!isQuantizing(options.format)) return std::move(w);
  try {
    return quantizeWeight(w, options);
  } catch (const std::invalid_argument& e) {
    throw FormatError("mergeAdapters", module, e.what());
  }
}

double ratio(double part, double whole) { return part == 0 ? 0 : part / whole; }

}  // namespace

HostWeight merge(const HostWeight& w, const std::string& module, const Eigen::MatrixXf& update,
                 const LoadOptions& options, MergedWeight& report) {
  const Eigen::MatrixXf exact = std::visit(Decode(), w) + update;
  HostWeight merged = stored(Eigen::MatrixXf(exact), module, formatFor(w, module, options));
  const Eigen::MatrixXd error = (std::visit(Decode(), merged) - exact).cast<double>();
  report.module = module;
  report.relativeError = ratio(error.norm(), exact.cast<double>().norm());
  report.errorToUpdate = ratio(error.norm(), update.cast<double>().norm());
  return merged;
}

bool convert(HostWeight& w, const std::string& module, const LoadOptions& options) {
  LoadOptions own = options;
  std::visit(FormatOf{own}, w);
  const LoadOptions wanted = formatFor(w, module, options);
  const bool fourBit = wanted.format == WeightFormat::kNF4 || wanted.format == WeightFormat::kFP4;
  const bool same = own.format == wanted.format &&
                    (!fourBit || (own.blockSize == wanted.blockSize && own.statistics == wanted.statistics));
  if (same) return false;
  w = stored(std::visit(Decode(), w), module, wanted);
  return true;
}

void checkBlockSize(const LoadOptions& options) {
  const bool fourBit = options.format == WeightFormat::kNF4 || options.format == WeightFormat::kFP4;
  if (fourBit) EigenQ::internal::requireBlockSize("mergeAdapters", options.blockSize);
}

void checkMerge(const HostWeight& w, const std::string& module, const Eigen::MatrixXf& update,
                const LoadOptions& options) {
  if (!isQuantizing(formatFor(w, module, options).format)) return;
  Eigen::MatrixXf exact = std::visit(Decode(), w);
  if (update.size() > 0) exact += update;
  if (!exact.allFinite())
    throw FormatError("mergeAdapters", module, "expected finite entries to quantise, found others");
}

}  // namespace internal

MergeError::MergeError(std::vector<MergedWeight> merged, const std::string& module, const char* what)
    : std::runtime_error("mergeAdapters: " + module + ": " + what + "; " + std::to_string(merged.size()) +
                         " adapters are merged, the others are where they were: another call merges them"),
      m_merged(std::move(merged)),
      m_module(module) {}

}  // namespace llm
}  // namespace EigenQ
