// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE CachedAttention
#include "Support.h"

#include <limits>
#include <stdexcept>
#include <string>

using namespace EigenQ::ad;
using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXi;
using EigenQ::test::expectClose;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;

namespace {

/** Sequences as a whole, packed, and what causalAttention makes of them. */
struct Sequences {
  AttentionHeads heads;
  VectorXi offsets;
  MatrixXd q, k, v, o;

  Sequences(const AttentionHeads& h, const VectorXi& wholeOffsets) : heads(h), offsets(wholeOffsets) {
    const Index tokens = offsets(offsets.size() - 1);
    q = 2 * randomMatrix(h.heads * h.headDim, tokens, 1);
    k = 2 * randomMatrix(h.kvHeads * h.headDim, tokens, 2);
    v = randomMatrix(h.kvHeads * h.headDim, tokens, 3);
    Tape<double> tape;
    o = causalAttention(tape.constant(q), tape.constant(k), tape.constant(v), h, offsets).value();
  }
  Index count() const { return offsets.size() - 1; }
  int length(Index s) const { return offsets(s + 1) - offsets(s); }
};

/** A cache that is filled in steps, each compared with the whole. Entries that nobody has written are NaN. */
struct Steps {
  const Sequences& whole;
  AttentionCache<double> cache;
  VectorXi lengths;
  Tape<double> tape;

  Steps(const Sequences& sequences, Index capacity)
      : whole(sequences),
        cache(sequences.heads, sequences.count(), capacity),
        lengths(VectorXi::Zero(sequences.count())) {
    cache.mutableKeys().setConstant(std::numeric_limits<double>::quiet_NaN());
    cache.mutableValues().setConstant(std::numeric_limits<double>::quiet_NaN());
  }

  /** Sequence s brings the next counts(s) of its tokens. */
  void append(const VectorXi& counts) {
    VectorXi offsets = VectorXi::Zero(counts.size() + 1);
    for (Index s = 0; s < counts.size(); ++s) offsets(s + 1) = offsets(s) + counts(s);
    run(tokensBehind(lengths, offsets), offsets);
    lengths += counts;
  }
  /** One token a sequence, without offsets. */
  void appendOne() {
    run(tokensBehind(lengths), VectorXi::LinSpaced(lengths.size() + 1, 0, static_cast<int>(lengths.size())));
    lengths.array() += 1;
  }

 private:
  void run(const CachedTokens<>& tokens, const VectorXi& offsets) {
    tape.clear();
    const NoGradGuard<double> guard(tape);
    const auto pick = [&](const MatrixXd& m) {
      MatrixXd columns(m.rows(), offsets(offsets.size() - 1));
      for (Index s = 0; s + 1 < offsets.size(); ++s)
        columns.middleCols(offsets(s), offsets(s + 1) - offsets(s)) =
            m.middleCols(whole.offsets(s) + lengths(s), offsets(s + 1) - offsets(s));
      return columns;
    };
    appendToCache(cache, tape.constant(pick(whole.k)), tape.constant(pick(whole.v)), tokens);
    const Var<double> o = cachedAttention(tape.constant(pick(whole.q)), cache, tokens);
    expectClose(o.value(), pick(whole.o), 1e-13);
  }
};

std::string messageOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing thrown";
}

}  // namespace

BOOST_AUTO_TEST_CASE(stepByStepIsTheWhole) {
  for (const Index window : {0, 1, 3, 64, 100})
    for (const auto& heads : {AttentionHeads{4, 2, 3, window}, AttentionHeads{3, 1, 2, window}}) {
      const Sequences whole(heads, integers({0, 140, 141, 150}));
      Steps steps(whole, 140);
      steps.append(integers({130, 1, 5}));  // more than two blocks of queries
      steps.append(integers({0, 0, 3}));    // not every sequence brings a token
      steps.append(integers({9, 0, 1}));
      steps.append(integers({1, 0, 0}));
      BOOST_TEST((steps.lengths.array() == integers({140, 1, 9}).array()).all());
    }
}

