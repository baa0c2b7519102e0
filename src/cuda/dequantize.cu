// SPDX-License-Identifier: MPL-2.0
// dequantize.cu: Y = epilogue(W), W in NF4, FP4 or int8; every value is WeightView::coeff, rounded once to Y's scalar.
//
//   a warp's segment of a row, 16-bit Y   │ 128 B of codes │ 128 B │ 128 B │ 128 B │    all loads are issued first
//                                           lane: 4 B = 8 codes
//                                            ↓ table by shuffle, times absmax
//                                         │ 512 B of Y: 16 B a lane │ … │ … │ … │
//
// Traffic  4-bit: 0.5 B of codes + 4/64 B of absmax + 2 B of Y = 2.56 B per weight (float: 4.56 B). int8: 3 or 5 B.
// Work     A shift, a shuffle and a multiplication per weight, half a conversion: 8 instructions with all addresses,
//          where 17 fit in the time of the traffic (132 SMs at 1.75 GHz, 4.3 TB/s). Bound by memory.
// Shape    A warp has four loads of 128 B in flight and writes full lines. The 16 levels lie in the lanes: no table in
//          memory, nothing to set up, so small matrices are as well served.
// Needs    "rows": no epilogue; Y row-major; rows of W and of Y that begin at multiples of 8 codes and of 16 bytes.
//          "tiles" takes the rest: through shared memory, so that Y is written along its shorter stride.
#include "alignment.h"
#include "dequantize.h"

#include <eigen_q/src/FourBit.h>

#include <cassert>
#include <cstdint>
#include <iterator>

#include "../lowering_log.h"
#include "context_state.h"
#include "dense_view.h"
#include "epilogue.cuh"
#include "op_launch.cuh"
#include "ptx.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr int kThreads = 256;
constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// ---- rows

/** Steps of a warp along a row: as many loads are in flight. */
constexpr int kSteps = 4;
/** Values that a lane writes with one store. */
template <typename T>
constexpr int kLaneValues = 16 / static_cast<int>(sizeof(T));
template <typename T>
constexpr Index kSegment = Index{kWarpSize} * kLaneValues<T>* kSteps;

