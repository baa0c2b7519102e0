// SPDX-License-Identifier: MPL-2.0
// --device cuda, in builds without EigenQ::Cuda.
#include <stdexcept>

#include "Options.h"

namespace finetune {

int runPretrainedOnDevice(const PretrainedOptions&) {
  throw std::runtime_error(
      "--device cuda: this program was built without EigenQ::Cuda; configure with "
      "-D EIGENQ_WITH_CUDA=ON where the CUDA toolkit is");
}

}  // namespace finetune
