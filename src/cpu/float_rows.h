// SPDX-License-Identifier: MPL-2.0
// Norms, gates and softmaxes over contiguous floats for one instruction set.
//
// Work     Two to four passes over rows that stay in the first-level cache, or one over what comes from memory; an
//          exponential is 13 operations of vectors, a few of them hidden behind the loads.
// Shape    Two vectors at a time where sums would wait for each other; what is left behind whole vectors is copied to a
//          vector of zeros and computed in the same way, so that a value never depends on where it stands.
//
// Internal linkage; see simd.h for the reason.
#ifndef EIGENQ_CPU_FLOAT_ROWS_H
#define EIGENQ_CPU_FLOAT_ROWS_H

#include <eigen_q/src/FloatKernels.h>

#include "simd_math.h"
#include "tasks.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa>
struct RowKernels {
  using Vec = typename Isa::Vec;
  using Math = SimdMath<Isa>;
  static constexpr Index kLanes = Isa::kLanes;
  static constexpr float kInfinity = __builtin_inff();

  // ---- loops ----------------------------------------------------------------------------------------------------

  /** The last count < kLanes values of a row, others \a rest. */
  static Vec loadSome(const float* p, Index count, float rest = 0) {
    float lanes[kLanes];
    for (Index i = 0; i < kLanes; ++i) lanes[i] = i < count ? p[i] : rest;
    return Isa::load(lanes);
  }
  static void storeSome(float* p, Index count, Vec v) {
    float lanes[kLanes];
    Isa::store(lanes, v);
    for (Index i = 0; i < count; ++i) p[i] = lanes[i];
  }

