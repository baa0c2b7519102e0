// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_POOL_H
#define EIGENQ_POOL_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "Arena.h"

namespace EigenQ {
namespace ad {

/** Memory that is given back in any order: gradients, and what outlives the segment of a checkpoint.
 *
 * A request takes the smallest free range that holds it, and ranges that touch are one: the gradient of a wide matrix
 * makes room for those of several narrow ones, which a list for each size would not. There are a few dozen ranges, so
 * they are searched one by one. Blocks are opened in the order of their making, each when nothing open has room. So
 * what is asked and given back decides alone where a request lands: the second of two equal steps lands where the first
 * did, and allocates nothing. Not thread-safe. */
template <typename Memory>
class Pool {
 public:
  /** \param make  as for BlockList::append(). */
  template <typename Make>
  BlockPosition<Memory> take(std::size_t bytes, const Make& make) {
    const std::size_t size = sizeOf(bytes);
    reserve(m_live + 1);
    auto best = smallestOf(size);
    while (best == m_free.end()) {
      if (m_open == m_blocks.size()) m_blocks.append(size, make);
      m_free.push_back({m_open, 0, m_blocks[m_open].bytes()});
      ++m_open;
      if (m_free.back().size >= size) best = m_free.end() - 1;
    }
    const BlockPosition<Memory> position{&m_blocks[best->block], best->offset};
    if (best->size == size)
      m_free.erase(best);
    else
      *best = {best->block, best->offset + size, best->size - size};
    ++m_live;
    return position;
  }

  /** \param p  what a request of \a bytes got. Does not throw: there is room for every range. */
  void give(const void* p, std::size_t bytes) {
    const Range range = rangeOf(p, sizeOf(bytes));
    const auto next = std::lower_bound(m_free.begin(), m_free.end(), range, [](const Range& a, const Range& b) {
      return a.block != b.block ? a.block < b.block : a.offset < b.offset;
    });
    const bool joinsNext = next != m_free.end() && range.touches(*next);
    const bool joinsPrevious = next != m_free.begin() && (next - 1)->touches(range);
    --m_live;
    if (joinsPrevious) {
      (next - 1)->size += range.size + (joinsNext ? next->size : 0);
      if (joinsNext) m_free.erase(next);
    } else if (joinsNext) {
      *next = {range.block, range.offset, range.size + next->size};
    } else {
      m_free.insert(next, range);
    }
  }

  /** Takes everything back, and forgets which blocks were open. */
  void clear() {
    m_free.clear();
    m_open = 0;
    m_live = 0;
  }

  std::size_t bytesReserved() const { return m_blocks.bytesReserved(); }

 private:
  /** Free bytes of one block. */
  struct Range {
    std::size_t block;
    std::size_t offset;
    std::size_t size;

    bool touches(const Range& next) const { return block == next.block && offset + size == next.offset; }
  };

  // Not 0: two requests never share an address.
  static std::size_t sizeOf(std::size_t bytes) { return BlockList<Memory>::rounded(std::max<std::size_t>(bytes, 1)); }

  /** Between \a live requests there are at most as many gaps, and one more in each block. */
  void reserve(std::size_t live) {
    const std::size_t needed = live + m_blocks.size() + 1;
    if (m_free.capacity() < needed) m_free.reserve(2 * needed);
  }

  typename std::vector<Range>::iterator smallestOf(std::size_t size) {
    auto best = m_free.end();
    for (auto range = m_free.begin(); range != m_free.end(); ++range)
      if (range->size >= size && (best == m_free.end() || range->size < best->size)) best = range;
    return best;
  }

  Range rangeOf(const void* p, std::size_t size) const {
    const auto address = [](const void* q) { return reinterpret_cast<std::uintptr_t>(q); };
    std::size_t block = 0;
    while (address(p) - address(m_blocks[block].data()) >= m_blocks[block].bytes()) ++block;
    return {block, address(p) - address(m_blocks[block].data()), size};
  }

  BlockList<Memory> m_blocks;
  std::vector<Range> m_free;  // by block and offset
  std::size_t m_open = 0;     // blocks from here on are untouched
  std::size_t m_live = 0;     // requests not given back
};

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_POOL_H