BOOST_AUTO_TEST_CASE(oneTokenASequence) {
  for (const Index window : {0, 4}) {
    const Sequences whole({4, 2, 3, window}, integers({0, 12, 20}));
    Steps steps(whole, 12);
    steps.append(integers({5, 1}));
    for (int n = 0; n < 7; ++n) steps.appendOne();
    BOOST_TEST((steps.lengths.array() == integers({12, 8}).array()).all());
  }
}

// A sequence that has ended makes room for another: what it left behind is not seen.
BOOST_AUTO_TEST_CASE(sequencesStartAnew) {
  const Sequences whole({2, 1, 2}, integers({0, 9, 15}));
  Steps steps(whole, 9);
  steps.append(integers({9, 6}));
  steps.lengths(1) = 0;
  steps.append(integers({0, 4}));
  steps.append(integers({0, 2}));
}

BOOST_AUTO_TEST_CASE(stepsWithoutTokens) {
  const Sequences whole({2, 1, 2}, integers({0, 3, 3}));
  Steps steps(whole, 3);
  steps.append(integers({0, 0}));
  steps.append(integers({3, 0}));
  const Sequences none({2, 1, 2}, integers({0}));
  Steps empty(none, 0);
  empty.append(VectorXi());
  empty.appendOne();
}

BOOST_AUTO_TEST_CASE(otherTokensAreLeftAlone) {
  AttentionCache<double> cache({1, 1, 2}, 2, 4);
  cache.mutableKeys().setConstant(7);
  cache.mutableValues().setConstant(8);
  Tape<double> tape;
  const Var<double> k = tape.constant(MatrixXd::Constant(2, 3, 1)), v = tape.constant(MatrixXd::Constant(2, 3, 2));
  appendToCache(cache, k, v, tokensBehind(integers({3, 1}), integers({0, 1, 3})));
  MatrixXd keys = MatrixXd::Constant(2, 8, 7), values = MatrixXd::Constant(2, 8, 8);
  for (const Index column : {3, 5, 6}) {
    keys.col(column).setConstant(1);
    values.col(column).setConstant(2);
  }
  BOOST_TEST((cache.keys() == keys));
  BOOST_TEST((cache.values() == values));
}

BOOST_AUTO_TEST_CASE(capacityThatIsExceededIsNamed) {
  AttentionCache<double> cache({1, 1, 2}, 3, 4);
  cache.mutableKeys().setZero();
  cache.mutableValues().setZero();
  Tape<double> tape;
  const Var<double> x = tape.constant(MatrixXd::Ones(2, 3));
  const CachedTokens<> full = tokensBehind(integers({1, 4, 0})),
                       long3 = tokensBehind(integers({0, 2, 0}), integers({0, 0, 3, 3})),
                       before = {integers({0, -1, 0}), {}};
  BOOST_CHECK_THROW(appendToCache(cache, x, x, full), std::out_of_range);
  BOOST_TEST(messageOf([&] { appendToCache(cache, x, x, full); }) ==
             "appendToCache: sequence 1: expected positions from 0 to 3, the capacity of the cache, found 4 to 4");
  BOOST_TEST(messageOf([&] { cachedAttention(x, cache, long3); }) ==
             "cachedAttention: sequence 1: expected positions from 0 to 3, the capacity of the cache, found 2 to 4");
  BOOST_CHECK_THROW(cachedAttention(x, cache, before), std::out_of_range);
  BOOST_TEST(cache.keys().isZero(0), "sequence 0 was written before sequence 1 was refused");
}

BOOST_AUTO_TEST_CASE(tokensThatDoNotFitAreRefused) {
  AttentionCache<double> cache({1, 1, 2}, 2, 8);
  Tape<double> tape;
  const Var<double> x = tape.constant(MatrixXd::Ones(2, 4));
  const auto attempt = [&](const VectorXi& positions, const VectorXi& offsets) {
    appendToCache(cache, x, x, {positions, offsets});
  };
  const VectorXi positions = integers({0, 1, 5, 6});
  BOOST_CHECK_NO_THROW(attempt(positions, integers({0, 2, 4})));
  BOOST_CHECK_THROW(attempt(integers({0, 1, 2}), integers({0, 2, 4})), std::invalid_argument);
  BOOST_CHECK_THROW(attempt(positions, integers({0, 4})), std::invalid_argument);
  BOOST_CHECK_THROW(attempt(positions, integers({0, 1, 2})), std::invalid_argument);
  BOOST_CHECK_THROW(attempt(positions, integers({0, 5, 4})), std::invalid_argument);
  BOOST_CHECK_THROW(attempt(positions, integers({0, 3, 4})), std::invalid_argument);  // 0, 1, 5
  BOOST_CHECK_THROW(attempt(positions, {}), std::invalid_argument);                   // four tokens, two sequences
}

