// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_LLM_LLAMA2C_H
#define EIGENQ_LLM_LLAMA2C_H

#include <memory>
#include <string>

#include "WeightSource.h"

namespace EigenQ {
namespace llm {

/** The weights of a model in llama2.c's own format (stories260K.bin, its first version: seven integers, then floats),
 * quantised on the way as \a options say. Queries and keys are put in the order of Hugging Face's checkpoints, so that
 * the model can be saved as one.
 * Throws FormatError where the header is none, or the file has not the size that follows from it.
 * Source: karpathy/llama2.c, run.c. */
std::unique_ptr<WeightSource> openLlama2c(const std::string& path, const LoadOptions& options = {});

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_LLAMA2C_H
