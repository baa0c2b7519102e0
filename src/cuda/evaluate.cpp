// SPDX-License-Identifier: MPL-2.0
// From the terms of a device expression to launches.
#include <eigen_q/src/gpu/DeviceExpression.h>

#include <algorithm>
#include <cstdint>

#include "context_state.h"
#include "dense_view.h"
#include "device_lowering.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** The bytes from the first entry of a view to behind its last. Strides of device views are not negative. */
struct Extent {
  std::uintptr_t begin = 0;
  std::uintptr_t end = 0;
};
template <typename Void>
Extent extentOf(const EigenQ::internal::BasicDenseView<Void>& v) {
  if (v.rows == 0 || v.cols == 0) return {};
  const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(v.data);
  const Index last = (v.rows - 1) * v.rowStride + (v.cols - 1) * v.colStride;
  return {begin, begin + static_cast<std::size_t>(last + 1) * sizeOf(v.scalar)};
}
bool overlap(const Extent& a, const Extent& b) { return a.begin < b.end && b.begin < a.end; }

bool sameEntries(const ConstDenseView& a, const DenseView& b) {
  return a.data == b.data && a.scalar == b.scalar && a.rowStride == b.rowStride && a.colStride == b.colStride;
}

Extent biasExtent(const Term& t, ScalarType scalar) {
  if (t.epilogue.biasAxis == BiasAxis::kNone) return {};
  const Index count = t.epilogue.biasAxis == BiasAxis::kPerRow ? t.rows : t.cols;
  return extentOf(ConstDenseView{t.epilogue.bias, scalar, count, 1, t.epilogue.biasStride, 1});
}

/** Whether the term, alone, may write where it reads. */
bool readsWhatItOverwrites(const Term& t, const DenseView& y, const Extent& written) {
  if (overlap(biasExtent(t, y.scalar), written)) return true;
  if (t.core == Term::Core::kDequantized) return false;
  if (t.core == Term::Core::kDense && sameEntries(t.a.view, y)) return false;  // entry by entry
  return overlap(extentOf(t.a.view), written) || overlap(extentOf(t.b.view), written);
}

bool reads(const Term& t, const DenseView& y, const Extent& written) {
  return readsWhatItOverwrites(t, y, written) || (t.core == Term::Core::kDense && sameEntries(t.a.view, y));
}

void beginRead(MemoryBlock* block, Context& context) {
  if (block) block->beginRead(context);
}

/** y = or += epilogue(core), with at most one residual. */
void launch(const Term& t, const DenseView& y, Epilogue e, Context& context) {
  switch (t.core) {
    case Term::Core::kDense:
      return elementwise(t.a.view, y, e, context);
    case Term::Core::kDenseProduct:
      return lower(DenseProduct{t.a.view, t.b.view, y, e}, context);
    case Term::Core::kDequantized:
      e.alpha *= t.w.view.factor;
      return dequantize(t.w.view.weights, t.w.view.transposed, y, e, context);
    case Term::Core::kQuantizedProduct:
      break;
  }
  // Kernels have W on the right, so W·X is computed as (Xᵀ·Wᵀ)ᵀ.
  QuantizedProduct p;
  p.w = t.w.view.weights;
  e.alpha *= t.w.view.factor;
  if (t.weightOnLeft) {
    p.x = t.a.view.transpose();
    p.transposed = !t.w.view.transposed;
    p.y = y.transpose();
    p.epilogue = e.transpose();
  } else {
    p.x = t.a.view;
    p.transposed = t.w.view.transposed;
    p.y = y;
    p.epilogue = e;
  }
  lower(p, context);
}

/** The terms in the order of their launches. */
struct Schedule {
  const Term* term[kMaxTerms];
  int count = 0;
};

/** Products first, so that a dense term can ride along as the residual of one. A term that reads y's entries rides with
 * the first launch; one that cannot ride, relu(y) say, comes before all. */
