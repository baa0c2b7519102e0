// SPDX-License-Identifier: MPL-2.0
// optimizer.cu: the steps of OptimizerKernels.h with 8-bit moments.
//
//   block of 256 values │ lane 0: v0 … v7 │ lane 1 │ … │ lane 31      a warp a block
//     codes, absmax ─ decode → m, v ─ update → m, v, w ─ their absmax over the warp, encode → codes, absmax
//
// Traffic  Adam: 2 B of codes in and out, 4 B of gradient, 4 B of parameter in and out: 16 B a value.
// Work     the two searches for the nearest of 256 levels, 8 dependent lookups each, and three divisions; a lane's
//          eight values hide each other's latency.
// Shape    persistent blocks, since each makes the tables: levels and thresholds of both maps, 4 KB of shared memory.
#include <eigen_q/src/FourBit.h>
#include <eigen_q/src/ScalarConvert.h>

#include "byte_levels.cuh"
#include "op_launch.cuh"
#include <eigen_q/src/gpu/OptimizerKernels.h>
#include "optimizer_rules.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

using EigenQ::internal::kOptimizerBlockSize;
using EigenQ::internal::MomentView;

constexpr int kWarps = kLevelThreads / 32;
static_assert(32 * kEight == kOptimizerBlockSize, "a lane takes eight values of a block");

/** The part of a lane: which values, and how many of the eight exist. */
struct LanePart {
  Index block, begin, count;

  __device__ __forceinline__ LanePart(Index block, Index size)
      : block(block), begin(block * kOptimizerBlockSize + threadIdx.x % 32 * kEight), count(size - begin) {}
};

/** Not through the read-only cache: parameters are written by the kernel that reads them. */
__device__ __forceinline__ void load(const float* from, const LanePart& part, bool aligned, float (&f)[kEight]) {
  if (aligned && part.count >= kEight) {
    const float4 low = *reinterpret_cast<const float4*>(from + part.begin);
    const float4 high = *reinterpret_cast<const float4*>(from + part.begin + 4);
    f[0] = low.x, f[1] = low.y, f[2] = low.z, f[3] = low.w;
    f[4] = high.x, f[5] = high.y, f[6] = high.z, f[7] = high.w;
    return;
  }
#pragma unroll
  for (int k = 0; k < kEight; ++k) f[k] = k < part.count ? from[part.begin + k] : 0.0f;
}

__device__ __forceinline__ void store(const float (&f)[kEight], const LanePart& part, bool aligned, float* to) {
  EightValues<float> values;
  fromFloats(f, values);
  storeEight(values, to + part.begin, part.count, aligned);
}

/** Values past the end are zeros, which no statistic sees. */
__device__ __forceinline__ void decode(const MomentView& moment, const LanePart& part, const ByteTables& tables,
                                       bool aligned, float (&f)[kEight]) {
  const std::uint64_t codes = loadCodes(moment.codes + part.begin, part.count, aligned);
  const float absmax = moment.absmax[part.block];
#pragma unroll
  for (int k = 0; k < kEight; ++k) f[k] = k < part.count ? tables.level[codes >> (8 * k) & 0xff] * absmax : 0.0f;
}

/** A code whose level has not the sign of its value moves by one, away from zero or around the end: as the host's
 * keepSigns. */
__device__ __forceinline__ unsigned keepSign(unsigned code, float value) {
  constexpr unsigned zeroCode = 127;  // of the signed map: lower codes are negative
  const bool negative = (__float_as_uint(value) & EigenQ::internal::kFloatSign) != 0;
  const unsigned moved = value > 0 ? code + 1 : code - 1;
  return (code < zeroCode) != negative ? moved & 0xff : code;
}

/** The nearest levels and the absmax of the block, from finite values. In a block of zeros 0/0 gives code 0. */
template <bool kSigned>
__device__ __forceinline__ void encode(const float (&f)[kEight], const LanePart& part, const ByteTables& tables,
                                       bool aligned, const MomentView& moment) {
  float absmax = 0;
#pragma unroll
  for (int k = 0; k < kEight; ++k) absmax = fmaxf(absmax, fabsf(f[k]));
  for (int distance = 16; distance > 0; distance /= 2)
    absmax = fmaxf(absmax, __shfl_xor_sync(0xffffffffu, absmax, distance));
  std::uint64_t codes = 0;
#pragma unroll
  for (int k = 0; k < kEight; ++k) {
    unsigned code = encodeByte(f[k] / absmax, tables);
    if (kSigned) code = keepSign(code, f[k]);
    codes |= static_cast<std::uint64_t>(code) << (8 * k);
  }
  storeCodes<8>(moment.codes + part.begin, codes, part.count, aligned);
  if (threadIdx.x % 32 == 0) moment.absmax[part.block] = absmax;  // after every lane's read: the shuffles lie between
}

