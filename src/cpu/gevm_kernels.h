// SPDX-License-Identifier: MPL-2.0
// Y (m×k) = X·W, or Wᵀ·G of the backward pass, for few rows of X: rows of W are decoded in registers, multiplied there
// by their values of X, and added to all of Y.
//
//   W, as stored   row i      │ step 0: 8 vectors of codes │ step 1 │ … │      × x[m][i] (× absmax)
//                  …                       ▼ added in registers: M×V sums, 8/V parts of a step one after the other
//                  row i + B  │ step 0                     │ step 1 │ … │
//                                          ▼ once for each B rows
//   sums, in L1    [step][m][columns of the step, as they leave the decoder]
//                                          ▼ once for each chain of kChain rows
//   Y              Σ of the chains' sums
//
// Traffic  W once, from one end to the other: 0.5 B of codes and 4/64 B of absmax a weight, or 1 B. Sums of a task stay
//          in 16 KiB of the first-level cache and are read and written once for B rows, 4 B a row of X and column for
//          each chain once more.
// Work     A 4-bit vector takes a shift, a look-up and M fused multiplications with AVX-512, 12 shuffles for 4 vectors
//          with AVX2; an int8 vector takes a widening, a conversion and M. A scale is multiplied by the value of X and
//          not by V vectors where that is less work.
// Tiles    B: rows of W lie pages apart, in few sets of the first-level cache, so that more of them push each other
//          out. 4096×4096, one thread of a Zen 5, ms with B = 4, 8, 16, 32: NF4 AVX2 1 row 0.83, 0.84, 0.90, 1.07; 4
//          rows 2.4, 2.2, 2.0, 2.0; AVX-512 2 rows 0.82, 0.68, 0.59, 0.84; int8 AVX2 1 row 0.62, 0.66, 0.70, 1.46; 8
//          rows 3.9, 3.1, 3.8, 5.1. Decoded panels (panel_kernels.h) took 2.3, 3.0, 1.8, 4.3 and 6.3: 64 bytes of each
//          row of W in turn are no stream.
// Tasks    A chain each, so that two threads read two streams. Where they shared chains and took half of each row of W,
//          one row of X took 0.53 to 0.55 ms (NF4, AVX2), in some processes 0.95, as long as one thread; now 0.46 to
//          0.48.
//
// A sum runs over the rows of W in blocks of B, those of kChain rows in one chain, and the chains in one: in the same
// order whatever the number of threads. Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_GEVM_KERNELS_H
#define EIGENQ_CPU_GEVM_KERNELS_H

#include "fourbit_gemv.h"
#include "fourbit_simd.h"
#include "simd.h"

namespace EigenQ {
namespace internal {
namespace {

/** M×V sums that fit the registers beside V decoded vectors. */
template <typename Isa>
constexpr int vectorsThatFit(int rows) {
  const int sums = Isa::kLanes == 16 ? 24 : 12;
  return 8 * rows <= sums ? 8 : 4 * rows <= sums ? 4 : 2 * rows <= sums ? 2 : 1;
}

/** int8 codes in steps of eight vectors. The scale of a row of W is a factor of the row's values of X. */
template <typename Isa>
struct Int8Steps {
  using Vec = typename Isa::Vec;
  static constexpr Index kStep = 8 * Isa::kLanes, kStepBytes = kStep;
  static constexpr Index kScales = 0;  // of a step of one row
  static constexpr int vectorsAtOnce(int rows) { return vectorsThatFit<Isa>(rows); }
  static constexpr Index blockRows(int) { return 8; }

  const WeightView& w;

  const std::uint8_t* bytes(Index row) const {
    return static_cast<const std::uint8_t*>(w.codes) + w.offset + row * w.stride;
  }
  Index rowBytes() const { return w.stride; }
  const float* scales(Index, float*) const { return nullptr; }

  static void scaleColumns(const WeightView& w, float* x, Index rows) {
    for (Index i = 0; i < w.rows; ++i) {
      const Int8Factors factors(w.rowAbsmax[i]);
      for (Index m = 0; m < rows; ++m) x[m * w.rows + i] = x[m * w.rows + i] * factors.first * factors.second;
    }
  }

