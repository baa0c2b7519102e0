// SPDX-License-Identifier: MPL-2.0
// The model that a subcommand works on, and how it is quantised.
#ifndef EIGENQ_TOOLS_MODEL_OPTIONS_H
#define EIGENQ_TOOLS_MODEL_OPTIONS_H

#include <string>

#include <CLI/CLI.hpp>

#include <unsupported/eigen_q/Llm>

#include "WatchedSource.h"

namespace EigenQ {
namespace tools {

struct ModelOptions {
  std::string directory;
  std::string adapter;  // a folder of PEFT; empty: none
  llm::LoadOptions load;
  std::string device = "cpu";
  std::string dtype = "bfloat16";  // of activations on a device
};

/** DIR. */
void addDirectory(CLI::App& command, std::string& directory);
/** --block-size, --nested, --int8-threshold, --skip: what belongs to every choice of a format. */
void addFormatDetails(CLI::App& command, llm::LoadOptions& load);
/** Throws CLI::ValidationError where a detail was given that the format does not have. */
void checkFormatDetails(const CLI::App& command, const llm::LoadOptions& load);
/** DIR, --quantize and its details, --device, --dtype, --threads; not --adapter. */
void addModelOptions(CLI::App& command, ModelOptions& options);
void addAdapterOption(CLI::App& command, ModelOptions& options);
void checkModelOptions(const CLI::App& command, const ModelOptions& options);

/** The model, its adapter on it. \param maxPositions  as in Llama's constructor */
template <typename Model>
Model loadModel(const ModelOptions& options, Index maxPositions = 0) {
  WatchedSource source(llm::openPretrained(options.directory, options.load), options.load.skipModules);
  Model model(source, maxPositions);
  if (!options.adapter.empty()) llm::loadAdapter(model, options.adapter);
  throwIfInterrupted();
  return model;
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_MODEL_OPTIONS_H
