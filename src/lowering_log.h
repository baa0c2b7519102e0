// SPDX-License-Identifier: MPL-2.0
// How a choice among kernels is told: to the calling thread's observer and, with EIGENQ_LOG=lowering, to standard
// error. The tables of host kernels and of device kernels speak through the same few functions.
#ifndef EIGENQ_LOWERING_LOG_H
#define EIGENQ_LOWERING_LOG_H

#include <eigen_q/src/Lowering.h>

#include <cstdio>
#include <string>

namespace EigenQ {
namespace internal {

/** Whether EIGENQ_LOG names the topic "lowering". */
bool logsLowerings();

/** Tells the calling thread's observer, where it has one. */
void reportLowering(const LoweringEvent& event);

/** "float", "half", … */
const char* nameOf(ScalarType scalar);

/** "Y 2x8 = X 2x64 (half) * 4-bit^T" */
std::string describe(const QuantizedProduct& product);

/** "Y 8x64 = W" */
std::string describeDequantize(const DenseView& y);

/** Prints what was asked for, the row that was chosen, and why those above it were not. \a problem is what the rows'
 * refuse takes. */
template <typename Row, typename... Problem>
void logChoice(const std::string& what, const LoweringTable<Row>& table, const Row& chosen, const Problem&... problem) {
  std::fprintf(stderr, "eigenq: %s: %s\n", what.c_str(), chosen.name);
  for (const Row* row = table.begin(); row != &chosen; ++row) {
    std::fprintf(stderr, "eigenq:   not %s: %s\n", row->name, row->refuse(problem...));
  }
}

/** The first row that does not refuse: the last one never does. */
template <typename Row, typename... Problem>
const Row& firstWilling(const LoweringTable<Row>& table, const Problem&... problem) {
  const Row* row = table.begin();
  while (row->refuse(problem...)) ++row;
  return *row;
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_LOWERING_LOG_H
