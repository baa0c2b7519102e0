// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOOLS_WATCHED_SOURCE_H
#define EIGENQ_TOOLS_WATCHED_SOURCE_H

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <unsupported/eigen_q/Llm>

#include "Interrupt.h"

namespace EigenQ {
namespace tools {

/** The weights of another source, unless somebody interrupts between two of them. Ends with std::runtime_error where
 * one of \a skipModules has named none of the projections: a misspelt module would be quantised silently. */
class WatchedSource : public llm::WeightSource {
 public:
  WatchedSource(std::unique_ptr<llm::WeightSource> source, std::vector<std::string> skipModules)
      : m_source(std::move(source)), m_unmatched(std::move(skipModules)) {
    // A tied head is no projection, and is named all the same.
    m_unmatched.erase(std::remove(m_unmatched.begin(), m_unmatched.end(), "lm_head"), m_unmatched.end());
  }

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
    const auto names = [&module](const std::string& skipped) { return llm::isSkipped(module, {skipped}); };
    m_unmatched.erase(std::remove_if(m_unmatched.begin(), m_unmatched.end(), names), m_unmatched.end());
    return m_source->projection(module, out, in);
  }
  void finish() override {
    m_source->finish();
    if (!m_unmatched.empty())
      throw std::runtime_error("--skip: expected modules of the model, found " + m_unmatched.front());
  }

 private:
  std::unique_ptr<llm::WeightSource> m_source;
  std::vector<std::string> m_unmatched;  // of skipModules
};

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_WATCHED_SOURCE_H
