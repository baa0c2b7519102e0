// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Random
#include "Support.h"

#include <array>
#include <cmath>

using namespace EigenQ::ad;
using Eigen::MatrixXd;
using EigenQ::test::expectGradient;

namespace {

using Words = std::array<std::uint32_t, 4>;

Words philox(const Words& counter, const std::array<std::uint32_t, 2>& key) {
  const auto join = [](std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; };
  const RandomStream random{join(key[0], key[1]), join(counter[2], counter[3])};
  const auto words = random(join(counter[0], counter[1]));
  return {words[0], words[1], words[2], words[3]};
}

}  // namespace

BOOST_AUTO_TEST_CASE(philoxMatchesItsAuthorsKnownAnswers) {  // kat_vectors of Random123, philox4x32 10
  const Words zeros{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  const Words ones{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  const Words pi{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  BOOST_TEST((philox({0, 0, 0, 0}, {0, 0}) == zeros));
  BOOST_TEST((philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == ones));
  BOOST_TEST((philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) == pi));
}

BOOST_AUTO_TEST_CASE(dropoutGradientUsesTheSameMask) {
  for (auto shape : {std::make_pair<Eigen::Index, Eigen::Index>(1, 1), {7, 3}, {4, 4}, {0, 2}})
    expectGradient([](Tape<double>&, const auto& v) { return dropout(v[0], 0.3); }, {shape});
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(9, 9)), y = dropout(x, 0.3);
  tape.backward(sum(y));
  BOOST_TEST((x.grad() == y.value()));
}

BOOST_AUTO_TEST_CASE(theMaskIsAFunctionOfSeedAndOpCount) {
  const MatrixXd ones = MatrixXd::Ones(13, 7);
  const auto masks = [&](std::uint64_t seed) {
    Tape<double> tape(seed);
    MatrixXd first = dropout(tape.constant(ones), 0.5).value();
    tape.clear();  // the stream goes on
    const NoGradGuard<double> guard(tape);
    MatrixXd second = dropout(tape.constant(ones), 0.5).value();
    return std::make_pair(first, second);
  };
  const auto a = masks(1), again = masks(1), other = masks(2);
  BOOST_TEST((a.first == again.first && a.second == again.second));
  BOOST_TEST((a.first != a.second));
  BOOST_TEST((a.first != other.first));
}

BOOST_AUTO_TEST_CASE(aFractionPIsDroppedAndTheRestScaled) {
  const double p = 0.2;
  const Eigen::Index n = 100000;
  Tape<float> tape(5);
  const Eigen::MatrixXf y = dropout(tape.constant(Eigen::MatrixXf::Ones(n, 1)), p).value();
  const double dropped = static_cast<double>((y.array() == 0).count());
  // Five standard deviations of a binomial count: one seed in two million would fail.
  BOOST_TEST(std::abs(dropped - p * n) < 5 * std::sqrt(n * p * (1 - p)));
  BOOST_TEST((y.array() == 0 || y.array() == 1.25f).all());
}

BOOST_AUTO_TEST_CASE(withoutDropoutNothingIsRecordedOrDrawn) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(2, 2));
  const std::size_t nodes = tape.nodeCount();
  BOOST_TEST(dropout(x, 0).value().data() == x.value().data());
  BOOST_TEST(tape.nodeCount() == nodes);
  BOOST_TEST(tape.nextRandomStream().stream == 0u);
  for (double p : {-0.1, 1.0, std::nan("")}) BOOST_CHECK_THROW(dropout(x, p), std::invalid_argument);
}
