// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Arena
#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <cstring>
#include <vector>

#include <unsupported/eigen_q/Autodiff>

using EigenQ::ad::Arena;

BOOST_AUTO_TEST_CASE(everyAllocationIsAlignedAndItsOwn) {
  Arena arena;
  std::vector<std::pair<unsigned char*, std::size_t>> pieces;
  for (std::size_t bytes : std::vector<std::size_t>{1, 63, 64, 65, 0, 100000, 7, 1 << 20, 3}) {
    auto* p = static_cast<unsigned char*>(arena.allocate(bytes));
    BOOST_TEST(reinterpret_cast<std::uintptr_t>(p) % Arena::kAlignment == 0u);
    std::memset(p, static_cast<int>(pieces.size()), bytes);
    pieces.emplace_back(p, bytes);
  }
  for (std::size_t i = 0; i < pieces.size(); ++i)
    for (std::size_t k = 0; k < pieces[i].second; ++k) BOOST_REQUIRE(pieces[i].first[k] == i);
}

BOOST_AUTO_TEST_CASE(rewindingRepeatsTheSameAddresses) {
  Arena arena;
  arena.allocate(100);
  const Arena::Mark mark = arena.mark();
  const std::vector<std::size_t> sizes{10, 50000, 200000, 64, 90000};
  std::vector<void*> first, second;
  for (std::size_t bytes : sizes) first.push_back(arena.allocate(bytes));
  const std::size_t reserved = arena.bytesReserved();
  arena.rewind(mark);
  for (std::size_t bytes : sizes) second.push_back(arena.allocate(bytes));
  BOOST_TEST(first == second);
  BOOST_TEST(arena.bytesReserved() == reserved);
}

BOOST_AUTO_TEST_CASE(anImpossibleSizeIsBadAlloc) {
  Arena arena;
  BOOST_CHECK_THROW(arena.allocate(SIZE_MAX - 3), std::bad_alloc);
  BOOST_CHECK_THROW(arena.allocate<double>(SIZE_MAX / 4), std::bad_alloc);
}
