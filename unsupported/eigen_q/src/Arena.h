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

/** Monotonic memory: allocation is a bump of an offset, release is a rewind to a mark. Blocks are kept, so a program
 * that repeats its sequence of allocations asks the system only the first time.
 *
 * Raw memory: whoever constructs an object here destroys it before rewinding past it. Not thread-safe. */
class Arena {
 public:
  static constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector load of today's CPUs
  static constexpr std::size_t kFirstBlock = std::size_t(1) << 16;
  static constexpr std::size_t kLargestGrowth = std::size_t(1)
                                                << 26;  // doubling stops here; larger requests fit exactly

  /** A position to return to. Marks are rewound in the reverse order of their making. */
  struct Mark {
    std::size_t block = 0;
    std::size_t used = 0;
  };

  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /** \returns \a bytes bytes, uninitialised, aligned to kAlignment; never null. Throws std::bad_alloc. */
  void* allocate(std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() - kAlignment) throw std::bad_alloc();
    const std::size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    // A block too small for this request is skipped, not searched again: the order of requests alone decides where
    // each lands, which is what makes the second step of a training loop allocate nothing.
    while (m_top.block < m_blocks.size() && m_blocks[m_top.block].size - m_top.used < size)
      m_top = {m_top.block + 1, 0};
    if (m_top.block == m_blocks.size()) addBlock(size);
    void* const p = m_blocks[m_top.block].memory.get() + m_top.used;
    m_top.used += size;
    return p;
  }

  /** \returns room for \a n objects of type T, uninitialised. */
  template <typename T>
  T* allocate(std::size_t n) {
    static_assert(alignof(T) <= kAlignment, "Arena: the type asks for a stricter alignment than the arena gives");
    if (n > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_alloc();
    return static_cast<T*>(allocate(n * sizeof(T)));
  }

  Mark mark() const { return m_top; }
  void rewind(Mark mark) { m_top = mark; }

  /** Bytes held from the system. */
  std::size_t bytesReserved() const {
    std::size_t sum = 0;
    for (const Block& block : m_blocks) sum += block.size;
    return sum;
  }

 private:
  struct Release {
    void operator()(unsigned char* p) const { ::operator delete (p, std::align_val_t{kAlignment}); }
  };
  struct Block {
    std::unique_ptr<unsigned char, Release> memory;
    std::size_t size;
  };

  void addBlock(std::size_t atLeast) {
    const std::size_t grown = m_blocks.empty() ? kFirstBlock : std::min(2 * m_blocks.back().size, kLargestGrowth);
    const std::size_t size = std::max(atLeast, grown);
    std::unique_ptr<unsigned char, Release> memory(
        static_cast<unsigned char*>(::operator new (size, std::align_val_t{kAlignment})));
    m_blocks.push_back(Block{std::move(memory), size});
  }

  std::vector<Block> m_blocks;
  Mark m_top;
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_ARENA_H
