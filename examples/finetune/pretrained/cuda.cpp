// SPDX-License-Identifier: MPL-2.0
// --device cuda: bfloat16 activations, float adapters.
#include <unsupported/eigen_q/LlmCuda>

#include "Job.h"

namespace finetune {

int runPretrainedOnDevice(const PretrainedOptions& options) {
  return runPretrained<EigenQ::llm::Llama<Eigen::bfloat16, EigenQ::ad::Device>>(options);
}

}  // namespace finetune
