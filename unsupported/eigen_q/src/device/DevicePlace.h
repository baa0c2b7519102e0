// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_AD_DEVICE_PLACE_H
#define EIGENQ_AD_DEVICE_PLACE_H

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include <eigen_q/Cuda>

#include "../Place.h"

namespace EigenQ {
namespace ad {

namespace internal {
/** A block of device memory. */
class DeviceMemory : public gpu::internal::MemoryBlock {
 public:
  static constexpr std::size_t kAlignment = 256;  // as cudaMalloc; kernels load 16 bytes at a time at most
  static constexpr std::size_t kFirstBlock = std::size_t(1) << 20;
  // Doubling stops here; larger requests fit exactly. A step of a large model needs gigabytes: blocks of 64 MiB, as on
  // the host, would leave more of their ends unused.
  static constexpr std::size_t kLargestGrowth = std::size_t(1) << 28;

  using gpu::internal::MemoryBlock::MemoryBlock;
};

template <typename Derived>
std::true_type isEigen(const Eigen::EigenBase<Derived>*);
std::false_type isEigen(const void*);
}  // namespace internal

/** Matrices in the memory of a CUDA device. Nodes, pullbacks and the walk are on the host; what they queue runs on the
 * stream of the tape's gpu::Context, and nothing waits for it but Var::item() and toHost(). */
struct Device {
  using Context = gpu::Context;
  template <typename Scalar>
  using Matrix = gpu::DeviceMatrix<Scalar>;
  template <typename Scalar>
  using Map = gpu::DeviceView<Scalar>;
  template <typename Scalar>
  using ConstMap = gpu::DeviceView<const Scalar>;
  using Integers = gpu::DeviceView<const int>;
  template <typename Scalar>
  using Factor = float;

  template <typename T>
  struct Pointer {
    T* data = nullptr;
    gpu::internal::MemoryBlock* block = nullptr;

    Pointer() = default;
    Pointer(T* data_, gpu::internal::MemoryBlock* block_) : data(data_), block(block_) {}
    template <typename Other, std::enable_if_t<std::is_same_v<const Other, T>, int> = 0>
    Pointer(const Pointer<Other>& other) : data(other.data), block(other.block) {}
    explicit operator bool() const { return data != nullptr; }
  };

  template <typename Matrix>
  static auto pointerTo(Matrix& m) {
    const auto view = m.view();
    return Pointer<std::remove_pointer_t<decltype(view.data())>>(view.data(), view.memory());
  }
  template <typename T>
  static gpu::DeviceView<T> map(const Pointer<T>& p, Eigen::Index rows, Eigen::Index cols) {
    return {p.data, rows, cols, 1, rows, p.block};
  }
  template <typename Scalar>
  static gpu::DeviceView<const Scalar> readOnly(const gpu::DeviceView<Scalar>& m) {
    return m;
  }
  template <typename Scalar, typename Derived>
  static Matrix<Scalar> fromHost(const Eigen::DenseBase<Derived>& x) {
    return Matrix<Scalar>::fromHost(x);
  }
  template <typename Scalar>
  static Eigen::MatrixX<Scalar> toHost(const gpu::DeviceMatrix<Scalar>& m) {
    return m.toHost();
  }
  template <typename Xpr>
  static constexpr bool kIsElsewhere = decltype(internal::isEigen(static_cast<Xpr*>(nullptr)))::value;

  class Memory {
    using Blocks = MonotonicBlocks<internal::DeviceMemory>;

   public:
    using Mark = Blocks::Mark;
    struct ValuesMark {
      Blocks::Mark values;
      Arena::Mark payloads;
    };
    /** Makes the tape's context the thread's current one. */
    class Scope {
     public:
      explicit Scope(const Memory& memory) : m_guard(memory.context()) {}

     private:
      gpu::ContextGuard m_guard;
    };

    explicit Memory(Context& context = Context::current()) : m_context(&context) {}

    Context& context() const { return *m_context; }

