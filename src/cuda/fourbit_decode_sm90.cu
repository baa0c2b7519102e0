// SPDX-License-Identifier: MPL-2.0
// fourbit_decode_sm90.cu: which of the kernels of fourbit_decode_sm90.cuh computes a product, on how many CTAs.
#include "fourbit_decode_sm90.cuh"

#include "alignment.h"
#include "op_launch.cuh"
#include "tensor_map.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using namespace fourbit;

StreamMaps mapsOf(const WeightView& w) {
  const char* const codes = static_cast<const char*>(w.codes) + w.offset / 2;
  const Index lines = w.cols / kLineValues, scaleBytes = w.absmax.plain ? sizeof(float) : 1;
  const Index perRow = w.cols / kBlock * scaleBytes, boxed = kScalesPerRow * scaleBytes;
  const void* const scales = w.absmax.plain ? static_cast<const void*>(w.absmax.plain + w.offset / kBlock)
                                            : w.absmax.codes + w.offset / kBlock;
  return {tensorMap<3>(codes, {kLine, w.rows, lines}, {w.stride / 2, kLine},
                       {kLine, kTileRows, kStageValues / kLineValues}, CU_TENSOR_MAP_SWIZZLE_128B),
          tensorMap<2>(scales, {perRow, w.rows}, {w.stride / kBlock * scaleBytes}, {boxed, kTileRows},
                       w.absmax.plain ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE)};
}

template <typename T, int kTokens, bool kNested>
void launch(const StreamProblem& problem, const DecodeSpread& spread, Context& context) {
  const dim3 grid(static_cast<unsigned>(spread.ctas), static_cast<unsigned>(spread.slices));
  launchEarly("stream.decode", decodeStream<T, kTokens, kNested>, {grid, kStreamThreads, kStreamSharedBytes}, context,
              problem, mapsOf(problem.w));
}

template <typename T, bool kNested>
void launchFor(const StreamProblem& problem, const DecodeSpread& spread, Context& context) {
  if (problem.y.rows <= 2) return launch<T, 2, kNested>(problem, spread, context);
  if (problem.y.rows <= 4) return launch<T, 4, kNested>(problem, spread, context);
  launch<T, 8, kNested>(problem, spread, context);
}

template <typename T>
void launchFor(const StreamProblem& problem, const DecodeSpread& spread, Context& context) {
  if (problem.w.absmax.plain) return launchFor<T, false>(problem, spread, context);
  launchFor<T, true>(problem, spread, context);
}

}  // namespace

const char* refuseFourBitDecodeStream(const QuantizedProduct& p, const Context& context) {
  if (const char* why = refuseFourBitDecodeMma(p, context)) return why;
  if (const char* why = refuseAllButHopper(context)) return why;
  if (p.x.rows > kStreamTokens) return "more than 8 rows of X";
  if (p.x.rows * p.x.cols * 2 > kMostXBytes) return "X has more than 64 KiB";
  if (Index{1} << p.w.blockShift != kBlock) return "blocks of other than 64";
  const AbsmaxView& absmax = p.w.absmax;
  const Index multiple = sliceMultiple(absmax.plain == nullptr);
  if (p.w.cols % multiple != 0 || p.w.offset % multiple != 0 || p.w.stride % multiple != 0)
    return "rows of W do not begin and end at multiples of 256 codes, or 1024 where absmax is nested";
  if (!absmax.plain && (absmax.nestedBlockShift < kLeastNestedShift || p.w.stride > kMostNestedStride))
    return "nested absmax in blocks of less than 256, or rows of W more than 131072 apart";
  if (!isAligned(absmax.plain, 16) || !isAligned(absmax.codes, 16) || !isAligned(absmax.absmax2, 16))
    return "absmax is not aligned to 16 bytes";
  return nullptr;
}

void runFourBitDecodeStream(const QuantizedProduct& p, Context& context) {
  if (p.y.rows == 0 || p.y.cols == 0) return;
  Scratch scratch(context);
  const DeviceGuard guard(context.device());
  const DecodeSpread spread =
      spreadDecode(p.w.rows, p.w.cols, sliceMultiple(p.w.absmax.plain == nullptr), 1, context.multiprocessors());
  const PackedRows x = packRows(p.x, p.x.scalar, scratch, context);
  float* const sums = spread.slices > 1 ? scratch.array<float>(spread.slices * p.y.rows * p.y.cols) : nullptr;
  const StreamProblem problem{p.w, x.data, x.stride, p.y, p.epilogue, sums};
  dispatchSixteenBits(p.x.scalar, [&](auto tag) { launchFor<typename decltype(tag)::type>(problem, spread, context); });
  if (sums) addSlices(sums, static_cast<int>(spread.slices), p.y, p.epilogue, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
