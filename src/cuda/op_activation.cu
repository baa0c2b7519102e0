// SPDX-License-Identifier: MPL-2.0
// Pullbacks of the activations, and the gate of a Llama feed-forward block. See op_elementwise.cuh.
#include <eigen_q/src/gpu/OpKernels.h>

#include "op_elementwise.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

__device__ __forceinline__ float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

/** a'(x), from what the host op saves. */
__device__ __forceinline__ float slope(Activation activation, float saved) {
  constexpr float kSqrtHalf = 0.70710678118654752440f, kInvSqrt2Pi = 0.39894228040143267794f;
  switch (activation) {
    case Activation::kRelu:
      return saved > 0.0f ? 1.0f : 0.0f;
    case Activation::kTanh:
      return fmaf(-saved, saved, 1.0f);
    case Activation::kSilu: {
      const float sigma = logistic(saved);
      return sigma * fmaf(saved, 1.0f - sigma, 1.0f);
    }
    case Activation::kGelu:  // Φ(x) + x·φ(x)
      return fmaf(saved * kInvSqrt2Pi, expf(-0.5f * saved * saved), 0.5f * erfcf(-saved * kSqrtHalf));
    case Activation::kNone:
      break;
  }
  return 1.0f;
}

template <typename T, int kWidth_>
struct ActivationPullback {
  static constexpr int kWidth = kWidth_;
  Columns<const T> saved, dy;
  Columns<T> dx;
  Activation activation;
  bool accumulate;

  __device__ void operator()(Index i, Index j) const {
    float s[kWidth], d[kWidth];
    load(saved(j) + i, s);
    load(dy(j) + i, d);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      // relu selects, as on the host: 0·∞ would be NaN.
      if (activation == Activation::kRelu) {
        d[k] = s[k] > 0.0f ? d[k] : 0.0f;
      } else {
        d[k] *= slope(activation, s[k]);
      }
    }
    store(dx(j) + i, d, accumulate);
  }
};

template <typename T, int kWidth_>
struct Swiglu {
  static constexpr int kWidth = kWidth_;
  Columns<const T> gate, up;
  Columns<T> y;

  __device__ void operator()(Index i, Index j) const {
    float g[kWidth], u[kWidth];
    load(gate(j) + i, g);
    load(up(j) + i, u);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) u[k] *= activate(Activation::kSilu, g[k]);
    store(y(j) + i, u);
  }
};

template <typename T, int kWidth_>
struct SwigluPullback {
  static constexpr int kWidth = kWidth_;
  Columns<const T> gate, up, dy;
  Columns<T> dgate, dup;
  bool accumulateGate, accumulateUp;

  __device__ void operator()(Index i, Index j) const {
    float g[kWidth], u[kWidth], d[kWidth];
    load(gate(j) + i, g);
    load(up(j) + i, u);
    load(dy(j) + i, d);
    float toGate[kWidth], toUp[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      toUp[k] = d[k] * activate(Activation::kSilu, g[k]);
      toGate[k] = d[k] * u[k] * slope(Activation::kSilu, g[k]);
    }
    if (dgate) store(dgate(j) + i, toGate, accumulateGate);
    if (dup) store(dup(j) + i, toUp, accumulateUp);
  }
};

}  // namespace

void activationBackward(const ActivationBackward& op, Context& context) {
  const Walk walk({op.saved, op.dy, asConst(op.dx)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const ActivationPullback<T, decltype(width)::value> pullback = {Columns<const T>(op.saved), Columns<const T>(op.dy),
                                                                    Columns<T>(op.dx), op.activation, op.accumulate};
    launchElementwise("activationBackward", pullback, walk, context);
  });
}

void swigluForward(const ConstDenseView& gate, const ConstDenseView& up, const DenseView& y, Context& context) {
  const Walk walk({gate, up, asConst(y)});
  if (walk.empty()) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const Swiglu<T, decltype(width)::value> op = {Columns<const T>(gate), Columns<const T>(up), Columns<T>(y)};
    launchElementwise("swigluForward", op, walk, context);
  });
}

void swigluBackward(const SwigluBackward& op, Context& context) {
  const Walk walk({op.gate, op.up, op.dy, asConst(op.dgate), asConst(op.dup)});
  if (walk.empty() || (!op.dgate.data && !op.dup.data)) return;
  dispatchWalk(walk, [&](auto tag, auto width) {
    using T = typename decltype(tag)::type;
    const SwigluPullback<T, decltype(width)::value> pullback = {
        Columns<const T>(op.gate), Columns<const T>(op.up), Columns<const T>(op.dy), Columns<T>(op.dgate),
        Columns<T>(op.dup),        op.accumulateGate,       op.accumulateUp};
    launchElementwise("swigluBackward", pullback, walk, context);
  });
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