  /** f(load, store) at each vector of a row: load(p) reads p's values there, store(p, v) writes them. */
  template <typename F>
  static void forEachVector(Index size, const F& f) {
    Index i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      f([i](const float* p) { return Isa::load(p + i); }, [i](float* p, Vec v) { Isa::store(p + i, v); });
    }
    if (i == size) return;
    f([i, size](const float* p) { return loadSome(p + i, size - i); },
      [i, size](float* p, Vec v) { storeSome(p + i, size - i, v); });
  }

  /** Σ f(i), f(i) a vector of what stands from i on; two sums, and \a last the vector behind the last whole one. */
  template <typename F>
  static float sumOf(Index size, const F& f, Vec last) {
    Vec sum0 = last, sum1 = Isa::zero();
    Index i = 0;
    for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
      sum0 = Isa::add(sum0, f(i));
      sum1 = Isa::add(sum1, f(i + kLanes));
    }
    if (i + kLanes <= size) sum1 = Isa::add(sum1, f(i));
    return Isa::sum(Isa::add(sum0, sum1));
  }

  static float dot(Index size, const float* a, const float* b) {
    const Index whole = size / kLanes * kLanes, left = size - whole;
    const Vec last = left ? Isa::mul(loadSome(a + whole, left), loadSome(b + whole, left)) : Isa::zero();
    return sumOf(
        size, [=](Index i) { return Isa::mul(Isa::load(a + i), Isa::load(b + i)); }, last);
  }

  // ---- softmax --------------------------------------------------------------------------------------------------

  /** The largest value; size > 0. NaN is not looked for: exp() finds it. */
  static float largest(Index size, const float* x) {
    Index i = 0;
    Vec most = Isa::broadcast(x[0]);
    for (; i + kLanes <= size; i += kLanes) most = Isa::larger(most, Isa::load(x + i));
    if (i < size) most = Isa::larger(most, loadSome(x + i, size - i, x[0]));
    return Isa::largest(most);
  }

  /** y = exp(x - shift), y may be x. \returns the sum */
  static float expShifted(Index size, const float* x, float shift, float* y) {
    const Vec by = Isa::broadcast(shift);
    Vec sum0 = Isa::zero(), sum1 = Isa::zero();
    Index i = 0;
    for (; i + 2 * kLanes <= size; i += 2 * kLanes) {
      const Vec e0 = Math::exp(Isa::sub(Isa::load(x + i), by));
      const Vec e1 = Math::exp(Isa::sub(Isa::load(x + i + kLanes), by));
      sum0 = Isa::add(sum0, e0);
      sum1 = Isa::add(sum1, e1);
      Isa::store(y + i, e0);
      Isa::store(y + i + kLanes, e1);
    }
    for (; i < size; i += kLanes) {
      const Index count = least(kLanes, size - i);
      const Vec e = Math::exp(Isa::sub(loadSome(x + i, count, -kInfinity), by));
      sum0 = Isa::add(sum0, e);
      storeSome(y + i, count, e);
    }
    return Isa::sum(Isa::add(sum0, sum1));
  }

  /** In place; size > 0. \returns the log-sum-exp */
  static float softmax(Index size, float* x) {
    const float top = largest(size, x);
    const float total = expShifted(size, x, top, x);
    const Vec factor = Isa::broadcast(1 / total);
    forEachVector(size, [=](auto load, auto store) { store(x, Isa::mul(factor, load(x))); });
    return top + __builtin_logf(total);
  }

  static float logSumExp(Index size, const float* x) {
    constexpr Index kPiece = 256;
    float e[kPiece], total = 0;
    const float top = largest(size, x);
    for (Index i = 0; i < size; i += kPiece) total += expShifted(least(kPiece, size - i), x + i, top, e);
    return top + __builtin_logf(total);
  }

  static void scaledExp(Index size, const float* x, float shift, float factor, float* y, bool accumulate) {
    const Vec by = Isa::broadcast(shift), scale = Isa::broadcast(factor);
    forEachVector(size, [=](auto load, auto store) {
      const Vec e = Math::exp(Isa::sub(load(x), by));
      store(y, accumulate ? Isa::multiplyAdd(scale, e, load(y)) : Isa::mul(scale, e));
    });
  }

  /** ds = p·(ds - d). */
  static void multiplyShifted(Index size, const float* p, float d, float* ds) {
    const Vec by = Isa::broadcast(d);
    forEachVector(size, [=](auto load, auto store) { store(ds, Isa::mul(load(p), Isa::sub(load(ds), by))); });
  }

  // ---- RMSNorm --------------------------------------------------------------------------------------------------

  static void rmsNorm(const FloatRmsNorm& n, float eps, float* y) {
    forEachRange(n.cols, n.rows, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const float* x = n.x + t * n.rows;
        float* out = y + t * n.rows;
        n.inverse[t] = 1 / __builtin_sqrtf(dot(n.rows, x, x) / static_cast<float>(n.rows) + eps);
        const Vec factor = Isa::broadcast(n.inverse[t]);
        const float* gain = n.gain;
        forEachVector(n.rows,
                      [=](auto load, auto store) { store(out, Isa::mul(factor, Isa::mul(load(x), load(gain)))); });
      }
    });
  }

  /** With x̂ = x·inverse and h = gain ∘ ȳ: x̄ = inverse·(h - x̂·mean(h ∘ x̂)), the gain's Σ ȳ ∘ x̂. */
  static void rmsNormBackward(const FloatRmsNorm& n, const float* dy, FloatGradient dx, float* dGain) {
    const auto columns = [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        if (dx.data) addNormGradient(n, dy, dx, t);
        if (dGain) addGainGradient(n, dy, dGain, t);
      }
    };
    // The gain's sums run over columns in their order: one thread takes them all.
    dGain ? columns(0, n.cols) : forEachRange(n.cols, 2 * n.rows, columns);
  }

  static void addNormGradient(const FloatRmsNorm& n, const float* dy, FloatGradient dx, Index t) {
    const float* x = n.x + t * n.rows;
    const float* d = dy + t * n.rows;
    const float r = n.inverse[t];
    const float projection = r * r * weightedDot(n.rows, n.gain, d, x) / static_cast<float>(n.rows);
    const Vec factor = Isa::broadcast(r), along = Isa::broadcast(-r * projection);
    float* out = dx.data + t * n.rows;
    const float* gain = n.gain;
    const bool accumulate = dx.accumulate;
    forEachVector(n.rows, [=](auto load, auto store) {
      const Vec h = Isa::mul(factor, Isa::mul(load(gain), load(d)));
      const Vec v = Isa::multiplyAdd(along, load(x), h);
      store(out, accumulate ? Isa::add(load(out), v) : v);
    });
  }

  static void addGainGradient(const FloatRmsNorm& n, const float* dy, float* dGain, Index t) {
    const float* x = n.x + t * n.rows;
    const float* d = dy + t * n.rows;
    const Vec factor = Isa::broadcast(n.inverse[t]);
    forEachVector(n.rows, [=](auto load, auto store) {
      store(dGain, Isa::multiplyAdd(factor, Isa::mul(load(d), load(x)), load(dGain)));
    });
  }

  static float weightedDot(Index size, const float* w, const float* a, const float* b) {
    const Index whole = size / kLanes * kLanes, left = size - whole;
    const Vec last =
        left ? Isa::mul(loadSome(w + whole, left), Isa::mul(loadSome(a + whole, left), loadSome(b + whole, left)))
             : Isa::zero();
    return sumOf(
        size, [=](Index i) { return Isa::mul(Isa::load(w + i), Isa::mul(Isa::load(a + i), Isa::load(b + i))); }, last);
  }

  // ---- SwiGLU ---------------------------------------------------------------------------------------------------

  static void swiglu(Index size, const float* gate, const float* up, float* y) {
    forEachRange(size, 8, [=](Index begin, Index end) {
      const float* g = gate + begin;
      const float* u = up + begin;
      float* out = y + begin;
      forEachVector(end - begin, [=](auto load, auto store) {
        const Vec x = load(g);
        store(out, Isa::mul(Isa::mul(x, Math::logistic(x)), load(u)));
      });
    });
  }

  /** With σ = σ(gate): up's ȳ gate σ, gate's ȳ up σ (1 + gate (1 - σ)). */
  static void swigluBackward(Index size, const float* gate, const float* up, const float* dy, FloatGradient dGate,
                             FloatGradient dUp) {
    forEachRange(size, 16, [=](Index begin, Index end) {
      forEachVector(end - begin, [=](auto load, auto store) {
        const Vec one = Isa::broadcast(1.0f), x = load(gate + begin), d = load(dy + begin);
        const Vec sigma = Math::logistic(x), gated = Isa::mul(d, sigma);
        const auto put = [&](const FloatGradient& to, Vec v) {
          float* at = to.data + begin;
          store(at, to.accumulate ? Isa::add(load(at), v) : v);
        };
        if (dUp.data) put(dUp, Isa::mul(gated, x));
        if (!dGate.data) return;
        const Vec slope = Isa::multiplyAdd(x, Isa::sub(one, sigma), one);
        put(dGate, Isa::mul(Isa::mul(gated, load(up + begin)), slope));
      });
    });
  }

  // ---- rotary embedding -----------------------------------------------------------------------------------------

  static void rope(const FloatRope& r) {
    const Index rows = r.heads * 2 * r.half;
    forEachRange(r.tokens, 2 * rows, [&](Index begin, Index end) {
      for (Index t = begin; t < end; ++t) {
        const Index angles = r.positions[t] * r.half;
        for (Index head = 0; head < r.heads; ++head) {
          const Index at = t * rows + head * 2 * r.half;
          (r.adjacent ? turnNeighbours : turnHalves)(r, r.cos + angles, r.sin + angles, at);
        }
      }
    });
  }

  static void turnHalves(const FloatRope& r, const float* cos, const float* sin, Index at) {
    const Vec direction = Isa::broadcast(r.direction);
    const Index half = r.half;
    const FloatGradient to = r.y;
    const float* x = r.x + at;
    float* y = to.data + at;
    forEachVector(half, [=](auto load, auto store) {
      const Vec a = load(x), b = load(x + half), c = load(cos), s = Isa::mul(direction, load(sin));
      const Vec first = Isa::sub(Isa::mul(a, c), Isa::mul(b, s)), second = Isa::multiplyAdd(a, s, Isa::mul(b, c));
      store(y, to.accumulate ? Isa::add(load(y), first) : first);
      store(y + half, to.accumulate ? Isa::add(load(y + half), second) : second);
    });
  }

  static void turnNeighbours(const FloatRope& r, const float* cos, const float* sin, Index at) {
    const float* x = r.x + at;
    float* y = r.y.data + at;
    for (Index i = 0; i < r.half; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1], c = cos[i], s = r.direction * sin[i];
      y[2 * i] = (r.y.accumulate ? y[2 * i] : 0) + (a * c - b * s);
      y[2 * i + 1] = (r.y.accumulate ? y[2 * i + 1] : 0) + (b * c + a * s);
    }
  }

  // ---- AdamW ----------------------------------------------------------------------------------------------------

  static void adamW(const FloatAdamW& a) {
    forEachRange(a.size, 8, [&](Index begin, Index end) {
      const Vec beta1 = Isa::broadcast(a.beta1), beta2 = Isa::broadcast(a.beta2), scale = Isa::broadcast(a.gradScale);
      const Vec rest1 = Isa::broadcast(1 - a.beta1), rest2 = Isa::broadcast(1 - a.beta2);
      const Vec step = Isa::broadcast(a.step), keep = Isa::broadcast(a.keep), eps = Isa::broadcast(a.eps);
      const Vec unbias2 = Isa::broadcast(a.unbias2);
      float *const m = a.m + begin, *const v = a.v + begin, *const w = a.parameter + begin;
      const float* const gradient = a.gradient + begin;
      forEachVector(end - begin, [=](auto load, auto store) {
        const Vec g = Isa::mul(scale, load(gradient));
        const Vec mean = Isa::multiplyAdd(beta1, load(m), Isa::mul(rest1, g));
        const Vec square = Isa::multiplyAdd(beta2, load(v), Isa::mul(rest2, Isa::mul(g, g)));
        const Vec moved = Isa::div(Isa::mul(step, mean), Isa::multiplyAdd(Isa::sqrt(square), unbias2, eps));
        store(m, mean);
        store(v, square);
        store(w, Isa::sub(Isa::mul(keep, load(w)), moved));
      });
    });
  }

  /** f(begin, end) over [0, count) in pieces of \a count values of \a work multiplications each, on several threads. */
  template <typename F>
  static void forEachRange(Index count, Index work, const F& f) {
    if (work == 0) return;  // columns without rows
    const Index piece = ceilDiv(Index(1) << 17, work) / kLanes * kLanes;
    const Index size = piece > kLanes ? piece : kLanes;
    forEachTask(ceilDiv(count, size), count * work, [&](Index i) { f(i * size, least(count, (i + 1) * size)); });
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_FLOAT_ROWS_H
