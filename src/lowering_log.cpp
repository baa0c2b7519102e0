// SPDX-License-Identifier: MPL-2.0
#include "lowering_log.h"

#include <cstdlib>
#include <cstring>

namespace EigenQ {
namespace internal {
namespace {

struct ObserverSlot {
  LoweringObserver observer = nullptr;
  void* context = nullptr;
};
thread_local ObserverSlot t_observer;

std::string sizeOf(Index rows, Index cols) { return std::to_string(rows) + "x" + std::to_string(cols); }

}  // namespace

void setLoweringObserver(LoweringObserver observer, void* context) { t_observer = {observer, context}; }

void reportLowering(const LoweringEvent& event) {
  if (t_observer.observer) t_observer.observer(event, t_observer.context);
}

bool logsLowerings() {
  static const bool wanted = [] {
    const char* topics = std::getenv("EIGENQ_LOG");
    return topics && std::strstr(topics, "lowering");
  }();
  return wanted;
}

const char* nameOf(ScalarType scalar) {
  switch (scalar) {
    case ScalarType::kFloat:
      return "float";
    case ScalarType::kHalf:
      return "half";
    case ScalarType::kBFloat16:
      return "bfloat16";
    case ScalarType::kDouble:
      return "double";
  }
  return "?";
}

std::string describe(const QuantizedProduct& p) {
  return "Y " + sizeOf(p.y.rows, p.y.cols) + " = X " + sizeOf(p.x.rows, p.x.cols) + " (" + nameOf(p.x.scalar) + ") * " +
         (p.w.format == WeightFormat::kInt8 ? "int8" : "4-bit") + (p.transposed ? "^T" : "");
}

std::string describeDequantize(const DenseView& y) { return "Y " + sizeOf(y.rows, y.cols) + " = W"; }

}  // namespace internal
}  // namespace EigenQ
