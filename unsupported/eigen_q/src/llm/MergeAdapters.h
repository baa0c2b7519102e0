// SPDX-License-Identifier: MPL-2.0
// Adapters folded into the weights beside which they trained.
#ifndef EIGENQ_LLM_MERGE_ADAPTERS_H
#define EIGENQ_LLM_MERGE_ADAPTERS_H

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "Llama.h"
#include "WeightSource.h"

namespace EigenQ {
namespace llm {

/** What became of W + scale·B A when it was stored. Norms are Frobenius norms. */
struct MergedWeight {
  std::string module;
  double relativeError = 0;  // ‖stored - exact‖ / ‖exact‖: relative root mean square
  double errorToUpdate = 0;  // ‖stored - exact‖ / ‖scale·B A‖; above 1 quantising changes more than training did
};

/** LoadOptions with which mergeAdapters() leaves every projection dense. */
inline LoadOptions mergeToDense() {
  LoadOptions options;
  options.format = WeightFormat::kDense;
  return options;
}

namespace internal {
/** \a w + \a update in the format of \a options; kAsStored: in that of \a w. */
HostWeight merge(const HostWeight& w, const std::string& module, const Eigen::MatrixXf& update,
                 const LoadOptions& options, MergedWeight& report);
/** \a w, of which nothing is to be merged, in the format of \a options; false where it has that format. */
bool convert(HostWeight& w, const std::string& module, const LoadOptions& options);
}  // namespace internal

/** Replaces W by W + scale·B A wherever there is an adapter, and takes the adapter off. Then saveLlama() writes a model
 * that transformers opens without PEFT.
 * \param options  format: kDense, the default, decodes every projection that is quantised, which loses nothing but the
 *   last bit of a float; a quantised format stores every projection in it, but for skipModules, and loses what the
 *   report says; kAsStored does so with each format as it is, block size and statistics included.
 * \returns one entry for each adapter, in the order of the model; in dense float weights the errors are 0.
 * From a device it waits for the current context. Throws FormatError where a weight cannot be quantised as asked; then
 * some of the adapters may be merged already. */
template <typename Scalar, typename Place>
std::vector<MergedWeight> mergeAdapters(Llama<Scalar, Place>& model, const LoadOptions& options = mergeToDense()) {
  std::vector<MergedWeight> reports;
  model.forEachLinear([&](Linear<Scalar, Place>& linear) {
    HostWeight w = linear.hostWeight();
    if (!linear.adapter()) {
      if (internal::convert(w, linear.name(), options)) linear.setWeight(std::move(w));
      return;
    }
    const auto& adapter = *linear.adapter();
    const Eigen::MatrixXf a = Place::toHost(adapter.a.value()).template cast<float>();
    const Eigen::MatrixXf b = Place::toHost(adapter.b.value()).template cast<float>();
    const Eigen::MatrixXf update = static_cast<float>(adapter.options.scale) * (b * a);
    reports.emplace_back();
    linear.setWeight(internal::merge(w, linear.name(), update, options, reports.back()));
    linear.adapter().reset();
  });
  return reports;
}

/** The entry of the largest relative error; null where there is none. */
inline const MergedWeight* worstOf(const std::vector<MergedWeight>& reports) {
  const auto worst = std::max_element(reports.begin(), reports.end(), [](const MergedWeight& x, const MergedWeight& y) {
    return x.relativeError < y.relativeError;
  });
  return worst == reports.end() ? nullptr : &*worst;
}

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_MERGE_ADAPTERS_H
