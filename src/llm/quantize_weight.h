// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_QUANTIZE_WEIGHT_H
#define EIGENQ_LLM_QUANTIZE_WEIGHT_H

#include <stdexcept>

#include <unsupported/eigen_q/src/llm/WeightSource.h>

namespace EigenQ {
namespace llm {
namespace internal {

inline bool isQuantizing(WeightFormat format) {
  return format != WeightFormat::kAsStored && format != WeightFormat::kDense;
}

/** \a w, in any scalar, in the quantised format that \a options ask for. Throws what the matrices throw. */
template <typename Derived>
HostWeight quantizeWeight(const Eigen::MatrixBase<Derived>& w, const LoadOptions& options) {
  switch (options.format) {
    case WeightFormat::kInt8:
      return Int8Matrix(w);
    case WeightFormat::kLlmInt8:
      return LlmInt8Weight<Int8Matrix>{Int8Matrix(w), options.int8Threshold};
    case WeightFormat::kNF4:
      return NF4Matrix(w, options.blockSize, options.statistics);
    case WeightFormat::kFP4:
      return FP4Matrix(w, options.blockSize, options.statistics);
    case WeightFormat::kAsStored:
    case WeightFormat::kDense:
      break;
  }
  throw std::logic_error("quantizeWeight: the format is not a quantised one");
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_QUANTIZE_WEIGHT_H
