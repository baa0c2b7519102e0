// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_ARENA_H
#define EIGENQ_ARENA_H

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <vector>

namespace EigenQ {
namespace ad {

/** Blocks of memory in the order of their making; each is twice as large as the last, up to a limit, or as large as a
 * request asks. Nothing goes back to the system.
 * \tparam Memory  one block of it: `data()`, `bytes()`, and the constants kAlignment, kFirstBlock and kLargestGrowth */
template <typename Memory>
class BlockList {
 public:
  BlockList() = default;
  BlockList(const BlockList&) = delete;
  BlockList& operator=(const BlockList&) = delete;

  /** What a request of \a bytes takes. Throws std::bad_alloc where that overflows. */
  static std::size_t rounded(std::size_t bytes) {
    constexpr std::size_t kAlignment = Memory::kAlignment;
    if (bytes > std::numeric_limits<std::size_t>::max() - kAlignment) throw std::bad_alloc();
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }

  std::size_t size() const { return m_blocks.size(); }
  Memory& operator[](std::size_t i) const { return *m_blocks[i]; }

  /** One more block. \param make  returns a std::unique_ptr<Memory> of at least the bytes it is called with. */
  template <typename Make>
  void append(std::size_t bytes, const Make& make) {
    const std::size_t grown =
        m_blocks.empty() ? Memory::kFirstBlock : std::min(2 * m_blocks.back()->bytes(), Memory::kLargestGrowth);
    m_blocks.push_back(make(std::max(bytes, grown)));
  }

  /** Bytes held from the system. */
  std::size_t bytesReserved() const {
    std::size_t sum = 0;
    for (const auto& block : m_blocks) sum += block->bytes();
    return sum;
  }

 private:
  std::vector<std::unique_ptr<Memory>> m_blocks;
};

/** Where a request landed. */
template <typename Memory>
struct BlockPosition {
  Memory* block;
  std::size_t offset;
};

/** Monotonic memory: allocation is a bump of an offset, release is a rewind to a mark. Blocks are kept, so a program
 * that repeats its sequence of allocations asks the system only the first time. Not thread-safe. */
template <typename Memory>
class MonotonicBlocks {
 public:
  /** A position to return to. Marks are rewound in the reverse order of their making. */
  struct Mark {
    std::size_t block = 0;
    std::size_t used = 0;
  };

  /** \param make  as for BlockList::append(). */
  template <typename Make>
  BlockPosition<Memory> take(std::size_t bytes, const Make& make) {
    const std::size_t size = m_blocks.rounded(bytes);
    // A block too small for this request is skipped, not searched again: the order of requests alone decides where
    // each lands, which is what makes the second step of a training loop allocate nothing.
    while (m_top.block < m_blocks.size() && m_blocks[m_top.block].bytes() - m_top.used < size)
      m_top = {m_top.block + 1, 0};
    if (m_top.block == m_blocks.size()) m_blocks.append(size, make);
    const BlockPosition<Memory> position{&m_blocks[m_top.block], m_top.used};
    m_top.used += size;
    return position;
  }

  Mark mark() const { return m_top; }
  void rewind(Mark mark) { m_top = mark; }
  std::size_t bytesReserved() const { return m_blocks.bytesReserved(); }

 private:
  BlockList<Memory> m_blocks;
  Mark m_top;
};

/** A block of host memory. */
class HostMemory {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector load of today's CPUs
  static constexpr std::size_t kFirstBlock = std::size_t(1) << 16;
  // Doubling stops here; larger requests fit exactly.
  static constexpr std::size_t kLargestGrowth = std::size_t(1) << 26;

  explicit HostMemory(std::size_t bytes)
      : m_data(static_cast<unsigned char*>(::operator new (bytes, std::align_val_t{kAlignment}))), m_bytes(bytes) {}

  unsigned char* data() const { return m_data.get(); }
  std::size_t bytes() const { return m_bytes; }

 private:
  struct Release {
    void operator()(unsigned char* p) const { ::operator delete (p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<unsigned char, Release> m_data;
  std::size_t m_bytes;
};

/** Monotonic host memory. Raw: whoever constructs an object here destroys it before rewinding past it. */
class Arena {
 public:
  static constexpr std::size_t kAlignment = HostMemory::kAlignment;
  static constexpr std::size_t kFirstBlock = HostMemory::kFirstBlock;
  static constexpr std::size_t kLargestGrowth = HostMemory::kLargestGrowth;
  using Mark = MonotonicBlocks<HostMemory>::Mark;

  /** \returns \a bytes bytes, uninitialised, aligned to kAlignment; never null. Throws std::bad_alloc. */
  void* allocate(std::size_t bytes) {
    const auto p = m_blocks.take(bytes, [](std::size_t size) { return std::make_unique<HostMemory>(size); });
    return p.block->data() + p.offset;
  }

  /** \returns room for \a n objects of type T, uninitialised. */
  template <typename T>
  T* allocate(std::size_t n) {
    static_assert(alignof(T) <= kAlignment, "Arena: the type asks for a stricter alignment than the arena gives");
    if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    return static_cast<T*>(allocate(n * sizeof(T)));
  }

  Mark mark() const { return m_blocks.mark(); }
  void rewind(Mark mark) { m_blocks.rewind(mark); }
  std::size_t bytesReserved() const { return m_blocks.bytesReserved(); }

 private:
  MonotonicBlocks<HostMemory> m_blocks;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_ARENA_H