__device__ __forceinline__ uint4 pack(const float (&v)[4], TypeTag<float>) {
  return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
template <typename T>
__device__ __forceinline__ uint4 pack(const float (&v)[8], TypeTag<T>) {
  return make_uint4(packPair<T>(v[0], v[1]), packPair<T>(v[2], v[3]), packPair<T>(v[4], v[5]), packPair<T>(v[6], v[7]));
}

/** Unsigned integers of so many bytes. */
template <int kBytes>
struct Bits;
template <>
struct Bits<2> {
  using Type = std::uint16_t;
};
template <>
struct Bits<4> {
  using Type = std::uint32_t;
};
template <>
struct Bits<8> {
  using Type = unsigned long long;
};

/** Asks the second-level cache for what a warp will read. That cache is never stale, so that this may happen before the
 * kernel has joined the stream. \a from, \a bytes  of lane 0 */
__device__ __forceinline__ void prefetchSegment(const void* from, int bytes) {
  constexpr int kLine = 128;
  const int at = static_cast<int>(threadIdx.x % kWarpSize) * kLine;
  if (at < bytes) ptx::prefetch(static_cast<const char*>(from) + at);
}

/** A lane's 4-bit codes of one row, from \a first on: what it loads for one store, and their values. Places behind the
 * first are 32-bit constants: 64-bit arithmetic for each would cost as much as the decoding. */
template <int kValues, bool kNested>
class FourBitRow {
 public:
  struct Loaded {
    std::uint32_t codes = 0;
    float absmax = 0;
  };

  __device__ __forceinline__ FourBitRow(const WeightView& w, Index row, Index first)
      : m_absmax(w.absmax), m_blockShift(w.blockShift) {
    if (kNested) m_absmax.plain = nullptr;  // so that the choice is made before the loads, which then go out together
    const Index flat = w.offset + row * w.stride + first;
    m_codes = static_cast<const std::uint8_t*>(w.codes) + flat / 2;
    m_firstBlock = flat >> m_blockShift;
    m_inBlock = static_cast<int>(flat - (m_firstBlock << m_blockShift));
  }

  /** \param segment  values of the warp */
  __device__ __forceinline__ void prefetch(int segment) const {
    prefetchSegment(m_codes - threadIdx.x % kWarpSize * kValues / 2, (segment + 1) / 2);
  }

  /** What is read once, when the last kernel's results are there. */
  __device__ __forceinline__ void join(const WeightView& w) {
    m_level = w.codeTable[threadIdx.x % EigenQ::internal::kFourBitLevels];
    if (kNested && m_absmax.offsetAt) m_absmax.offset = *m_absmax.offsetAt;
    m_absmax.offsetAt = nullptr;
  }

  __device__ __forceinline__ Loaded load(int ahead) const {
    using Codes = typename Bits<kValues / 2>::Type;
    const Index block = m_firstBlock + ((m_inBlock + ahead) >> m_blockShift);  // one load never straddles blocks
    Loaded loaded;
    loaded.codes = __ldg(reinterpret_cast<const Codes*>(m_codes + ahead / 2));
    loaded.absmax = kNested ? m_absmax(block) : m_absmax.plain[block];
    return loaded;
  }

  /** All lanes of the warp take part: each holds a level of the table. The shuffle reads the lowest five bits of its
   * index, and levels repeat after 16 lanes, so codes need no mask. */
  __device__ __forceinline__ void decode(const Loaded& loaded, float (&values)[kValues]) const {
#pragma unroll
    for (int i = 0; i < kValues; i += 2) {
      const unsigned first = loaded.codes >> (4 * i + 4), second = loaded.codes >> (4 * i);  // high nibble first
      values[i] = __shfl_sync(kAllLanes, m_level, static_cast<int>(first)) * loaded.absmax;
      values[i + 1] = __shfl_sync(kAllLanes, m_level, static_cast<int>(second)) * loaded.absmax;
    }
  }

 private:
  const std::uint8_t* m_codes;
  AbsmaxView m_absmax;
  Index m_firstBlock;
  int m_inBlock, m_blockShift;
  float m_level;
};

/** The same of int8 codes. */
template <int kValues>
class Int8Row {
 public:
  using Loaded = typename Bits<kValues>::Type;

  __device__ __forceinline__ Int8Row(const WeightView& w, Index row, Index first)
      : m_codes(static_cast<const std::int8_t*>(w.codes) + w.offset + row * w.stride + first), m_row(row) {}

  __device__ __forceinline__ void prefetch(int segment) const {
    prefetchSegment(m_codes - threadIdx.x % kWarpSize * kValues, segment);
  }
  __device__ __forceinline__ void join(const WeightView& w) { m_absmax = w.rowAbsmax[m_row]; }

  __device__ __forceinline__ Loaded load(int ahead) const {
    return __ldg(reinterpret_cast<const Loaded*>(m_codes + ahead));
  }

  __device__ __forceinline__ void decode(const Loaded& loaded, float (&values)[kValues]) const {
#pragma unroll
    for (int i = 0; i < kValues; ++i)
      values[i] = EigenQ::internal::decodeInt8(static_cast<std::int8_t>(loaded >> (8 * i)), m_absmax);
  }

 private:
  const std::int8_t* m_codes;
  Index m_row;
  float m_absmax;
};

template <typename T, typename Row>
__global__ void __launch_bounds__(kThreads) dequantizeRows(WeightView w, T* y, Index yStride, Index rowSegments) {
  constexpr int kValues = kLaneValues<T>, kStep = kWarpSize * kValues;
  const Index warp = Index{blockIdx.x} * (kThreads / kWarpSize) + threadIdx.x / kWarpSize;
  if (warp >= w.rows * rowSegments) return;
  const Index row = w.rows == 1 ? 0 : warp / rowSegments;  // no division for a matrix that is one long row
  const Index begin = (warp - row * rowSegments) * kSegment<T>, first = begin + threadIdx.x % kWarpSize * kValues;
  const Index left = w.cols - begin;
  const int segment = static_cast<int>(left < kSegment<T> ? left : kSegment<T>);
  const int mine = segment - static_cast<int>(first - begin);  // steps ahead that lie in the row

  Row codes(w, row, first);
  codes.prefetch(segment);
  joinStreamThenAllow();
  codes.join(w);
  typename Row::Loaded loaded[kSteps] = {};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (step * kStep < mine) loaded[step] = codes.load(step * kStep);
  }
  uint4* const target = reinterpret_cast<uint4*>(y + row * yStride + first);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    float values[kValues];
    codes.decode(loaded[step], values);
    if (step * kStep < mine) target[step * kWarpSize] = pack(values, TypeTag<T>());
  }
}

constexpr Index kLaneCodes = 8;  // rows begin at a multiple of this, which serves 16-bit scalars and float

/** Rows that follow each other without a gap, in W and in Y, are one long row. int8 rows have an absmax each. */
Dequantization joinRows(Dequantization d) {
  const bool joined = d.w.rows <= 1 || (d.w.format == WeightFormat::kFourBit && d.w.stride == d.w.cols &&
                                        d.y.rowStride == d.y.cols && d.y.colStride == 1);
  if (!joined) return d;
  d.w.cols *= d.w.rows;
  d.w.rows = d.w.rows > 0 ? 1 : 0;
  d.w.stride = d.y.rowStride = d.w.cols;
  d.y.rows = d.w.rows;
  d.y.cols = d.w.cols;
  return d;
}

const char* refuseRows(const Dequantization& whole, const Context&) {
  if (!isPlain(whole.epilogue)) return "the epilogue is more than a copy";
  if (whole.y.scalar == ScalarType::kDouble) return "double results";
  const Dequantization d = joinRows(whole);
  if (d.y.colStride != 1 && d.y.cols > 1) return "Y is not row-major";
  const bool severalRows = d.w.rows > 1;
  if (d.w.cols % kLaneCodes != 0 || d.w.offset % kLaneCodes != 0 || (severalRows && d.w.stride % kLaneCodes != 0))
    return "rows of W do not begin and end at multiples of 8 codes";
  if (!isAligned(d.w.codes, kLaneCodes)) return "codes are not aligned to 8 bytes";
  if (!isAligned(d.y.data, 16) || (severalRows && d.y.rowStride % kLaneCodes != 0))
    return "rows of Y do not begin at multiples of 16 bytes";
  return nullptr;
}

