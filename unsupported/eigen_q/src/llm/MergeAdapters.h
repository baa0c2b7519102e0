// SPDX-License-Identifier: MPL-2.0
// Adapters folded into the weights beside which they trained.
#ifndef EIGENQ_LLM_MERGE_ADAPTERS_H
#define EIGENQ_LLM_MERGE_ADAPTERS_H

#include <algorithm>
#include <exception>
#include <stdexcept>
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

/** A merge that ended in the middle, by an error of the machine: out of memory, say. Every module is whole, merged or
 * with its adapter; another mergeAdapters() merges the rest. The error itself is nested (std::rethrow_if_nested). */
class MergeError : public std::runtime_error {
 public:
  MergeError(std::vector<MergedWeight> merged, const std::string& module, const char* what);
  const std::vector<MergedWeight>& merged() const { return m_merged; }
  /** Which was next. */
  const std::string& module() const { return m_module; }

 private:
  std::vector<MergedWeight> m_merged;
  std::string m_module;
};

namespace internal {
/** \a w + \a update in the format of \a options; kAsStored: in that of \a w. */
HostWeight merge(const HostWeight& w, const std::string& module, const Eigen::MatrixXf& update,
                 const LoadOptions& options, MergedWeight& report);
/** \a w, of which nothing is to be merged, in the format of \a options; false where it has that format. */
bool convert(HostWeight& w, const std::string& module, const LoadOptions& options);
/** Throws FormatError where no matrix could be quantised as \a options ask. */
void checkBlockSize(const LoadOptions& options);
/** Throws FormatError where \a w + \a update is to be quantised and not finite. \param update  0×0 for none */
void checkMerge(const HostWeight& w, const std::string& module, const Eigen::MatrixXf& update,
                const LoadOptions& options);

/** scale·B A on the host; 0×0 without an adapter. */
template <typename Scalar, typename Place>
Eigen::MatrixXf updateOf(const Linear<Scalar, Place>& linear) {
  if (!linear.adapter()) return {};
  const auto& adapter = *linear.adapter();
  const Eigen::MatrixXf a = Place::toHost(adapter.a.value()).template cast<float>();
  const Eigen::MatrixXf b = Place::toHost(adapter.b.value()).template cast<float>();
  return static_cast<float>(adapter.options.scale) * (b * a);
}

/** Calls \a mergeOne(linear, reports) for each projection; what it throws becomes a MergeError. */
template <typename Scalar, typename Place, typename MergeOne>
std::vector<MergedWeight> mergeEach(Llama<Scalar, Place>& model, const MergeOne& mergeOne) {
  std::vector<MergedWeight> reports;
  model.forEachLinear([&](Linear<Scalar, Place>& linear) {
    try {
      mergeOne(linear, reports);
    } catch (const std::exception& e) {
      std::throw_with_nested(MergeError(reports, linear.name(), e.what()));
    }
  });
  return reports;
}
}  // namespace internal

/** Replaces W by W + scale·B A wherever there is an adapter, and takes the adapter off. Then saveLlama() writes a model
 * that transformers opens without PEFT.
 * \param options  format: kDense, the default, decodes every projection that is quantised, which loses nothing but the
 *   last bit of a float; a quantised format stores every projection in it, but for skipModules, and loses what the
 *   report says; kAsStored does so with each format as it is, block size and statistics included.
 * \returns one entry for each adapter, in the order of the model; in dense float weights the errors are 0.
 * From a device it waits for the current context. Throws FormatError, before the model changes, where a weight cannot
 * be quantised as asked, and MergeError where the machine stops it in the middle: there is no second model in memory to
 * go back to. */
template <typename Scalar, typename Place>
std::vector<MergedWeight> mergeAdapters(Llama<Scalar, Place>& model, const LoadOptions& options = mergeToDense()) {
  internal::checkBlockSize(options);
  if (options.format != WeightFormat::kDense)
    model.forEachLinear([&options](const Linear<Scalar, Place>& linear) {
      if (!linear.adapter() && linear.isQuantized()) return;  // it was quantised before
      internal::checkMerge(linear.hostWeight(), linear.name(), internal::updateOf(linear), options);
    });
  return internal::mergeEach(model, [&](Linear<Scalar, Place>& linear, std::vector<MergedWeight>& reports) {
    HostWeight w = linear.hostWeight();
    if (!linear.adapter()) {
      if (internal::convert(w, linear.name(), options)) linear.setWeight(std::move(w));
      return;
    }
    MergedWeight report;
    w = internal::merge(w, linear.name(), internal::updateOf(linear), options, report);
    reports.reserve(reports.size() + 1);
    linear.setWeight(std::move(w));  // the last that can fail
    linear.adapter().reset();
    reports.push_back(std::move(report));
  });
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
