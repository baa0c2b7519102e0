// SPDX-License-Identifier: MPL-2.0
// The one sort that the ops need, kept apart: CUB takes longer to compile than all else.
#ifndef EIGENQ_CUDA_OP_SORT_CUH
#define EIGENQ_CUDA_OP_SORT_CUH

#include <cstdint>

#include "context_state.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Sorts \a count pairs by key, equal keys in their given order. \param keyBits  the lowest bits that differ
 * \param scratch  lends the temporary memory */
void sortPairs(const std::uint32_t* keys, std::uint32_t* sortedKeys, const std::int32_t* values,
               std::int32_t* sortedValues, std::int32_t count, int keyBits, Scratch& scratch, Context& context);

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_OP_SORT_CUH