  template <int V>
  void decode(const std::uint8_t* codes, int part, Vec (&levels)[V]) const {
    for (int v = 0; v < V; ++v) {
      levels[v] = Isa::fromInt8(reinterpret_cast<const std::int8_t*>(codes) + (part * V + v) * Isa::kLanes);
    }
  }
  static constexpr Index columnOf(int vector, int lane) { return vector * Isa::kLanes + lane; }
};

/** 4-bit codes in steps of eight vectors, in rows that begin at multiples of kPerScale. */
template <typename Isa, Index kPerScale>
struct FourBitSteps {
  using Vec = typename Isa::Vec;
  using Decoder = typename FourBitDecoder<Isa>::Type;
  static constexpr Index kStep = 8 * Isa::kLanes, kStepBytes = kStep / 2;
  static constexpr Index kScales = kStep / kPerScale;
  static constexpr int vectorsAtOnce(int rows) {
    return Decoder::kFixedPart > 0 ? Decoder::kFixedPart : vectorsThatFit<Isa>(rows);
  }
  static constexpr Index blockRows(int rows) { return rows == 1 && Isa::kLanes == 8 ? 8 : 16; }

  const WeightView& w;
  typename Decoder::Table table = Decoder::loadTable(w.codeTable);

  const std::uint8_t* bytes(Index row) const { return FourBitRows<kPerScale>{w}.bytes(row); }
  Index rowBytes() const { return w.stride / 2; }
  const float* scales(Index row, float* buffer) const { return FourBitRows<kPerScale>{w}.scales(row, buffer); }
  static Vec spread(const float* scales) { return Decoder::template spread<kPerScale>(scales); }

  template <int V>
  void decode(const std::uint8_t* codes, int part, Vec (&levels)[V]) const {
    Decoder::lookUpPart(codes, part, table, levels);
  }
  static constexpr Index columnOf(int vector, int lane) { return Decoder::columnOfVector(vector, lane); }
};

template <typename Isa, typename Steps>
struct GevmKernels {
  using Vec = typename Isa::Vec;
  static constexpr int kLanes = Isa::kLanes, kVectors = 8;
  static constexpr Index kStep = Steps::kStep, kScales = Steps::kScales, kLine = 64;
  static constexpr Index kMostBlockRows = 16;
  static constexpr Index kChain = 512;  // rows of W; a multiple of every block
  static constexpr Index kSums = 4096;  // of a task
  static constexpr int kMaxRows = 8;

  /** A chain of W's rows and columns of Y by steps. */
  struct Task {
    const QuantizedProduct& p;
    const float* x;  // for int8 times the scales of W's rows
    Index xStride;
    Index step, endStep;
    Index row, endRow;
    float* sums;
  };

  /** Rows of W whose products are added in registers. */
  struct Block {
    const std::uint8_t* codes;
    Index codeStride;
    const float* scales[kMostBlockRows];
    const float* x;
    Index xStride;
    Index rows;
  };

  /** sums[m][part·V + v] (+)= Σ x[m][i]·w[i] over the rows of a block. */
  template <int M, int V>
  static void addPart(const Steps& steps, const Block& b, Index step, int part, bool first, float* sums) {
    Vec sum[M][V];
    for (auto& row : sum) {
      for (Vec& s : row) s = Isa::zero();
    }
    const std::uint8_t* codes = b.codes + step * Steps::kStepBytes;
    for (Index i = 0; i < b.rows; ++i, codes += b.codeStride) {
      Vec w[V], scale = Isa::zero();
      steps.decode(codes, part, w);
      if constexpr (kScales > 0) {
        scale = Steps::spread(b.scales[i] + step * kScales);
        if constexpr (M > V) {
          for (Vec& v : w) v = Isa::mul(v, scale);
        }
      }
      for (int m = 0; m < M; ++m) {
        Vec x = Isa::broadcast(b.x[m * b.xStride + i]);
        if constexpr (kScales > 0 && M <= V) x = Isa::mul(x, scale);
        for (int v = 0; v < V; ++v) sum[m][v] = Isa::multiplyAdd(w[v], x, sum[m][v]);
      }
    }
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < V; ++v) {
        float* to = sums + m * kStep + (part * V + v) * kLanes;
        Isa::store(to, first ? sum[m][v] : Isa::add(Isa::load(to), sum[m][v]));
      }
    }
  }

