// SPDX-License-Identifier: MPL-2.0
// What the kernels of 4-bit weights on tensor cores ask of operands alike. Reasons are as in DeviceLowering::refuse.
#ifndef EIGENQ_CUDA_FOURBIT_OPERANDS_H
#define EIGENQ_CUDA_FOURBIT_OPERANDS_H

#include "alignment.h"
#include "context_state.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Formats, direction and scalars, whatever the shapes. */
inline const char* refuseFourBitOperands(const QuantizedProduct& p, bool transposed) {
  if (p.w.format != WeightFormat::kFourBit) return "W is not in 4 bits";
  if (p.transposed != transposed) return transposed ? "W is not used transposed" : "W is used transposed";
  if (p.x.scalar != ScalarType::kHalf && p.x.scalar != ScalarType::kBFloat16) return "X is neither half nor bfloat16";
  if (p.y.scalar != p.x.scalar) return "X and Y differ in their scalars";
  return nullptr;
}

/** Rows of W, which are to be read 64 codes at a time from 16-byte boundaries of what was allocated. */
inline const char* refuseFourBitRowsOfCodes(const WeightView& w) {
  constexpr Index kCodes = 64;
  if (w.cols % kCodes != 0 || w.offset % kCodes != 0 || (w.rows > 1 && w.stride % kCodes != 0))
    return "rows of W do not begin and end at multiples of 64 codes";
  if (!isAligned(w.codes, 16)) return "codes are not aligned to 16 bytes";
  return nullptr;
}

constexpr int kHopperSharedBytes = 227 << 10;  // of a block that has a multiprocessor to itself

/** Devices that kernels in files *_sm90.cu do not run on. */
inline const char* refuseAllButHopper(const Context& context) {
  const DeviceProperties& device = context.properties();
  if (device.major != 9 || device.minor != 0) return "the device is not of compute capability 9.0";
  if (context.state().sharedMemoryPerBlock < static_cast<std::size_t>(kHopperSharedBytes))
    return "a block has less than 227 KiB of shared memory";
  return nullptr;
}

/** Whether two neighbours of a row of a 16-bit Y may be stored at once, and the epilogue needs no more than affine().
 */
inline bool storesPairs(const DenseView& y, const Epilogue& e) {
  return e.activation == Activation::kNone && e.biasAxis != EigenQ::internal::BiasAxis::kPerRow && y.colStride == 1 &&
         y.rowStride % 2 == 0 && y.cols % 2 == 0 && isAligned(y.data, 4);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_FOURBIT_OPERANDS_H
