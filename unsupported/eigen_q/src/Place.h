// SPDX-License-Identifier: MPL-2.0
// Where the matrices of a tape live. The graph is the same everywhere: nodes, pullbacks and the walk are on the host; a
// place says what a matrix is, where its memory comes from and how an expression is stored into it.
#ifndef EIGENQ_AD_PLACE_H
#define EIGENQ_AD_PLACE_H

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>

#include <Eigen/Core>

#include "Arena.h"
#include "HostProduct.h"
#include "Pool.h"

namespace EigenQ {
namespace ad {

struct Host;

template <typename Scalar, typename Place = Host>
class Tape;
template <typename Scalar, typename Place = Host>
class Var;
template <typename Scalar, typename Place = Host>
class Parameter;
template <typename Scalar, typename Place = Host>
class Scratch;
template <typename Scalar, typename Place = Host>
class ArenaMatrix;

namespace internal {
/** Products and coefficient-wise expressions alike as something that can be assigned to a matrix. */
template <typename Xpr>
decltype(auto) asMatrix(const Xpr& xpr) {
  if constexpr (std::is_base_of_v<Eigen::ArrayBase<Xpr>, Xpr>)
    return xpr.matrix();
  else
    return (xpr);
}

/** What an op needs and each place does in its own way; ops/helpers.h. */
template <typename Place>
struct OpsOn;
}  // namespace internal

/** Eigen's matrices. */
struct Host {
  template <typename Scalar>
  using Matrix = Eigen::MatrixX<Scalar>;
  template <typename Scalar>
  using Map = Eigen::Map<Eigen::MatrixX<Scalar>>;
  template <typename Scalar>
  using ConstMap = Eigen::Map<const Eigen::MatrixX<Scalar>>;
  using Integers = Eigen::Map<const Eigen::VectorXi>;
  /** What scales a matrix. */
  template <typename Scalar>
  using Factor = Scalar;
  /** How a node refers to entries: unlike a Map it can be made to point elsewhere. */
  template <typename T>
  using Pointer = T*;

  template <typename Matrix>
  static auto pointerTo(Matrix& m) {
    return m.data();
  }
  template <typename T>
  static auto map(T* p, Eigen::Index rows, Eigen::Index cols) {
    using Scalar = std::remove_const_t<T>;
    return std::conditional_t<std::is_const_v<T>, ConstMap<Scalar>, Map<Scalar>>(p, rows, cols);
  }
  template <typename Scalar>
  static ConstMap<Scalar> readOnly(const Eigen::Map<Eigen::MatrixX<Scalar>>& m) {
    return {m.data(), m.rows(), m.cols()};
  }
  template <typename Scalar, typename Derived>
  static Matrix<Scalar> fromHost(const Eigen::DenseBase<Derived>& x) {
    return Matrix<Scalar>(x.derived());
  }
  template <typename Scalar>
  static const Eigen::MatrixX<Scalar>& toHost(const Eigen::MatrixX<Scalar>& m) {
    return m;
  }
  /** Whether an expression would have to be copied from another place. */
  template <typename Xpr>
  static constexpr bool kIsElsewhere = false;

  /** What a tape allocates from, and how it writes there. */
  class Memory {
   public:
    using Mark = Arena::Mark;
    using ValuesMark = Arena::Mark;
    /** While it lives, statements of an op run where the tape's matrices are. */
    struct Scope {
      explicit Scope(const Memory&) {}
    };

    /** Room for \a n objects until rewindValues() or clear(); payloads are in host memory in every place. */
    template <typename T>
    T* allocatePayload(std::size_t n) {
      return m_values.allocate<T>(n);
    }
    template <typename T>
    T* allocate(std::size_t n) {
      return m_values.allocate<T>(n);
    }
    ValuesMark valuesMark() const { return m_values.mark(); }
    void rewindValues(ValuesMark mark) { m_values.rewind(mark); }
    /** Room until release() or clear(), whichever comes first. */
    template <typename T>
    T* allocatePooled(std::size_t n) {
      if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
      const auto p = m_pool.take(n * sizeof(T), [](std::size_t bytes) { return std::make_unique<HostMemory>(bytes); });
      return reinterpret_cast<T*>(p.block->data() + p.offset);
    }
    /** \param n  as it was asked for. */
    template <typename T>
    void release(const T* p, std::size_t n) {
      m_pool.give(p, n * sizeof(T));
    }
    /** Room until rewind(). */
    template <typename T>
    T* allocateScratch(std::size_t n) {
      return m_scratch.allocate<T>(n);
    }
    Mark mark() const { return m_scratch.mark(); }
    void rewind(Mark mark) { m_scratch.rewind(mark); }
    void clear() {
      m_values.rewind({});
      m_pool.clear();
    }
    std::size_t bytesReserved() const {
      return m_values.bytesReserved() + m_pool.bytesReserved() + m_scratch.bytesReserved();
    }

    Integers keep(const Eigen::Ref<const Eigen::VectorXi>& integers) {
      int* const data = m_values.allocate<int>(static_cast<std::size_t>(integers.size()));
      Eigen::Map<Eigen::VectorXi>(data, integers.size()) = integers;
      return {data, integers.size()};
    }

    /** y = or += xpr, which does not read y. */
    template <typename Scalar, typename Xpr>
    static void store(Eigen::Map<Eigen::MatrixX<Scalar>> y, const Xpr& xpr, bool accumulate) {
      using Product = internal::FloatProductOf<Xpr>;
      if constexpr (Product::value)
        internal::multiplyFloats(y, EigenQ::internal::viewOf(Product::product(xpr).lhs()),
                                 EigenQ::internal::viewOf(Product::product(xpr).rhs()), Product::factor(xpr),
                                 accumulate);
      else if (accumulate)
        y.noalias() += internal::asMatrix(xpr);
      else
        y.noalias() = internal::asMatrix(xpr);
    }
    template <typename Scalar>
    void setZero(Eigen::Map<Eigen::MatrixX<Scalar>> y) {
      y.setZero();
    }
    template <typename Scalar>
    Matrix<Scalar> one() const {
      return Matrix<Scalar>::Ones(1, 1);
    }
    template <typename Scalar>
    Scalar read(const Eigen::Map<const Eigen::MatrixX<Scalar>>& x) const {
      return x(0, 0);
    }

   private:
    Arena m_values;           // values, payloads
    Pool<HostMemory> m_pool;  // gradients, and values that outlive their segment
    Arena m_scratch;          // what lives no longer than one op
  };
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_AD_PLACE_H