Schedule orderOf(const Term* terms, int count, const DenseView& y) {
  const Extent written = extentOf(y);
  Schedule s;
  for (int i = 0; i < count; ++i) s.term[s.count++] = &terms[i];
  const auto rank = [&](const Term* t) {
    const bool readsY = reads(*t, y, written);
    return t->isScaledDense() ? (readsY ? 1 : 2) : (readsY ? -1 : 0);
  };
  const Term** const end = s.term + s.count;
  std::stable_sort(s.term, end, [&](const Term* a, const Term* b) { return rank(a) < rank(b); });
  const Term** const rider = std::find_if(s.term, end, [&](const Term* t) { return rank(t) == 1; });
  if (rider != end && rider - s.term > 1) std::rotate(s.term + 1, rider, rider + 1);
  return s;
}

/** s·A as the residual of another term. */
bool mayRideAlong(const Term& t, const DenseView& y) { return t.isScaledDense() && t.a.view.scalar == y.scalar; }

}  // namespace

bool needsTemporary(const Term* terms, int count, const DenseView& y, Store store) {
  const Extent written = extentOf(y);
  int readers = 0;
  for (int i = 0; i < count; ++i) {
    if (readsWhatItOverwrites(terms[i], y, written)) return true;
    readers += reads(terms[i], y, written);
  }
  // One term of y's own entries is read by the first launch; with += every launch reads y before it is complete.
  return readers > 1 || (readers == 1 && count > 1 && store != Store::kSet);
}

void evaluate(const Term* terms, int count, const DenseView& y, MemoryBlock* block, Store store, Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  const DeviceGuard guard(context.device());
  for (int i = 0; i < count; ++i) {
    for (MemoryBlock* operand : {terms[i].a.block, terms[i].b.block, terms[i].w.block, terms[i].biasBlock})
      beginRead(operand, context);
  }
  if (block) block->beginWrite(context);

  const float sign = store == Store::kSubtract ? -1.0f : 1.0f;
  bool accumulate = store != Store::kSet;
  const Schedule s = orderOf(terms, count, y);
  for (int i = 0; i < s.count; ++i) {
    const Term& t = *s.term[i];
    Epilogue e = t.epilogue;
    e.sign *= sign;
    if (accumulate) {
      e.residual = asConst(y);
      e.residualSign = 1;
    } else if (i + 1 < s.count && mayRideAlong(*s.term[i + 1], y)) {
      const Term& rider = *s.term[++i];
      e.residual = rider.a.view;
      e.residualSign = sign * rider.epilogue.sign * rider.epilogue.alpha;
    }
    launch(t, y, e, context);
    accumulate = true;
  }
}

void setZero(const DenseView& y, Context& context) {
  if (y.rows == 0 || y.cols == 0) return;
  const DeviceGuard guard(context.device());
  const std::size_t size = sizeOf(y.scalar);
  const bool rowMajor = y.colStride == 1 && y.rowStride != 1;
  const Index inner = rowMajor ? y.cols : y.rows, outer = rowMajor ? y.rows : y.cols;
  const Index innerStride = rowMajor ? y.colStride : y.rowStride, outerStride = rowMajor ? y.rowStride : y.colStride;
  const auto bytes = [size](Index n) { return static_cast<std::size_t>(n) * size; };
  if (innerStride == 1 && (outer == 1 || outerStride == inner)) {
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(y.data, 0, bytes(inner * outer), context.stream()));
  } else if (innerStride == 1) {
    EIGENQ_CUDA_CHECK(cudaMemset2DAsync(y.data, bytes(outerStride), 0, bytes(inner), static_cast<std::size_t>(outer),
                                        context.stream()));
  } else {
    for (Index j = 0; j < outer; ++j)
      EIGENQ_CUDA_CHECK(cudaMemset2DAsync(static_cast<char*>(y.data) + bytes(j * outerStride), bytes(innerStride), 0,
                                          size, static_cast<std::size_t>(inner), context.stream()));
  }
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