/** Calls \a update(block) for each block of this warp. */
template <typename Update>
__device__ __forceinline__ void forEachBlock(Index size, Update update) {
  const Index blocks = (size + kOptimizerBlockSize - 1) / kOptimizerBlockSize;
  for (Index block = static_cast<Index>(blockIdx.x) * kWarps + threadIdx.x / 32; block < blocks;
       block += static_cast<Index>(gridDim.x) * kWarps)
    update(LanePart(block, size));
}

__global__ void __launch_bounds__(kLevelThreads)
    stepAdam(AdamStep s, const StepInputs inputs, const __grid_constant__ ByteLevels signedMap,
             const __grid_constant__ ByteLevels unsignedMap, bool aligned) {
  __shared__ ByteTables tables1, tables2;
  makeByteTables(signedMap.value, tables1);
  makeByteTables(unsignedMap.value, tables2);
  if (!takeInputs(inputs, s)) return;
  forEachBlock(s.size, [&](const LanePart& part) {
    float g[kEight], w[kEight], m[kEight], v[kEight];
    load(s.gradient, part, aligned, g);
    load(s.parameter, part, aligned, w);
    decode(s.m, part, tables1, aligned, m);
    decode(s.v, part, tables2, aligned, v);
#pragma unroll
    for (int k = 0; k < kEight; ++k) updateAdam(s, s.gradScale * g[k], m[k], v[k], w[k]);
    store(w, part, aligned, s.parameter);
    encode<true>(m, part, tables1, aligned, s.m);
    encode<false>(v, part, tables2, aligned, s.v);
  });
}

__global__ void __launch_bounds__(kLevelThreads)
    stepLion(LionStep s, const StepInputs inputs, const __grid_constant__ ByteLevels signedMap, bool aligned) {
  __shared__ ByteTables tables;
  makeByteTables(signedMap.value, tables);
  if (!takeInputs(inputs, s)) return;
  forEachBlock(s.size, [&](const LanePart& part) {
    float g[kEight], w[kEight], m[kEight];
    load(s.gradient, part, aligned, g);
    load(s.parameter, part, aligned, w);
    decode(s.m, part, tables, aligned, m);
#pragma unroll
    for (int k = 0; k < kEight; ++k) updateLion(s, s.gradScale * g[k], m[k], w[k]);
    store(w, part, aligned, s.parameter);
    encode<true>(m, part, tables, aligned, s.m);
  });
}

LaunchShape shapeOf(Index size, Context& context) {
  constexpr Index residents = 4;  // thread blocks of a multiprocessor
  const Index blocks = EigenQ::internal::blockCount(size, kOptimizerBlockSize);
  return {static_cast<unsigned>(std::min((blocks + kWarps - 1) / kWarps, residents * context.multiprocessors())),
          kLevelThreads};
}

template <typename Step>
bool isAlignedStep(const Step& s) {
  return isAligned(s.parameter, 16) && isAligned(s.gradient, 16) && isAligned(s.m.codes, 8);
}

}  // namespace

void runAdam(const AdamStep& s, const StepInputs& inputs, Context& context) {
  if (s.size == 0) return;
  if (!s.m.codes) return runAdamOfFloats(s, inputs, context);
  launch("stepAdam", stepAdam, shapeOf(s.size, context), context, s, inputs,
         byteLevels(EigenQ::internal::signedDynamicMap()), byteLevels(EigenQ::internal::unsignedDynamicMap()),
         isAlignedStep(s) && isAligned(s.v.codes, 8));
}

void runLion(const LionStep& s, const StepInputs& inputs, Context& context) {
  if (s.size == 0) return;
  if (!s.m.codes) return runLionOfFloats(s, inputs, context);
  launch("stepLion", stepLion, shapeOf(s.size, context), context, s, inputs,
         byteLevels(EigenQ::internal::signedDynamicMap()), isAlignedStep(s));
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
