// SPDX-License-Identifier: MPL-2.0
// The subcommands that compute, on a GPU: compiled where EigenQ::Cuda is (cuda.cpp), an error elsewhere (no_cuda.cpp).
#ifndef EIGENQ_TOOLS_ON_DEVICE_H
#define EIGENQ_TOOLS_ON_DEVICE_H

namespace EigenQ {
namespace tools {

struct EvalOptions;
struct FinetuneOptions;
struct GenerateOptions;

void evalOnDevice(const EvalOptions& options);
void finetuneOnDevice(const FinetuneOptions& options);
void generateOnDevice(const GenerateOptions& options);

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_ON_DEVICE_H
