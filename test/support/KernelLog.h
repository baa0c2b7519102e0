// SPDX-License-Identifier: MPL-2.0
// Which kernels ran.
#ifndef EIGENQ_TEST_SUPPORT_KERNELLOG_H
#define EIGENQ_TEST_SUPPORT_KERNELLOG_H

#include <eigen_q/Core>

#include <algorithm>
#include <string>
#include <vector>

namespace EigenQ {
namespace test {

/** Records the kernels that the calling thread asks for while it lives. */
class KernelLog {
 public:
  KernelLog() { internal::setLoweringObserver(&KernelLog::note, this); }
  ~KernelLog() { internal::setLoweringObserver(nullptr, nullptr); }
  KernelLog(const KernelLog&) = delete;
  KernelLog& operator=(const KernelLog&) = delete;

  int products() const { return m_products; }
  int dequantizations() const { return m_dequantizations; }
  /** Products of dense device matrices; Eigen's own on the host are not seen. */
  int denseProducts() const { return static_cast<int>(m_denseProducts.size()); }
  /** Those that the row of that name computed. */
  int denseProductsBy(const std::string& row) const {
    return static_cast<int>(std::count(m_denseProducts.begin(), m_denseProducts.end(), row));
  }
  /** Of the last product. */
  const internal::Epilogue& epilogue() const { return m_epilogue; }

 private:
  static void note(const internal::LoweringEvent& event, void* context) {
    KernelLog& log = *static_cast<KernelLog*>(context);
    log.m_dequantizations += event.kind == internal::LoweringEvent::kDequantize;
    if (event.kind == internal::LoweringEvent::kDenseProduct) log.m_denseProducts.push_back(event.kernel);
    if (event.kind != internal::LoweringEvent::kProduct) return;
    ++log.m_products;
    log.m_epilogue = event.product->epilogue;
  }

  int m_products = 0;
  int m_dequantizations = 0;
  std::vector<std::string> m_denseProducts;  // the rows that ran
  internal::Epilogue m_epilogue;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_SUPPORT_KERNELLOG_H
