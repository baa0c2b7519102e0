// SPDX-License-Identifier: MPL-2.0
// A hash table from pairs of ids to merges: the inner loop of BPE does little else than look here.
#ifndef EIGENQ_TOKENIZER_PAIR_TABLE_H
#define EIGENQ_TOKENIZER_PAIR_TABLE_H

#include <cstdint>
#include <vector>

namespace EigenQ {
namespace llm {
namespace internal {

/** Two neighbouring tokens that become one. */
struct Merge {
  std::uint32_t rank;  // lower merges first
  int token;           // what they become
};

/** Open addressing with linear probing, at most half full. */
class PairTable {
 public:
  explicit PairTable(std::size_t capacity) {
    std::size_t slots = 2;
    while (slots < 2 * capacity) slots *= 2;
    m_slots.resize(slots);
  }

  /** The merge of a pair; a later one of the same pair replaces the earlier. At most `capacity` different pairs. */
  void set(int left, int right, Merge merge) {
    Slot& slot = m_slots[slotOf(key(left, right))];
    slot = {key(left, right), merge};
  }

  /** Null if the pair does not merge. */
  const Merge* find(int left, int right) const {
    const Slot& slot = m_slots[slotOf(key(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no pair: ids are not negative
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge{};
  };

  static std::uint64_t key(int left, int right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  /** Where \a key is, or the free slot where it would be. */
  std::size_t slotOf(std::uint64_t key) const {
    constexpr std::uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;  // Knuth's multiplicative hash: the high bits mix best
    std::size_t slot = static_cast<std::size_t>((key * kGoldenRatio) >> 32) & (m_slots.size() - 1);
    while (m_slots[slot].key != kEmpty && m_slots[slot].key != key) slot = (slot + 1) & (m_slots.size() - 1);
    return slot;
  }

  std::vector<Slot> m_slots;
};

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ

#endif  // EIGENQ_TOKENIZER_PAIR_TABLE_H
