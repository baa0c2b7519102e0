// SPDX-License-Identifier: MPL-2.0
#include <stdexcept>

#include "Backend.h"

std::unique_ptr<EigenQ::golden::Backend> EigenQ::golden::cudaBackend() {
  throw std::runtime_error("eigenq_golden is built without CUDA (EIGENQ_WITH_CUDA)");
}