    template <typename T>
    T* allocatePayload(std::size_t n) {
      return m_payloads.allocate<T>(n);
    }
    template <typename T>
    Pointer<T> allocate(std::size_t n) {
      return take<T>(m_values, n);
    }
    // What is queued still reads and writes memory that is given back here and below; so is, behind it, whatever uses
    // it next.
    ValuesMark valuesMark() const { return {m_values.mark(), m_payloads.mark()}; }
    void rewindValues(const ValuesMark& mark) {
      m_values.rewind(mark.values);
      m_payloads.rewind(mark.payloads);
    }
    template <typename T>
    Pointer<T> allocatePooled(std::size_t n) {
      return take<T>(m_pool, n);
    }
    template <typename T>
    void release(const Pointer<T>& p, std::size_t n) {
      m_pool.give(p.data, n * sizeof(T));
    }
    template <typename T>
    Pointer<T> allocateScratch(std::size_t n) {
      return take<T>(m_scratch, n);
    }
    Mark mark() const { return m_scratch.mark(); }
    void rewind(Mark mark) { m_scratch.rewind(mark); }
    void clear() {
      m_values.rewind({});
      m_payloads.rewind({});
      m_pool.clear();
      m_integers.rewind({});
      m_kept.clear();
    }
    std::size_t bytesReserved() const {
      return m_values.bytesReserved() + m_pool.bytesReserved() + m_scratch.bytesReserved();
    }

    /** Layers ask for the same positions and offsets again and again; they are uploaded once, and outlive the segment
     * of the checkpoint that asked first. */
    Integers keep(const Eigen::Ref<const Eigen::VectorXi>& integers) {
      for (const Kept& kept : m_kept)
        if (kept.host.size() == integers.size() && (kept.host.array() == integers.array()).all()) return kept.device;
      const auto n = static_cast<std::size_t>(integers.size());
      int* const host = m_integers.allocate<int>(n);
      std::copy(integers.data(), integers.data() + n, host);
      const Pointer<int> device = allocatePooled<int>(n);
      device.block->beginWrite(*m_context);
      gpu::internal::upload(device.data, host, n * sizeof(int), *m_context);
      m_kept.push_back({{host, integers.size()}, map(Pointer<const int>(device), integers.size(), 1)});
      return m_kept.back().device;
    }

    template <typename Scalar, typename Xpr>
    void store(gpu::DeviceView<Scalar> y, const Xpr& xpr, bool accumulate) {
      if constexpr (kIsElsewhere<Xpr>) {
        eigen_assert(!accumulate);
        y.copyFromHost(xpr, *m_context);
      } else if (accumulate) {
        y.noalias().device(*m_context) += xpr;
      } else {
        y.noalias().device(*m_context) = xpr;
      }
    }
    template <typename Scalar>
    void setZero(gpu::DeviceView<Scalar> y) {
      y.setZero(*m_context);
    }
    template <typename Scalar>
    Matrix<Scalar> one() const {
      return Matrix<Scalar>::fromHost(Eigen::MatrixX<Scalar>::Ones(1, 1), *m_context);
    }
    /** Waits for the stream. */
    template <typename Scalar>
    Scalar read(const gpu::DeviceView<const Scalar>& x) const {
      x.memory()->beginRead(*m_context);
      Scalar value;
      gpu::internal::download(&value, x.data(), sizeof value, *m_context);
      return value;
    }

   private:
    struct Kept {
      Eigen::Map<const Eigen::VectorXi> host;
      Integers device;
    };

    template <typename T, typename From>
    Pointer<T> take(From& memory, std::size_t n) {
      static_assert(alignof(T) <= internal::DeviceMemory::kAlignment);
      if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
      const auto p = memory.take(n * sizeof(T), [this](std::size_t bytes) {
        return std::make_unique<internal::DeviceMemory>(bytes, *m_context);
      });
      return {reinterpret_cast<T*>(static_cast<unsigned char*>(p.block->data()) + p.offset), p.block};
    }

    Context* m_context;
    Arena m_payloads;  // host memory: pullbacks
    Arena m_integers;  // host memory: those of m_kept
    Blocks m_values;
    Pool<internal::DeviceMemory> m_pool;  // gradients, integers, values that outlive their segment
    Blocks m_scratch;
    std::vector<Kept> m_kept;
  };
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_AD_DEVICE_PLACE_H
