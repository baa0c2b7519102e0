// SPDX-License-Identifier: MPL-2.0
// Generation on the tape: the device's steps are the host's, and a captured step goes on by itself.
#define BOOST_TEST_MODULE cuda_Generation
#include "AutodiffSupport.h"

#include <stdexcept>

using namespace EigenQ;
using namespace EigenQ::test;
using ad::AttentionCache;
using ad::AttentionHeads;
using ad::CachedTokens;
using ad::DeviceTokens;
using ad::tokensBehind;

namespace {

/** What the steps of some sequences give, side by side. \tparam Scalar  of the tape */
template <typename Scalar, typename Place>
MatrixXf steps(const AttentionHeads& heads) {
  ad::Tape<Scalar, Place> tape;
  AttentionCache<Scalar, Place> cache(heads, 3, 150);
  const ad::NoGradGuard<Scalar, Place> guard(tape);
  VectorXi lengths = VectorXi::Zero(3);
  MatrixXf all(heads.heads * heads.headDim, 0);
  const auto step = [&](const CachedTokens<>& tokens) {
    const Index n = tokens.positions.size(), seed = 10 * all.cols();
    const auto random = [&](Index rows, Index number) {
      return tape.constant(
          randomMatrix<float>(rows, n, static_cast<std::uint64_t>(seed + number)).template cast<Scalar>());
    };
    const Index kvRows = heads.kvHeads * heads.headDim;
    appendToCache(cache, random(kvRows, 1), random(kvRows, 2), tokens);
    const auto o = cachedAttention(random(all.rows(), 3), cache, tokens);
    all.conservativeResize(Eigen::NoChange, all.cols() + n);
    if constexpr (std::is_same_v<Scalar, float>)
      all.rightCols(n) = toHost(o.value());
    else
      all.rightCols(n) = o.value().toHost().template cast<float>();
    tape.clear();
  };
  for (const VectorXi& counts : {integers({70, 1, 0}), integers({0, 5, 130}), integers({66, 2, 3})}) {
    VectorXi offsets = VectorXi::Zero(4);
    for (Index s = 0; s < 3; ++s) offsets(s + 1) = offsets(s) + counts(s);
    step(tokensBehind(lengths, offsets));
    lengths += counts;
  }
  for (int i = 0; i < 5; ++i, lengths.array() += 1) step(tokensBehind(lengths));
  return all;
}

}  // namespace

BOOST_AUTO_TEST_CASE(stepsAreThoseOfTheHost, *needsDevice()) {
  for (const Index window : {0, 20}) {
    const AttentionHeads heads{4, 2, 64, window};
    const MatrixXf expected = steps<float, Host>(heads);
    const std::string what = "window " + std::to_string(window);
    expectNear(what, steps<float, Device>(heads), expected, kOpTolerance);
    // Inputs below 1, rounded to 8 bits: an error of 2⁻⁹ in v, as much in o, and less in weights that add up to 1.
    expectNear(what + ", bfloat16", steps<Eigen::bfloat16, Device>(heads), expected, 0.01);
  }
}

