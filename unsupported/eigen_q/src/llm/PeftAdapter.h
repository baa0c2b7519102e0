// SPDX-License-Identifier: MPL-2.0
// Adapters on a model, and in the folders of PEFT.
#ifndef EIGENQ_LLM_PEFT_ADAPTER_H
#define EIGENQ_LLM_PEFT_ADAPTER_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "Llama.h"
#include "LoraConfig.h"

namespace EigenQ {
namespace llm {

namespace internal {
/** The adapter of one module on the host. */
struct AdapterMatrices {
  std::string module;
  Eigen::MatrixXf a;  // r×in
  Eigen::MatrixXf b;  // out×r
};

/** A projection that an adapter can have. */
struct AdapterPlace {
  std::string module;
  Index out, in;
};

/** Throws FormatError where a name among the targets, what is excluded or a key of the patterns matches none of \a
 * places, and where a fresh adapter would have a rank above both extents of its projection. */
void checkFreshTargets(const LoraConfig& config, const std::vector<AdapterPlace>& places);

/** A drawn as \a config says, from a stream of random numbers of its own; B zero. */
AdapterMatrices newAdapter(const LoraConfig& config, const std::string& module, Index out, Index in, std::uint64_t seed,
                           std::uint64_t stream);
void writeAdapter(const std::string& directory, LoraConfig config, const std::vector<AdapterMatrices>& adapters);

/** adapter_model.safetensors, asked module by module. */
class AdapterFile {
 public:
  AdapterFile(const std::string& directory, const LoraConfig& config);
  ~AdapterFile();
  AdapterMatrices read(const std::string& module, Index out, Index in);
  /** Throws FormatError where a tensor was not read. */
  void finish() const;

 private:
  struct State;
  std::unique_ptr<State> m_state;
};

/** Throws FormatError where nothing was attached or a target is none that an adapter can have. */
void checkTargets(const LoraConfig& config, bool any);

template <typename Scalar, typename Place>
Adapter<Scalar, Place> placed(const LoraConfig& config, const AdapterMatrices& host) {
  using Parameter = typename Adapter<Scalar, Place>::Parameter;
  using Master = typename Parameter::Scalar;
  Adapter<Scalar, Place> adapter;
  adapter.a = Parameter(host.a.template cast<Master>(), host.module + ".lora_A.weight");
  adapter.b = Parameter(host.b.template cast<Master>(), host.module + ".lora_B.weight");
  adapter.options.scale = config.scaleOf(host.module);
  adapter.options.dropout = config.dropout;
  return adapter;
}

/** The adapters of a model, one entry a projection in the order of forEachLinear(). */
template <typename Scalar, typename Place>
using AdapterSet = std::vector<std::optional<Adapter<Scalar, Place>>>;

/** What \a make gives for each projection that \a config targets; the model stays as it is. */
template <typename Scalar, typename Place, typename Make>
AdapterSet<Scalar, Place> adaptersFor(Llama<Scalar, Place>& model, const LoraConfig& config, const Make& make) {
  AdapterSet<Scalar, Place> adapters;
  bool any = false;
  model.forEachLinear([&](const Linear<Scalar, Place>& linear) {
    adapters.emplace_back();
    if (!config.targets(linear.name())) return;
    adapters.back() = placed<Scalar, Place>(config, make(linear));
    any = true;
  });
  checkTargets(config, any);
  return adapters;
}

/** In place of all that are there. */
template <typename Scalar, typename Place>
void replaceAdapters(Llama<Scalar, Place>& model, AdapterSet<Scalar, Place>&& adapters) noexcept {
  static_assert(std::is_nothrow_move_assignable_v<std::optional<Adapter<Scalar, Place>>>, "all of them or none");
  auto next = adapters.begin();
  model.forEachLinear([&next](Linear<Scalar, Place>& linear) { linear.adapter() = std::move(*next++); });
}
}  // namespace internal

/** Puts a fresh adapter on every projection that \a config targets, in place of all that the model has: float, on the
 * model's device. The model computes as before, since B = 0, until an optimiser steps model.trainable().
 * \param seed  of A: the same numbers on every machine and in every place
 * Throws FormatError, before the model changes, where the config targets the embedding or nothing, where one of the
 * names in targetModules or excludeModules is of no projection or a key of rankPattern or alphaPattern of no module
 * that gets an adapter (PEFT ignores them beside others, and with them what they were to say), and for a rank above
 * both extents of a projection. A tape and an optimiser of the adapters before are as behind detachLora(). */
template <typename Scalar, typename Place>
void attachLora(Llama<Scalar, Place>& model, const LoraConfig& config, std::uint64_t seed) {
  config.validate();
  std::vector<internal::AdapterPlace> places;
  model.forEachLinear([&places](const Linear<Scalar, Place>& linear) {
    places.push_back({linear.name(), linear.rows(), linear.cols()});
  });
  internal::checkFreshTargets(config, places);
  std::uint64_t stream = 0;
  const auto make = [&](const Linear<Scalar, Place>& linear) {
    return internal::newAdapter(config, linear.name(), linear.rows(), linear.cols(), seed, stream++);
  };
  internal::replaceAdapters(model, internal::adaptersFor(model, config, make));
}

/** Takes all adapters off. A tape that recorded them has been cleared, an optimiser of them is gone. */
template <typename Scalar, typename Place>
void detachLora(Llama<Scalar, Place>& model) {
  model.forEachLinear([](Linear<Scalar, Place>& linear) { linear.adapter().reset(); });
}

/** Writes adapter_config.json and adapter_model.safetensors into \a directory, made where it is missing, for
 * PeftModel.from_pretrained: float32, from a device after waiting for the current context.
 * \param config  that the adapters were attached or loaded with. "all-linear" is written as the names it stands for.
 * Each file appears whole or not at all, the tensors last. Throws FormatError, before anything is written, where a
 * module has an adapter that \a config does not describe, and std::system_error where a file cannot be written. */
template <typename Scalar, typename Place>
void saveAdapter(const Llama<Scalar, Place>& model, const LoraConfig& config, const std::string& directory) {
  std::vector<internal::AdapterMatrices> adapters;
  // forEachLinear is not const, for those who change what they are given; this does not.
  const_cast<Llama<Scalar, Place>&>(model).forEachLinear([&adapters](const Linear<Scalar, Place>& linear) {
    if (!linear.adapter()) return;
    adapters.push_back({linear.name(), Place::toHost(linear.adapter()->a.value()).template cast<float>(),
                        Place::toHost(linear.adapter()->b.value()).template cast<float>()});
  });
  internal::writeAdapter(directory, config, adapters);
}

/** Puts the adapters of a folder that PEFT or saveAdapter() wrote on \a model, in place of all that it has.
 * \returns their config. Throws FormatError, before the model changes, for a config that is not supported
 * (LoraConfig::fromFile), for a tensor that is missing, of the wrong shape or for no module that the config targets. */
template <typename Scalar, typename Place>
LoraConfig loadAdapter(Llama<Scalar, Place>& model, const std::string& directory) {
  const LoraConfig config = LoraConfig::fromFile(directory + "/adapter_config.json");
  internal::AdapterFile file(directory, config);
  auto adapters = internal::adaptersFor(model, config, [&file](const Linear<Scalar, Place>& linear) {
    return file.read(linear.name(), linear.rows(), linear.cols());
  });
  file.finish();
  internal::replaceAdapters(model, std::move(adapters));
  return config;
}

}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_LLM_PEFT_ADAPTER_H
