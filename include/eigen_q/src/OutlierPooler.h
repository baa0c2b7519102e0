// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OUTLIERPOOLER_H
#define EIGENQ_OUTLIERPOOLER_H

#include <algorithm>
#include <iterator>
#include <mutex>
#include <vector>

#include "Quantize.h"

namespace EigenQ {

/** Outlier features of a model, collected over its layers: in large transformers they are the same few everywhere, so
 * that a layer may set apart what another has found. Holds features of one width, the first that it is told of; layers
 * of another width (the second one of a feed-forward block) neither add nor take any. Thread-safe.
 * Source: Dettmers et al., LLM.int8(), arXiv:2208.07339, section 4; bitsandbytes' GlobalOutlierPooler, whose calls are
 * commented out there. */
class GlobalOutlierPooler {
 public:
  /** The one that a MatmulLtState uses unless it names its own. */
  static GlobalOutlierPooler& instance() {
    static GlobalOutlierPooler pooler;
    return pooler;
  }

  /** Adds \a columns, each in [0, featureDim); ignored where \a featureDim is not the pool's width. */
  void addOutliers(const IndexVector& columns, Index featureDim) {
    eigen_assert(columns.size() == 0 || (columns.minCoeff() >= 0 && columns.maxCoeff() < featureDim));
    const std::lock_guard<std::mutex> lock(m_mutex);
    if (m_modelDim == 0) m_modelDim = featureDim;
    if (featureDim != m_modelDim) return;
    std::vector<Index> added(columns.data(), columns.data() + columns.size()), all;
    std::sort(added.begin(), added.end());
    std::set_union(m_outliers.begin(), m_outliers.end(), added.begin(), added.end(), std::back_inserter(all));
    all.erase(std::unique(all.begin(), all.end()), all.end());
    m_outliers = std::move(all);
  }

  /** All columns so far, ascending. */
  IndexVector currentOutlierIndices() const {
    const std::lock_guard<std::mutex> lock(m_mutex);
    return internal::toIndexVector(m_outliers);
  }

  /** The width whose features it holds; 0 before the first addOutliers(). */
  Index modelDim() const {
    const std::lock_guard<std::mutex> lock(m_mutex);
    return m_modelDim;
  }

  /** Forgets columns and width. */
  void reset() {
    const std::lock_guard<std::mutex> lock(m_mutex);
    m_outliers.clear();
    m_modelDim = 0;
  }

 private:
  mutable std::mutex m_mutex;
  std::vector<Index> m_outliers;  // ascending
  Index m_modelDim = 0;
};

}  // namespace EigenQ

#endif  // EIGENQ_OUTLIERPOOLER_H
