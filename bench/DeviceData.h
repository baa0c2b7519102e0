// SPDX-License-Identifier: MPL-2.0
// Data made where it is used, and the two kernels that say what the memory can do.
#ifndef EIGENQ_BENCH_DEVICEDATA_H
#define EIGENQ_BENCH_DEVICEDATA_H

#include <cstddef>
#include <cstdint>

#include <eigen_q/src/Views.h>
#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace bench {

/** Normally distributed values; the same for the same seed. \a data holds float, half or bfloat16. */
void fillNormal(void* data, ScalarType scalar, Index count, float deviation, std::uint64_t seed, cudaStream_t stream);

/** Outlier columns that plantOutliers() makes. */
constexpr int kOutlierColumns = 10;

/** Overwrites kOutlierColumns evenly spread columns of a row-major matrix with values of magnitude 8 to 16. */
void plantOutliers(void* data, ScalarType scalar, Index rows, Index cols, std::uint64_t seed, cudaStream_t stream);

/** Reads \a bytes, a multiple of 16, and keeps nothing: *sink changes in one of 2³² cases. */
void readAll(const void* from, std::size_t bytes, std::uint32_t* sink, cudaStream_t stream);
/** Copies \a bytes, a multiple of 16. */
void copyAll(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_BENCH_DEVICEDATA_H
