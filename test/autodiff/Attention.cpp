// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Attention
#include "Support.h"

#include <cmath>
#include <stdexcept>

using namespace EigenQ::ad;
using Eigen::Index;
using Eigen::MatrixXd;
using EigenQ::test::expectClose;
using EigenQ::test::expectGradient;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;

namespace {

/** One head of one sequence from the tape's elementary ops, whose gradients are checked on their own. */
Var<double> explicitAttention(const Var<double>& q, const Var<double>& k, const Var<double>& v, Index window = 0) {
  const Index n = q.cols();
  MatrixXd mask = MatrixXd::Zero(n, n);  // keys × queries
  for (Index query = 0; query < n; ++query)
    for (Index key = 0; key < n; ++key)
      if (key > query || (window > 0 && key <= query - window)) mask(key, query) = -1e30;
  const Var<double> scores = transpose(k) * q / std::sqrt(static_cast<double>(q.rows()));
  return v * softmax(scores + q.tape().constant(mask));
}

struct Qkv {
  MatrixXd q, k, v;
  Qkv(const AttentionHeads& h, Index tokens)
      : q(2 * randomMatrix(h.heads * h.headDim, tokens, 1)),
        k(2 * randomMatrix(h.kvHeads * h.headDim, tokens, 2)),
        v(randomMatrix(h.kvHeads * h.headDim, tokens, 3)) {}
};

}  // namespace

BOOST_AUTO_TEST_CASE(gradients) {
  const auto check = [](AttentionHeads h, const Eigen::VectorXi& offsets) {
    const Index tokens = offsets(offsets.size() - 1), rows = h.heads * h.headDim, kvRows = h.kvHeads * h.headDim;
    expectGradient([&](Tape<double>&, const auto& v) { return causalAttention(v[0], v[1], v[2], h, offsets); },
                   {{rows, tokens}, {kvRows, tokens}, {kvRows, tokens}});
  };
  check({1, 1, 1}, integers({0, 1}));
  check({1, 1, 3}, integers({0, 5}));
  check({4, 2, 2}, integers({0, 3, 3, 4, 7}));
  check({3, 1, 5}, integers({0, 2, 4}));
  check({2, 2, 2}, integers({0}));
  check({2, 2, 2}, integers({0, 0}));
  check({4, 2, 2, 1}, integers({0, 3, 3, 7}));
  check({3, 1, 2, 2}, integers({0, 2, 7}));
  check({2, 2, 2, 5}, integers({0, 5, 6}));
}

BOOST_AUTO_TEST_CASE(onlySomeOperandsNeedAGradient) {
  const AttentionHeads h{2, 1, 2};
  const MatrixXd q = randomMatrix(4, 3, 7), kv = randomMatrix(2, 3, 8);
  const Eigen::VectorXi offsets = integers({0, 3});
  expectGradient(
      [&](Tape<double>& t, const auto& v) { return causalAttention(v[0], t.constant(kv), t.constant(kv), h, offsets); },
      {{4, 3}});
  expectGradient(
      [&](Tape<double>& t, const auto& v) { return causalAttention(t.constant(q), v[0], t.constant(kv), h, offsets); },
      {{2, 3}});
  expectGradient(
      [&](Tape<double>& t, const auto& v) { return causalAttention(t.constant(q), t.constant(kv), v[0], h, offsets); },
      {{2, 3}});
  expectGradient(
      [&](Tape<double>&, const auto& v) {
        return causalAttention(v[0], v[0], v[0], {2, 2, 2}, offsets);
      },
      {{4, 3}});
}

// 150 tokens are three blocks of queries, the last one partial.
BOOST_AUTO_TEST_CASE(blocksAgreeWithTheExplicitFormula) {
  const auto check = [](Index tokens, Index window) {
    const AttentionHeads h{1, 1, 5, window};
    const Qkv in(h, tokens);
    const MatrixXd seed = randomMatrix(5, tokens, 4);
    Tape<double> tape;
    const Var<double> q = tape.variable(in.q), k = tape.variable(in.k), v = tape.variable(in.v);
    const Var<double> y = causalAttention(q, k, v, h, integers({0, static_cast<int>(tokens)}));
    tape.backward(y, seed);
    const Var<double> eq = tape.variable(in.q), ek = tape.variable(in.k), ev = tape.variable(in.v);
    const Var<double> expected = explicitAttention(eq, ek, ev, window);
    tape.backward(expected, seed);
    expectClose(y.value(), expected.value(), 1e-13);
    expectClose(q.grad(), eq.grad(), 1e-12);
    expectClose(k.grad(), ek.grad(), 1e-12);
    expectClose(v.grad(), ev.grad(), 1e-12);
  };
  for (const Index tokens : {1, 63, 64, 65, 150}) check(tokens, 0);
  for (const Index window : {1, 2, 63, 64, 65, 149, 150, 1000}) check(150, window);
}

