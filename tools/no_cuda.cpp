// SPDX-License-Identifier: MPL-2.0
#include <stdexcept>

#include "OnDevice.h"

namespace EigenQ {
namespace tools {
namespace {

[[noreturn]] void refuse() { throw std::runtime_error("--device cuda: this program was built without EigenQ::Cuda"); }

}  // namespace

void evalOnDevice(const EvalOptions&) { refuse(); }
void finetuneOnDevice(const FinetuneOptions&) { refuse(); }
void generateOnDevice(const GenerateOptions&) { refuse(); }

}  // namespace tools
}  // namespace EigenQ