  template <int M>
  static void addStep(const Steps& steps, const Block& b, Index step, bool first, float* sums) {
    constexpr int V = Steps::vectorsAtOnce(M);
    for (int part = 0; part < kVectors / V; ++part) addPart<M, V>(steps, b, step, part, first, sums);
  }

  /** The last codes of rows, fewer than kStep, with zeros behind them: no byte behind a row's is read. */
  template <int M>
  static void addLastStep(const Steps& steps, const Block& b, Index step, bool first, float* sums) {
    alignas(64) std::uint8_t codes[kMostBlockRows][Steps::kStepBytes] = {};
    float scales[kMostBlockRows][kScales + 1] = {};
    const Index count = steps.w.cols - step * kStep, used = ceilDiv(count * kScales, kStep);
    Block last = b;
    last.codes = codes[0];
    last.codeStride = Steps::kStepBytes;
    for (Index i = 0; i < b.rows; ++i) {
      std::memcpy(codes[i], b.codes + i * b.codeStride + step * Steps::kStepBytes,
                  static_cast<std::size_t>(ceilDiv(count * Steps::kStepBytes, kStep)));
      for (Index g = 0; g < used; ++g) scales[i][g] = b.scales[i][step * kScales + g];
      last.scales[i] = scales[i];
    }
    addStep<M>(steps, last, 0, first, sums);
  }

  /** Asks for the \a rows rows after a block while that is multiplied. Of one row of X the multiplications take less
   * time than memory, and requests in the order of memory serve it best, row after row; else a step of each row in
   * turn, into the second-level cache: in the first, where rows share sets, they would push each other out. 4096×4096,
   * one row of X, ms in turn and in order: AVX-512 int8 0.91, 0.49, NF4 0.66, 0.51; AVX2 int8 0.57, 0.62, NF4 0.86,
   * 0.76; two rows, AVX-512: int8 0.55, 0.74. */
  template <int M>
  class NextRows {
   public:
    EIGENQ_STRONG_INLINE NextRows(const std::uint8_t* codes, Index stride, Index rows, const Task& t)
        : m_codes(codes), m_stride(stride), m_rows(rows), m_begin(t.step), m_end(t.endStep), m_step(t.step) {}

    EIGENQ_STRONG_INLINE void fetch(Index step) {
      if constexpr (kInOrder) {
        for (Index i = 0; i < m_rows; ++i) {
          prefetchStep<3>(m_codes + m_step * Steps::kStepBytes);
          if (++m_step < m_end) continue;
          m_step = m_begin;
          m_codes += m_stride;
        }
      } else {
        const std::uint8_t* at = m_codes + step * Steps::kStepBytes;
        for (Index i = 0; i < m_rows; ++i, at += m_stride) prefetchStep<2>(at);
      }
    }

   private:
    static constexpr bool kInOrder = M == 1 && (kLanes == 16 || kScales > 0);

    template <int kLocality>
    static EIGENQ_STRONG_INLINE void prefetchStep(const std::uint8_t* at) {
      for (Index i = 0; i < Steps::kStepBytes; i += kLine) __builtin_prefetch(at + i, 0, kLocality);
    }

    const std::uint8_t* m_codes;
    Index m_stride, m_rows, m_begin, m_end, m_step;
  };

  /** sums (+)= the products of a block, for the steps of a task. */
  template <int M>
  static void addBlock(const Task& t, const Steps& steps, Index row, bool first, float* buffer, float* sums) {
    constexpr Index kRows = Steps::blockRows(M);
    static_assert(kRows <= kMostBlockRows && kChain % kRows == 0, "chains end with blocks");
    const WeightView& w = steps.w;
    const Index groups = kScales * ceilDiv(w.cols, kStep), whole = least(t.endStep, w.cols / kStep);
    Block b{steps.bytes(row), steps.rowBytes(), {}, t.x + row, t.xStride, least(kRows, w.rows - row)};
    for (Index i = 0; i < b.rows; ++i) b.scales[i] = steps.scales(row + i, buffer + i * groups);
    NextRows<M> next(b.codes + b.rows * b.codeStride, b.codeStride, least(kRows, w.rows - row - b.rows), t);
    Index step = t.step;
    for (; step < whole; ++step, sums += M * kStep) {
      next.fetch(step);
      addStep<M>(steps, b, step, first, sums);
    }
    if (step < t.endStep) addLastStep<M>(steps, b, step, first, sums);
  }

