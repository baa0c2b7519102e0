// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Arena
#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <unsupported/eigen_q/Autodiff>

using EigenQ::ad::Arena;
using EigenQ::ad::HostMemory;
using EigenQ::ad::Pool;

namespace {

/** A pool of host memory, and a random sequence of requests and releases in it. */
struct RandomUse {
  struct Piece {
    unsigned char* data;
    std::size_t bytes;
  };

  Piece take(std::size_t bytes) {
    const auto p = pool.take(bytes, [](std::size_t size) { return std::make_unique<HostMemory>(size); });
    return {p.block->data() + p.offset, bytes};
  }

  /** \returns where each request landed. Every byte that is handed out is written, and checked when it is given back.
   */
  std::vector<unsigned char*> run(std::uint64_t seed) {
    const EigenQ::ad::RandomStream random{seed, 0};
    std::vector<Piece> live;
    std::vector<unsigned char*> places;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      const auto words = random(i);
      if (live.empty() || words[0] % 100 < 52) {
        live.push_back(take(words[1] % 3 == 0 ? words[2] % 100000 : words[2] % 200));
        std::memset(live.back().data, static_cast<int>(places.size() % 251), live.back().bytes);
        marks.push_back(places.size() % 251);
        places.push_back(live.back().data);
      } else {
        const auto k = static_cast<std::ptrdiff_t>(words[1] % live.size());
        give(live[static_cast<std::size_t>(k)], marks[static_cast<std::size_t>(k)]);
        live.erase(live.begin() + k);
        marks.erase(marks.begin() + k);
      }
    }
    for (std::size_t k = 0; k < live.size(); ++k) give(live[k], marks[k]);
    marks.clear();
    return places;
  }

  void give(const Piece& piece, std::size_t mark) {
    for (std::size_t k = 0; k < piece.bytes; ++k) BOOST_REQUIRE(piece.data[k] == mark);
    pool.give(piece.data, piece.bytes);
  }

  Pool<HostMemory> pool;
  std::vector<std::size_t> marks;
};

}  // namespace

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

BOOST_AUTO_TEST_CASE(piecesOfAPoolDoNotOverlap) {
  RandomUse use;
  const auto places = use.run(1);
  for (const unsigned char* p : places) BOOST_TEST(reinterpret_cast<std::uintptr_t>(p) % HostMemory::kAlignment == 0u);
}

BOOST_AUTO_TEST_CASE(afterClearAPoolRepeatsTheSameAddresses) {
  RandomUse use;
  const auto first = use.run(2);
  const std::size_t reserved = use.pool.bytesReserved();
  for (int step = 0; step < 2; ++step) {
    use.pool.clear();
    BOOST_TEST((use.run(2) == first));
    BOOST_TEST(use.pool.bytesReserved() == reserved);
  }
}

BOOST_AUTO_TEST_CASE(neighboursInAPoolBecomeOneRange) {
  RandomUse use;
  const std::size_t quarter = HostMemory::kFirstBlock / 4;
  for (const auto& order : std::vector<std::vector<std::size_t>>{{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    std::vector<RandomUse::Piece> pieces;
    for (int i = 0; i < 3; ++i) pieces.push_back(use.take(quarter));
    const auto last = use.take(quarter);
    for (const std::size_t i : order) use.pool.give(pieces[i].data, quarter);
    const auto whole = use.take(3 * quarter);
    BOOST_TEST(whole.data == pieces[0].data);
    use.pool.give(whole.data, 3 * quarter);
    use.pool.give(last.data, quarter);
  }
  BOOST_TEST(use.pool.bytesReserved() == HostMemory::kFirstBlock);
}

BOOST_AUTO_TEST_CASE(aPoolTakesTheSmallestRangeThatFits) {
  RandomUse use;
  const auto wide = use.take(1024), wall = use.take(64), narrow = use.take(128), end = use.take(64);
  use.pool.give(wide.data, 1024);
  use.pool.give(narrow.data, 128);
  BOOST_TEST(use.take(100).data == narrow.data);
  BOOST_TEST(use.take(0).data == wide.data);  // nothing is an address of its own, too
  (void)wall;
  (void)end;
}