BOOST_AUTO_TEST_CASE(badSizesAreRefused) {
  using Cache = AttentionCache<double>;
  BOOST_CHECK_THROW(Cache({3, 2, 2}, 1, 1), std::invalid_argument);
  BOOST_CHECK_THROW(Cache({2, 2, 2, -1}, 1, 1), std::invalid_argument);
  BOOST_CHECK_THROW(Cache({2, 2, 2}, -1, 1), std::invalid_argument);
  BOOST_CHECK_THROW(Cache({2, 2, 2}, 1, -1), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(gradientsAreRefused) {
  AttentionCache<double> cache({1, 1, 2}, 3, 4);
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(2, 3));
  const CachedTokens<> tokens = tokensBehind(integers({0, 0, 0}));
  BOOST_CHECK_THROW(appendToCache(cache, x, x, tokens), std::logic_error);
  BOOST_CHECK_THROW(cachedAttention(x, cache, tokens), std::logic_error);
  const NoGradGuard<double> guard(tape);
  appendToCache(cache, x, x, tokens);
  const Var<double> o = cachedAttention(x, cache, tokens);
  BOOST_TEST(!o.requiresGrad());
  expectClose(o.value(), MatrixXd::Ones(2, 3), 1e-14);
}

BOOST_AUTO_TEST_CASE(ropeAndAppendIsBoth) {
  AttentionCache<double> cache({2, 1, 4}, 2, 5);
  cache.mutableKeys().setZero();
  cache.mutableValues().setZero();
  const RopeTable<double> table(4, 9);
  const CachedTokens<> tokens = tokensBehind(integers({3, 0}), integers({0, 2, 3}));
  Tape<double> tape;
  const Var<double> q = tape.constant(randomMatrix(8, 3, 1)), k = tape.constant(randomMatrix(4, 3, 2)),
                    v = tape.constant(randomMatrix(4, 3, 3));
  const Var<double> turned = ropeAndAppend(cache, q, k, v, table, tokens);
  BOOST_TEST((turned.value() == rope(q, table, tokens.positions).value()));
  const MatrixXd keys = rope(k, table, tokens.positions).value();
  BOOST_TEST((cache.keys().middleCols(3, 3) == keys));  // the last two of sequence 0, the first of sequence 1
  BOOST_TEST((cache.values().middleCols(3, 3) == v.value()));
  const Var<double> wanted = tape.variable(q.value());
  BOOST_CHECK_THROW(ropeAndAppend(cache, wanted, k, v, table, tokens), std::logic_error);
}

BOOST_AUTO_TEST_CASE(residualAndNorm) {
  EigenQ::test::expectGradient(
      [](Tape<double>&, const auto& in) {
        const auto both = addRmsNorm(in[0], in[1], in[2]);
        return cwiseProduct(both.sum, both.norm);
      },
      {{5, 3}, {5, 3}, {5, 1}});
}

BOOST_AUTO_TEST_CASE(argmaxTakesTheFirstOfTheLargest) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  MatrixXd x(4, 6);
  x.transpose() << -3, -1, -2, -1,                 // the first of two
      nan, 1, 2, 3,                                // NaN first,
      1, 2, 3, nan,                                // and last
      -infinity, -infinity, -infinity, -infinity,  //
      0, infinity, 1, infinity,                    //
      -0.0, 0.0, -1, -1;                           // equal
  Tape<double> tape;
  BOOST_TEST((argmax(tape.constant(x)).array() == integers({1, -1, -1, 0, 1, 0}).array()).all());
  BOOST_TEST(argmax(tape.constant(MatrixXd(3, 0))).size() == 0);
}