  template <int M>
  static void run(const Task& t) {
    const Steps steps{t.p.w};
    float* const buffer = scratch(Scratch::kPanel, kMostBlockRows * kScales * ceilDiv(t.p.w.cols, kStep));
    for (Index row = t.row; row < t.endRow; row += Steps::blockRows(M)) {
      addBlock<M>(t, steps, row, row == t.row, buffer, t.sums);
    }
  }

  /** The columns of a step, whose sums of all chains lie \a stride apart. */
  static void store(const QuantizedProduct& p, Index step, const float* sums, Index chains, Index stride) {
    alignas(64) float natural[kMaxRows * kStep], lanes[kLanes];  // with columns where they belong
    const Index m = p.y.rows;
    for (Index i = 0; i < m * kVectors; ++i, sums += kLanes) {
      Vec sum = chains > 0 ? Isa::load(sums) : Isa::zero();
      for (Index c = 1; c < chains; ++c) sum = Isa::add(sum, Isa::load(sums + c * stride));
      Isa::store(lanes, sum);
      float* const row = natural + i / kVectors * kStep;
      for (int lane = 0; lane < kLanes; ++lane) row[Steps::columnOf(int(i % kVectors), lane)] = lanes[lane];
    }
    storeTile(natural, kStep, 0, step * kStep, m, least(kStep, p.y.cols - step * kStep), p.y, p.epilogue);
  }

  using Function = void (*)(const Task&);
  template <int M = kMaxRows>
  static Function function(Index rows) {
    if constexpr (M > 1) {
      if (rows < M) return function<M - 1>(rows);
    }
    return &run<M>;
  }

  static void gevm(const QuantizedProduct& p) {
    const Index m = p.y.rows, n = p.x.cols, work = m * n * p.y.cols;
    const float* x = static_cast<const float*>(p.x.data);
    Index xStride = p.x.rowStride;
    if (kScales == 0 || p.x.scalar != ScalarType::kFloat || p.x.colStride != 1) {
      float* const packed = scratch(Scratch::kActivations, m * n);
      for (Index i = 0; i < m; ++i) packTile(p.x, i, 1, 0, n, packed + i * n);
      if constexpr (kScales == 0) Steps::scaleColumns(p.w, packed, m);
      x = packed;
      xStride = n;
    }
    const Index chains = ceilDiv(n, kChain), steps = ceilDiv(p.y.cols, kStep), stride = steps * m * kStep;
    const Index most = kSums > m * kStep ? kSums / (m * kStep) : 1, threads = work < kWorthThreads ? 1 : maxThreads();
    const Index ranges = chains > 0 && threads > 1 ? ceilDiv(2 * threads, chains) : 1;
    const Index stepsOfTask = least(most, ceilDiv(steps, ranges)), tasksOfChain = ceilDiv(steps, stepsOfTask);
    float* const sums = scratch(Scratch::kTile, chains * stride);
    const Function multiply = function(m);
    forEachTask(chains * tasksOfChain, work, [&](Index task) {
      const Index row = task / tasksOfChain * kChain, step = task % tasksOfChain * stepsOfTask;
      multiply({p, x, xStride, step, least(steps, step + stepsOfTask), row, least(n, row + kChain),
                sums + task / tasksOfChain * stride + step * m * kStep});
    });
    forEachTask(steps, chains * stride, [&](Index step) { store(p, step, sums + step * m * kStep, chains, stride); });
  }
};

template <typename Isa>
void runGevm(const QuantizedProduct& p) {
  const WeightView& w = p.w;
  if (w.format == WeightFormat::kInt8) return GevmKernels<Isa, Int8Steps<Isa>>::gevm(p);
  w.offset % 64 == 0 && w.stride % 64 == 0 && w.blockShift >= 6 ? GevmKernels<Isa, FourBitSteps<Isa, 64>>::gevm(p)
                                                                : GevmKernels<Isa, FourBitSteps<Isa, 32>>::gevm(p);
}

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_GEVM_KERNELS_H