namespace {

/** Fused ops have the bits of what they replace. */
template <typename Scalar>
void checkFused(ad::RopePairs pairs) {
  const AttentionHeads heads{4, 2, 16};
  ad::Tape<Scalar, Device> tape;
  const ad::NoGradGuard<Scalar, Device> guard(tape);
  const ad::RopeTable<Scalar, Device> table(16, 50, 10000, pairs);
  AttentionCache<Scalar, Device> fused(heads, 2, 40), apart(heads, 2, 40);
  for (auto* matrix : {&fused.mutableKeys(), &fused.mutableValues(), &apart.mutableKeys(), &apart.mutableValues()})
    matrix->setZero();
  const auto random = [&](Index rows, Index cols, std::uint64_t seed) {
    return tape.constant(randomMatrix<float>(rows, cols, seed).template cast<Scalar>());
  };
  const auto same = [](const auto& a, const auto& b, const char* what) {
    const Eigen::MatrixX<Scalar> x = a.toHost(), y = b.toHost();
    BOOST_TEST(sameBits(x, y), what << " of " << sizeof(Scalar) << "-byte entries differs from the separate ops'");
  };
  for (const CachedTokens<>& tokens :
       {tokensBehind(integers({3, 0}), integers({0, 0, 7})), tokensBehind(integers({0, 7})),
        tokensBehind(integers({1, 8}), integers({0, 30, 31}))}) {
    const Index n = tokens.positions.size();
    const auto q = random(64, n, 1), k = random(32, n, 2), v = random(32, n, 3);
    const auto turned = ropeAndAppend(fused, q, k, v, table, tokens);
    appendToCache(apart, rope(k, table, tokens.positions), v, tokens);
    same(turned.value(), rope(q, table, tokens.positions).value(), "q");
    same(fused.keys(), apart.keys(), "the cache of keys");
    same(fused.values(), apart.values(), "the cache of values");
  }
  for (const Index rows : {1, 7, 64, 4096}) {
    const auto x = random(rows, 3, 4), y = random(rows, 3, 5), gain = random(rows, 1, 6);
    const auto both = addRmsNorm(x, y, gain, 1e-5);
    const auto sum = x + y;
    same(both.sum.value(), sum.value(), "the sum");
    same(both.norm.value(), rmsNorm(sum, gain, 1e-5).value(), "the norm");
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(fusedOpsHaveTheBitsOfSeparateOnes, *needsDevice()) {
  for (const auto pairs : {ad::RopePairs::Half, ad::RopePairs::Adjacent}) {
    checkFused<float>(pairs);
    checkFused<Eigen::bfloat16>(pairs);
  }
}

BOOST_AUTO_TEST_CASE(residualAndNormOnBothPlaces, *needsDevice()) {
  agrees(
      "addRmsNorm",
      [](auto&, const auto& in) {
        const auto both = addRmsNorm(in[0], in[1], in[2]);
        return both.sum + both.norm;
      },
      random({{30, 5}, {30, 5}, {30, 1}}));
}

BOOST_AUTO_TEST_CASE(tokensThatDoNotFitAreRefused, *needsDevice()) {
  AttentionCache<float, Device> cache({1, 1, 2}, 2, 4);
  ad::Tape<float, Device> tape;
  const auto x = tape.constant(MatrixXf::Ones(2, 2)), wanted = tape.variable(MatrixXf::Ones(2, 2));
  BOOST_CHECK_THROW(appendToCache(cache, x, x, tokensBehind(integers({3, 4}))), std::out_of_range);
  BOOST_CHECK_THROW(cachedAttention(x, cache, tokensBehind(integers({3, 4}))), std::out_of_range);
  BOOST_CHECK_THROW(cachedAttention(x, cache, tokensBehind(integers({3}), integers({0, 2}))), std::invalid_argument);
  gpu::DeviceMatrix<int> one(1, 1);
  ad::setIntegers(one, integers({1}));
  BOOST_CHECK_THROW(cachedAttention(x, cache, DeviceTokens{one, {}}), std::invalid_argument);
  BOOST_CHECK_THROW(cachedAttention(wanted, cache, tokensBehind(integers({0, 0}))), std::logic_error);
  BOOST_CHECK_THROW(appendToCache(cache, x, wanted, tokensBehind(integers({0, 0}))), std::logic_error);
  const ad::RopeTable<float, Device> table(2, 9);
  BOOST_CHECK_THROW(ropeAndAppend(cache, x, x, wanted, table, tokensBehind(integers({0, 0}))), std::logic_error);
  BOOST_CHECK_THROW(ropeAndAppend(cache, wanted, x, x, table, tokensBehind(integers({0, 0}))), std::logic_error);
  BOOST_CHECK_THROW(ropeAndAppend(cache, x, x, x, table, tokensBehind(integers({0, 4}))), std::out_of_range);
  gpu::DeviceMatrix<int> rows(3, 1);
  BOOST_CHECK_THROW(argmax(x, rows.view()), std::invalid_argument);
}

namespace {

/** One layer, greedy. The integers of a step stay where they are, so that the step can be captured. */
struct Decoder {
  static constexpr Index kSequences = 3, kCapacity = 40, kDim = 32, kVocabulary = 101;
  static AttentionHeads heads() { return {4, 2, 16, 0}; }
  static MatrixXf random(Index rows, Index cols, std::uint64_t seed) { return randomMatrix<float>(rows, cols, seed); }

  gpu::Context& context;
  ad::Tape<float, Device> tape{context};
  ad::Parameter<float, Device> table{random(kDim, kVocabulary, 1)}, wq{random(64, kDim, 2)}, wk{random(32, kDim, 3)},
      wv{random(32, kDim, 4)}, wo{random(kVocabulary, 64, 5)};
  ad::RopeTable<float, Device> angles{16, kCapacity};
  AttentionCache<float, Device> cache{heads(), kSequences, kCapacity};
  gpu::DeviceMatrix<int> ids{kSequences, 1}, positions{kSequences, 1};

  template <typename Ids, typename Tokens>
  auto logits(const Ids& in, const Tokens& tokens) {
    const auto x = embedding(tape, table, in);
    const auto q = ropeAndAppend(cache, linear(wq, x), linear(wk, x), linear(wv, x), angles, tokens);
    return linear(wo, cachedAttention(q, cache, tokens));
  }
  /** Prompts of 2, 5 and 1 tokens. */
  void start() {
    const ad::NoGradGuard<float, Device> guard(tape);
    tape.clear();
    logits(integers({3, 1, 4, 1, 5, 9, 2, 6}), tokensBehind(integers({0, 0, 0}), integers({0, 2, 7, 8})));
    ad::setIntegers(ids, integers({7, 8, 9}), context);
    ad::setIntegers(positions, integers({2, 5, 1}), context);
  }
  void step() {
    const ad::NoGradGuard<float, Device> guard(tape);
    tape.clear();
    argmax(logits(gpu::DeviceView<const int>(ids), DeviceTokens{positions, {}}), ids.view());
    ad::advance(positions, 1, context);
  }
};

}  // namespace

BOOST_AUTO_TEST_CASE(aCapturedStepGoesOn, *needsDevice()) {
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  Decoder decoder{context};
  constexpr int kSteps = 30;
  Eigen::MatrixXi eager(Decoder::kSequences, kSteps), replayed(Decoder::kSequences, kSteps);
  decoder.start();
  for (int i = 0; i < kSteps; ++i) {
    decoder.step();
    eager.col(i) = decoder.ids.toHost(context);
  }
  const MatrixXf keys = decoder.cache.keys().toHost(context);
  BOOST_TEST(eager.minCoeff() >= 0);
  BOOST_TEST((eager.rowwise().maxCoeff() - eager.rowwise().minCoeff()).minCoeff() > 0, "a sequence says one word only");

  decoder.start();
  gpu::Graph graph(context, [&] { decoder.step(); });
  for (int i = 0; i < kSteps; ++i) {
    graph.launch();
    replayed.col(i) = decoder.ids.toHost(context);
  }
  BOOST_TEST((eager == replayed), "eager:\n" << eager << "\nreplayed:\n" << replayed);
  BOOST_TEST((decoder.positions.toHost(context).col(0).array() == integers({2, 5, 1}).array() + kSteps).all());
  for (const auto& part : {std::pair<Index, Index>{0, 32}, {40, 35}, {80, 31}})  // what the sequences have written
    BOOST_TEST((decoder.cache.keys().toHost(context).middleCols(part.first, part.second) ==
                keys.middleCols(part.first, part.second)));
}

// Nobody checks integers on the device: a full sequence becomes NaN, is not written, and leaves the others alone.
BOOST_AUTO_TEST_CASE(fullSequencesBecomeNaN, *needsDevice()) {
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  Decoder decoder{context};
  decoder.start();
  decoder.step();
  const Eigen::MatrixXi expected = decoder.ids.toHost(context);
  decoder.start();
  const MatrixXf keys = decoder.cache.keys().toHost(context);
  ad::setIntegers(decoder.positions, integers({2, Decoder::kCapacity, 1}), context);
  decoder.step();
  const Eigen::MatrixXi found = decoder.ids.toHost(context);
  BOOST_TEST(found(0) == expected(0));
  BOOST_TEST(found(1) == -1);
  BOOST_TEST(found(2) == expected(2));
  const MatrixXf after = decoder.cache.keys().toHost(context);
  BOOST_TEST((after.col(Decoder::kCapacity) == keys.col(Decoder::kCapacity)), "the second sequence's first token");
  BOOST_TEST((after.col(2 * Decoder::kCapacity) == keys.col(2 * Decoder::kCapacity)), "its neighbour's");
}
