// SPDX-License-Identifier: MPL-2.0
// How codes reach wgmma: boxes of 128 columns, copied to a ring of stages and multiplied there.
//
//   stage  │ 128 rows of the one factor, 64 a warpgroup │ rows of the other │    128 bytes a row, swizzled
#ifndef EIGENQ_CUDA_INT8_STAGES_SM90_CUH
#define EIGENQ_CUDA_INT8_STAGES_SM90_CUH

#include "ptx_sm90.cuh"
#include "ptx_wgmma_sm90.cuh"
#include "ring.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

constexpr int kTileP = 128;
constexpr int kTileK = 128;     // bytes: the width of the swizzle
constexpr int kGroup = 128;     // threads of a warpgroup
constexpr int kGroupRows = 64;  // of a tile
constexpr int kBytesP = kTileP * kTileK;

/** The sums of \a steps stages, by a warpgroup. A stage goes back one step late, when the products that read it are
 * known to be over. \tparam Shared  has stages and full  \param handBack  called with a stage, by a thread of each warp
 */
template <int kStages, int kSums, typename Shared, typename HandBack>
__device__ __forceinline__ void multiplyStages(Shared& shared, int steps, int warpgroup, Ring<kStages>& ring,
                                               int (&sums)[kSums], HandBack&& handBack) {
  int previous = 0;
  for (int step = 0; step < steps; ++step, ring.advance()) {
    ptx::wait(ptx::sharedAddress(&shared.full[ring.index]), ring.parity);
    const std::uint32_t from = ptx::sharedAddress(shared.stages[ring.index]);
    const std::uint64_t operandA = ptx::swizzledOperand(from + warpgroup * kGroupRows * kTileK);
    const std::uint64_t operandB = ptx::swizzledOperand(from + kBytesP);
    ptx::wgmmaFence();
#pragma unroll
    for (int j = 0; j < kTileK / 32; ++j)  // 32 bytes are 2 units of the address field
      ptx::wgmmaS8(sums, operandA + 2 * j, operandB + 2 * j, step > 0 || j > 0);
    ptx::wgmmaCommit();
    ptx::wgmmaWait<1>();
    if (step > 0) handBack(previous);
    previous = ring.index;
  }
  ptx::wgmmaWait<0>();
  handBack(previous);
}

/** Codes in boxes of \a boxRows rows and kTileK columns. */
inline CUtensorMap boxesOf(const std::int8_t* codes, Index rows, Index cols, Index stride, int boxRows) {
  return tensorMap<2>(codes, {cols, rows}, {stride}, {kTileK, boxRows}, CU_TENSOR_MAP_SWIZZLE_128B);
}

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_STAGES_SM90_CUH