// A block of queries does not read the keys that its window hides.
BOOST_AUTO_TEST_CASE(hiddenKeysAreNotRead) {
  const AttentionHeads h{1, 1, 2, 10};
  const Qkv in(h, 200);
  MatrixXd k = in.k, v = in.v;
  k.leftCols(128 - 9).setConstant(std::nan(""));  // queries 128 … 191 and their windows begin a block
  v.leftCols(128 - 9).setConstant(std::nan(""));
  Tape<double> tape;
  const auto attend = [&](const MatrixXd& keys, const MatrixXd& values) {
    return causalAttention(tape.constant(in.q), tape.constant(keys), tape.constant(values), h, integers({0, 200}));
  };
  expectClose(attend(k, v).value().rightCols(72), attend(in.k, in.v).value().rightCols(72), 1e-14);
}

BOOST_AUTO_TEST_CASE(groupedHeadsAreExpandedHeads) {
  const AttentionHeads grouped{6, 2, 3}, expanded{6, 6, 3};
  const Qkv in(grouped, 9);
  const Eigen::VectorXi offsets = integers({0, 4, 9});
  MatrixXd repeat = MatrixXd::Zero(18, 6);  // key/value head h / 3 for query head h
  for (Index h = 0; h < 6; ++h) repeat.block(3 * h, 3 * (h / 3), 3, 3).setIdentity();
  const MatrixXd seed = randomMatrix(18, 9, 4);
  Tape<double> tape;
  const Var<double> q = tape.variable(in.q), k = tape.variable(in.k), v = tape.variable(in.v),
                    r = tape.constant(repeat);
  const Var<double> y = causalAttention(q, k, v, grouped, offsets);
  tape.backward(y, seed);
  const Var<double> eq = tape.variable(in.q), ek = tape.variable(in.k), ev = tape.variable(in.v);
  const Var<double> expected = causalAttention(eq, r * ek, r * ev, expanded, offsets);
  tape.backward(expected, seed);
  expectClose(y.value(), expected.value(), 1e-14);
  expectClose(q.grad(), eq.grad(), 1e-14);
  expectClose(k.grad(), ek.grad(), 1e-14);
  expectClose(v.grad(), ev.grad(), 1e-14);
}

BOOST_AUTO_TEST_CASE(packedSequencesAreSeparateSequences) {
  const AttentionHeads h{2, 1, 4};
  const Eigen::VectorXi offsets = integers({0, 70, 70, 71, 80});
  const Qkv in(h, 80);
  const MatrixXd seed = randomMatrix(8, 80, 4);
  Tape<double> tape;
  const Var<double> q = tape.variable(in.q), k = tape.variable(in.k), v = tape.variable(in.v);
  const Var<double> y = causalAttention(q, k, v, h, offsets);
  tape.backward(y, seed);
  for (Index s = 0; s + 1 < offsets.size(); ++s) {
    const Index first = offsets(s), n = offsets(s + 1) - first;
    const Var<double> sq = tape.variable(in.q.middleCols(first, n)), sk = tape.variable(in.k.middleCols(first, n)),
                      sv = tape.variable(in.v.middleCols(first, n));
    const Var<double> alone = causalAttention(sq, sk, sv, h, integers({0, static_cast<int>(n)}));
    tape.backward(alone, seed.middleCols(first, n));
    expectClose(y.value().middleCols(first, n), alone.value(), 1e-14);
    expectClose(q.grad().middleCols(first, n), sq.grad(), 1e-14);
    expectClose(k.grad().middleCols(first, n), sk.grad(), 1e-14);
    expectClose(v.grad().middleCols(first, n), sv.grad(), 1e-14);
  }
}

BOOST_AUTO_TEST_CASE(largeScoresDoNotOverflow) {
  Tape<float> tape;
  const Var<float> q = tape.variable(Eigen::MatrixXf::Constant(2, 3, 100)),
                   v = tape.variable(Eigen::MatrixXf::Ones(2, 3));
  const Var<float> y = causalAttention(q, q, v, {1, 1, 2}, integers({0, 3}));
  tape.backward(sum(y));
  expectClose(y.value(), Eigen::MatrixXf::Ones(2, 3), 1e-6);
  BOOST_TEST(q.grad().allFinite());
}

BOOST_AUTO_TEST_CASE(badHeadsAndOffsetsAreRefused) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(6, 3));
  const auto attend = [&](AttentionHeads h, std::initializer_list<int> offsets) {
    causalAttention(x, x, x, h, integers(offsets));
  };
  BOOST_CHECK_NO_THROW(attend({3, 3, 2}, {0, 3}));
  BOOST_CHECK_THROW(attend({3, 2, 2}, {0, 3}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 0, 2}, {0, 3}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 3, 2, -1}, {0, 3}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 3, 2}, {}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 3, 2}, {0, 2}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 3, 2}, {1, 3}), std::invalid_argument);
  BOOST_CHECK_THROW(attend({3, 3, 2}, {0, 2, 1, 3}), std::invalid_argument);
}