template <typename T, typename Row>
void launchRows(const Dequantization& d, Context& context) {
  constexpr Index kWarps = kThreads / kWarpSize;
  const Index rowSegments = ceilDiv(d.w.cols, kSegment<T>);
  const Index blocks = ceilDiv(d.w.rows * rowSegments, kWarps);
  launchEarly("dequantizeRows", dequantizeRows<T, Row>, {static_cast<unsigned>(blocks), kThreads}, context, d.w,
              static_cast<T*>(d.y.data), d.y.rowStride, rowSegments);
}

void runRows(const Dequantization& whole, Context& context) {
  const Dequantization d = joinRows(whole);
  if (d.w.rows == 0 || d.w.cols == 0) return;
  dispatchDeviceScalar(d.y.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kValues = kLaneValues<T>;
    if (d.w.format == WeightFormat::kInt8) return launchRows<T, Int8Row<kValues>>(d, context);
    if (d.w.absmax.plain) return launchRows<T, FourBitRow<kValues, false>>(d, context);
    launchRows<T, FourBitRow<kValues, true>>(d, context);
  });
}

// ---- tiles

constexpr int kTileRows = 32, kTileCols = 64;

template <typename T>
__global__ void __launch_bounds__(kThreads) dequantizeTiles(WeightView w, DenseView y, Epilogue e, bool alongRows) {
  __shared__ float tile[kTileRows][kTileCols + 1];  // one more column: no bank conflicts across rows
  const Index firstCol = Index{blockIdx.x} * kTileCols;
  for (Index firstRow = Index{blockIdx.y} * kTileRows; firstRow < w.rows; firstRow += Index{gridDim.y} * kTileRows) {
    for (int t = static_cast<int>(threadIdx.x); t < kTileRows * kTileCols; t += kThreads) {
      const Index i = firstRow + t / kTileCols, j = firstCol + t % kTileCols;
      if (i < w.rows && j < w.cols) tile[t / kTileCols][t % kTileCols] = w.coeff(i, j);
    }
    __syncthreads();
    for (int t = static_cast<int>(threadIdx.x); t < kTileRows * kTileCols; t += kThreads) {
      const int row = alongRows ? t / kTileCols : t % kTileRows, col = alongRows ? t % kTileCols : t / kTileRows;
      const Index i = firstRow + row, j = firstCol + col;
      if (i < w.rows && j < w.cols) storeResult<T>(y, e, tile[row][col], i, j);
    }
    __syncthreads();
  }
}

const char* refuseTiles(const Dequantization&, const Context&) { return nullptr; }

void runTiles(const Dequantization& d, Context& context) {
  if (d.w.rows == 0 || d.w.cols == 0) return;
  constexpr Index kMostRows = 65535;  // of a grid
  const Index tileRows = ceilDiv(d.w.rows, kTileRows), tileCols = ceilDiv(d.w.cols, kTileCols);
  const dim3 grid(static_cast<unsigned>(tileCols), static_cast<unsigned>(tileRows < kMostRows ? tileRows : kMostRows));
  const auto magnitude = [](Index stride) { return stride < 0 ? -stride : stride; };
  const bool alongRows = magnitude(d.y.colStride) <= magnitude(d.y.rowStride);
  dispatchDeviceScalar(d.y.scalar, [&](auto tag) {
    using T = typename decltype(tag)::type;
    launch("dequantizeTiles", dequantizeTiles<T>, {grid, kThreads}, context, d.w, d.y, d.epilogue, alongRows);
  });
}

constexpr DeviceLowering<Dequantization> kDequantizers[] = {
    {"dequantize.rows", refuseRows, runRows},     // memory's speed, no epilogue
    {"dequantize.tiles", refuseTiles, runTiles},  // any strides, offsets and epilogues
};

}  // namespace

LoweringTable<DeviceLowering<Dequantization>> deviceDequantizers() {
  return {std::begin(kDequantizers), std::end(kDequantizers)};
}

void dequantize(const WeightView& w, bool transposed, const DenseView& y, const Epilogue& epilogue, Context& context) {
  // Wᵀ into Y is W into Yᵀ.
  const Dequantization d{w, transposed ? y.transpose() : y, transposed ? epilogue.transpose() : epilogue};
  assert(d.y.rows == w.rows && d.y.cols == w.cols && "Y has the shape of op(W)");
  const auto table = deviceDequantizers();
  const DeviceLowering<Dequantization>& row = EigenQ::internal::firstWilling(table, d, context);
  if (EigenQ::internal::logsLowerings())
    EigenQ::internal::logChoice(EigenQ::internal::describeDequantize(y), table, row, d, context);
  EigenQ::internal::reportLowering({EigenQ::internal::LoweringEvent::kDequantize, row.name, nullptr});
  if (y.rows > 0 && y.cols > 0) row.run(d, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
