// SPDX-License-Identifier: MPL-2.0
// quantize_blockwise.cu: codes of a 256-entry table in device memory. The walk over blocks is in quantize_blocks.cuh.
#include <cassert>

#include "byte_encoder.cuh"
#include "quantizers.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** Levels in device memory; values as they are. */
struct DeviceLevels {
  static constexpr bool kParameters = false;

  const float* table;

  __device__ __forceinline__ const float* levels() const { return table; }
  __device__ __forceinline__ void join(float&) const {}
  template <typename T>
  __device__ __forceinline__ void prepare(float, EightValues<T>&, Index) const {}
};

}  // namespace

void quantizeBlockwise(const ConstDenseView& a, const float* codeTable, Index blockSize, std::uint8_t* codes,
                       float* absmax, Context& context) {
  assert(EigenQ::internal::isBlockSize(blockSize));
  quantizeView(a, ByteEncoder<DeviceLevels>{{codeTable}}, blockSize, codes, absmax, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
