// SPDX-License-Identifier: MPL-2.0
// The subcommands on a GPU, for each scalar of activations.
#include <unsupported/eigen_q/LlmCuda>

#include "Eval.h"
#include "Finetune.h"
#include "Generate.h"
#include "OnDevice.h"

namespace EigenQ {
namespace tools {
namespace {

/** \returns run(a null pointer to the model's type). */
template <typename Run>
void withModelType(const ModelOptions& options, const Run& run) {
  if (options.dtype == "float") return run(static_cast<llm::Llama<float, ad::Device>*>(nullptr));
  if (options.dtype == "half") return run(static_cast<llm::Llama<Eigen::half, ad::Device>*>(nullptr));
  run(static_cast<llm::Llama<Eigen::bfloat16, ad::Device>*>(nullptr));
}

}  // namespace

void evalOnDevice(const EvalOptions& options) {
  withModelType(options.model, [&](auto* type) { eval<std::decay_t<decltype(*type)>>(options); });
}

void finetuneOnDevice(const FinetuneOptions& options) {
  withModelType(options.model, [&](auto* type) { finetune<std::decay_t<decltype(*type)>>(options); });
}

void generateOnDevice(const GenerateOptions& options) {
  withModelType(options.model, [&](auto* type) { generate<std::decay_t<decltype(*type)>>(options); });
}

}  // namespace tools
}  // namespace EigenQ
