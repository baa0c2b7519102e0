// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOOLS_WATCHED_SOURCE_H
#define EIGENQ_TOOLS_WATCHED_SOURCE_H

#include <memory>
#include <string>
#include <utility>

#include <unsupported/eigen_q/Llm>

#include "Interrupt.h"

namespace EigenQ {
namespace tools {

/** The weights of another source, unless somebody interrupts between two of them. */
class WatchedSource : public llm::WeightSource {
 public:
  explicit WatchedSource(std::unique_ptr<llm::WeightSource> source) : m_source(std::move(source)) {}

  const llm::LlamaConfig& config() const override { return m_source->config(); }
  Eigen::VectorXf vector(const std::string& name, Index size) override {
    throwIfInterrupted();
    return m_source->vector(name, size);
  }
  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    throwIfInterrupted();
    return m_source->embedding(name, hidden, vocabulary);
  }
  llm::HostWeight projection(const std::string& module, Index out, Index in) override {
    throwIfInterrupted();
    return m_source->projection(module, out, in);
  }
  void finish() override { m_source->finish(); }

 private:
  std::unique_ptr<llm::WeightSource> m_source;
};

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_WATCHED_SOURCE_H
