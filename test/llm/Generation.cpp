// SPDX-License-Identifier: MPL-2.0
// Drawing tokens, and generation from a cache against the model run as a whole.
#define BOOST_TEST_MODULE llm_Generation
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <set>

#include <unsupported/eigen_q/Llm>

#include "TinyModel.h"

namespace {

using namespace EigenQ;
using test::Model;
using Tokens = std::vector<std::vector<int>>;
namespace bdata = boost::unit_test::data;

constexpr Index kNew = 12;

/** The largest score behind \a tokens by the model as a whole. */
int likeliest(Model& model, const std::vector<int>& tokens, float penalty) {
  Eigen::VectorXf scores = test::logitsOf(model, tokens).rightCols(1);
  for (const int token : std::set<int>(tokens.begin(), tokens.end()))
    scores(token) *= scores(token) > 0 ? 1 / penalty : penalty;
  Index best = 0;
  scores.maxCoeff(&best);
  return static_cast<int>(best);
}

std::vector<int> greedyByTheWhole(Model& model, std::vector<int> tokens, Index count, float penalty = 1) {
  std::vector<int> found;
  for (Index i = 0; i < count; ++i) {
    found.push_back(likeliest(model, tokens, penalty));
    tokens.push_back(found.back());
  }
  return found;
}

llm::GenerateOptions greedy(Index count = kNew) {
  llm::GenerateOptions options;
  options.maxNewTokens = count;
  return options;
}
llm::GenerateOptions sampled(std::uint64_t seed) {
  llm::GenerateOptions options = greedy();
  options.sampling.temperature = 1;
  options.sampling.seed = seed;
  return options;
}

const Tokens kPrompts = {{1, 5, 9, 2, 2, 7, 30}, {3}, {4, 4, 4, 8, 15, 16, 23, 11, 31, 0, 6, 12}};

Eigen::VectorXd frequencies(const llm::SamplingOptions& options, const Eigen::VectorXf& scores, int draws) {
  llm::Sampler sample(options);
  Eigen::VectorXd counts = Eigen::VectorXd::Zero(scores.size());
  for (int i = 0; i < draws; ++i) counts(sample(scores)) += 1;
  return counts / draws;
}

}  // namespace

BOOST_DATA_TEST_CASE(greedyTokensAreThoseOfTheWholeModel, bdata::make(test::kFamilies), family) {
  Model model = test::tinyModel(family);
  llm::Generator generate(model, 3);
  const Tokens found = generate(kPrompts, greedy());
  for (std::size_t s = 0; s < kPrompts.size(); ++s)
    BOOST_TEST(found[s] == greedyByTheWhole(model, kPrompts[s], kNew), boost::test_tools::per_element());
}

// One penalty makes repetitions less likely, the other likelier. Each sequence has seen its own tokens, in this call.
BOOST_DATA_TEST_CASE(penalisedTokensAreThoseOfTheWholeModel, bdata::make({1.3f, 0.8f}), penalty) {
  Model model = test::tinyModel(llm::LlamaFamily::kQwen2);
  llm::Generator generate(model, 3);
  llm::GenerateOptions options = greedy();
  const Tokens without = generate(kPrompts, options);
  options.sampling.repetitionPenalty = static_cast<double>(penalty);
  (void)generate({kPrompts[2]}, options);
  const Tokens found = generate(kPrompts, options);
  for (std::size_t s = 0; s < kPrompts.size(); ++s)
    BOOST_TEST(found[s] == greedyByTheWhole(model, kPrompts[s], kNew, penalty), boost::test_tools::per_element());
  BOOST_TEST(found != without);
}

// Token by token, and in two pieces: the scores are those of all at once, but for the order of sums.
BOOST_DATA_TEST_CASE(scoresFromACacheAreThoseOfTheWholeModel, bdata::make(test::kFamilies), family) {
  Model model = test::tinyModel(family);
  const std::vector<int>& tokens = kPrompts[2];
  const auto length = static_cast<int>(tokens.size());
  const Eigen::MatrixXf whole = test::logitsOf(model, tokens);
  for (const int piece : {1, 5, length}) {
    llm::KvCache<float> cache(model.config(), 1, length);
    for (int first = 0; first < length; first += piece) {
      const int n = std::min(piece, length - first);
      ad::Tape<float> tape;
      const ad::NoGradGuard<float> guard(tape);
      const Eigen::VectorXi ids = Eigen::Map<const Eigen::VectorXi>(tokens.data() + first, n);
      const auto where = ad::tokensBehind(cache.lengths(), Eigen::Vector2i(0, n));
      const auto scores = model.logits(model.features(tape, ids, cache, where));
      BOOST_TEST((scores.value() - whole.middleCols(first, n)).cwiseAbs().maxCoeff() < 1e-5);
      cache.setLengths(cache.lengths().array() + n);
    }
  }
}

BOOST_AUTO_TEST_CASE(neighboursAndEarlierCallsDoNotMatter) {
  Model model = test::tinyModel(llm::LlamaFamily::kLlama);
  llm::Generator three(model, 3), one(model, 1);
  const Tokens together = three(kPrompts, sampled(7));
  BOOST_TEST(three(kPrompts, sampled(7)) == together);
  for (std::size_t s = 0; s < kPrompts.size(); ++s) BOOST_TEST(one({kPrompts[s]}, sampled(7 + s))[0] == together[s]);
  BOOST_TEST(three({kPrompts[0]}, sampled(7))[0] == together[0]);  // fewer prompts than room
  BOOST_TEST(three(kPrompts, sampled(8)) != together);
}

BOOST_AUTO_TEST_CASE(sequencesEndEachForItself) {
  Model model = test::tinyModel(llm::LlamaFamily::kLlama);
  llm::Generator generate(model, 3, 16);
  const Tokens all = generate(kPrompts, greedy(4));
  llm::GenerateOptions options = greedy(8);
  options.stopTokens = {all[0][2], 1000};
  Tokens streamed(3);
  const Tokens found = generate(kPrompts, options, [&](Index s, int token) {
    streamed[static_cast<std::size_t>(s)].push_back(token);
    return s != 1 || streamed[1].size() < 2;  // the second is stopped by who listens
  });
  BOOST_TEST(streamed == found);
  BOOST_TEST(found[0].back() == all[0][2]);
  BOOST_TEST(found[0].size() <= 3);
  BOOST_TEST(found[1].size() <= 2);
  // 12 tokens of 16 are the prompt's; the last one drawn needs no room.
  BOOST_TEST((found[2].size() == 5 || found[2].back() == all[0][2]));
  BOOST_TEST(generate(kPrompts, greedy(0)) == Tokens(3));
  BOOST_TEST(generate({}, greedy()).empty());
}

BOOST_AUTO_TEST_CASE(sequencesEndWithTheModelsPositions) {
  test::TinyWeights weights(test::tinyConfig(llm::LlamaFamily::kLlama), 3, {});
  Model model(weights, /*maxPositions=*/16);
  llm::Generator generate(model, 1, 100);
  BOOST_TEST(generate.cache().capacity() == 16);
  BOOST_TEST(generate({kPrompts[2]}, greedy(100))[0].size() == 5u);
  BOOST_CHECK_THROW(generate({std::vector<int>(17, 1)}, greedy()), std::invalid_argument);
}

BOOST_AUTO_TEST_CASE(whatCannotBeContinuedIsRefused) {
  Model model = test::tinyModel(llm::LlamaFamily::kLlama);
  llm::Generator generate(model, 2, 8);
  BOOST_CHECK_THROW(generate({{1}, {1}, {1}}, greedy()), std::invalid_argument);
  BOOST_CHECK_THROW(generate({{1}, {}}, greedy()), std::invalid_argument);
  BOOST_CHECK_THROW(generate({std::vector<int>(9, 1)}, greedy()), std::invalid_argument);
  BOOST_CHECK_THROW(generate({{1, 32}}, greedy()), std::out_of_range);
  BOOST_TEST(generate({{1, 2}}, greedy(2))[0].size() == 2);  // an error leaves the generator usable
}

BOOST_AUTO_TEST_CASE(repeatedStepsAllocateNoTapeMemory) {
  Model model = test::tinyModel(llm::LlamaFamily::kQwen2);
  llm::KvCache<float> cache(model.config(), 1, 32);
  ad::Tape<float> tape;
  const ad::NoGradGuard<float> guard(tape);
  std::size_t reserved = 0;
  for (int i = 0; i < 20; ++i) {
    tape.clear();
    model.logits(
        model.features(tape, Eigen::VectorXi::Constant(1, 3).eval(), cache, ad::tokensBehind(cache.lengths())));
    cache.setLengths(cache.lengths().array() + 1);
    if (i == 1) reserved = tape.bytesReserved();
  }
  BOOST_TEST(tape.bytesReserved() == reserved);
}

// 40000 draws: a frequency p deviates by more than 5·√(p(1-p)/40000) once in two million.
BOOST_AUTO_TEST_CASE(drawsFollowTheSoftmax) {
  Eigen::VectorXf scores(5);
  scores << 1, -1, 0.5f, 2, -std::numeric_limits<float>::infinity();
  for (const double temperature : {0.5, 1.0, 2.0}) {
    llm::SamplingOptions options;
    options.temperature = temperature;
    const Eigen::ArrayXd weights = (scores.cast<double>().array() / temperature).exp();
    const Eigen::ArrayXd p = weights / weights.sum();
    const Eigen::ArrayXd found = frequencies(options, scores, 40000).array();
    BOOST_TEST(((found - p).abs() <= 5 * (p * (1 - p) / 40000).sqrt()).all());
  }
}

BOOST_AUTO_TEST_CASE(onlyTheMostProbableAreKept) {
  Eigen::VectorXf scores(5);
  scores << std::log(0.1f), std::log(0.4f), std::log(0.05f), std::log(0.3f), std::log(0.15f);
  const auto kept = [&](Index topK, double topP, double minP = 0) {
    llm::SamplingOptions options;
    options.temperature = 1;
    options.topK = topK;
    options.topP = topP;
    options.minP = minP;
    const Eigen::VectorXd found = frequencies(options, scores, 4000);
    std::vector<int> tokens;
    for (int i = 0; i < 5; ++i)
      if (found(i) > 0) tokens.push_back(i);
    return tokens;
  };
  BOOST_TEST(kept(1, 1) == std::vector<int>{1});
  BOOST_TEST(kept(2, 1) == (std::vector<int>{1, 3}));
  BOOST_TEST(kept(0, 0.01) == std::vector<int>{1});       // one at least
  BOOST_TEST(kept(0, 0.65) == (std::vector<int>{1, 3}));  // 0.4 does not reach it, 0.7 does
  BOOST_TEST(kept(0, 0.8) == (std::vector<int>{1, 3, 4}));
  BOOST_TEST(kept(3, 0.9) == (std::vector<int>{1, 3, 4}));
  BOOST_TEST(kept(3, 0.8) == (std::vector<int>{1, 3}));  // of the three that are left, 0.85 together, 0.7 reach 80 %
  BOOST_TEST(kept(9, 1).size() == 5U);
  BOOST_TEST(kept(0, 1, 1) == std::vector<int>{1});
  BOOST_TEST(kept(0, 1, 0.3) == (std::vector<int>{1, 3, 4}));  // 0.12 and more
  BOOST_TEST(kept(2, 1, 0.3) == (std::vector<int>{1, 3}));
}

// Draws go by the order of what is kept, which must not be a standard library's own.
BOOST_AUTO_TEST_CASE(theOrderOfWhatIsKeptIsThatOfProbability) {
  const Eigen::VectorXf scores = Eigen::ArrayXf::LinSpaced(1000, 0, 900).sin();
  llm::SamplingOptions byRank, byProbability;
  byRank.temperature = byProbability.temperature = 1;
  byRank.topK = byProbability.topK = 100;
  byProbability.topP = 1 - 1e-9;  // takes none of them away, and sorts
  llm::Sampler first(byRank), second(byProbability);
  for (int i = 0; i < 200; ++i) BOOST_TEST_REQUIRE(first(scores) == second(scores));
}

BOOST_AUTO_TEST_CASE(greedyTakesTheFirstOfEquals) {
  llm::Sampler sample({});
  BOOST_TEST(sample(Eigen::Vector4f(0, 3, 3, 1)) == 1);
}

// python -c 'import torch, transformers as t; s = torch.tensor([[1.5, -1.5, .3, -.7, 2, 0, -3.25, .1]])
// for p in 1.3, .8: print(t.RepetitionPenaltyLogitsProcessor(p)(torch.tensor([[1, 4, 4, 2, 5, 3, 4]]), s).tolist())'
// with transformers 5.23.0.
BOOST_AUTO_TEST_CASE(thePenaltyIsThatOfTransformers) {
  using Scores = Eigen::Matrix<float, 8, 1>;
  Scores with13, with08;
  with13 << 1.5f, -1.9499999284744263f, 0.23076924681663513f, -0.9099999666213989f, 1.5384615659713745f, 0, -3.25f,
      0.10000000149011612f;
  with08 << 1.5f, -1.2000000476837158f, 0.375f, -0.5600000023841858f, 2.5f, 0, -3.25f, 0.10000000149011612f;
  for (const auto& [penalty, expected] : {std::make_pair(1.3f, with13), std::make_pair(0.8f, with08)}) {
    Eigen::VectorXf scores(8);
    scores << 1.5f, -1.5f, 0.3f, -0.7f, 2, 0, -3.25f, 0.1f;
    llm::internal::penaliseRepetition(scores, {1, 4, 4, 2, 5, 3, 4}, penalty);
    BOOST_TEST(scores == expected, boost::test_tools::per_element());
  }
}

BOOST_AUTO_TEST_CASE(onlySeenTokensArePenalisedAndOnce) {
  const auto chosen = [](double penalty, const std::vector<int>& seen, const Eigen::VectorXf& scores, Index topK = 0) {
    llm::SamplingOptions options;
    options.repetitionPenalty = penalty;
    options.topK = topK;
    options.temperature = topK > 0 ? 1 : 0;
    llm::Sampler sample(options);
    for (const int token : seen) sample.see(token);
    return sample(scores);
  };
  BOOST_TEST(chosen(1.2, {}, Eigen::Vector2f(2, 1.5f)) == 0);
  BOOST_TEST(chosen(1.2, {1}, Eigen::Vector2f(2, 1.5f)) == 0);
  BOOST_TEST(chosen(1.2, {0, 0}, Eigen::Vector2f(2, 1.5f)) == 0);  // 1.67; penalised twice it would be 1.39
  BOOST_TEST(chosen(1.4, {0}, Eigen::Vector2f(2, 1.5f)) == 1);     // 1.43
  BOOST_TEST(chosen(1.4, {0}, Eigen::Vector2f(-2, -2.5f)) == 1);   // -2.8
  BOOST_TEST(chosen(0.7, {1}, Eigen::Vector2f(-2, -2.5f)) == 1);   // -1.75
  BOOST_TEST(chosen(1, {7}, Eigen::Vector2f(2, 1.5f)) == 0);       // off: nobody looks
  BOOST_TEST(chosen(1.4, {0}, Eigen::Vector2f(2, 1.5f), 1) == 1);  // before the cut to one
  BOOST_CHECK_THROW(chosen(1.4, {2}, Eigen::Vector2f(2, 1.5f)), std::out_of_range);
  BOOST_CHECK_THROW(chosen(1.4, {-1}, Eigen::Vector2f(2, 1.5f)), std::out_of_range);
  BOOST_CHECK_THROW(chosen(1.4, {0}, Eigen::Vector2f(std::nanf(""), 1)), std::domain_error);
}

BOOST_AUTO_TEST_CASE(scoresThatAreNoneAreRefused) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    llm::SamplingOptions options;
    options.temperature = temperature;
    llm::Sampler sample(options);
    BOOST_CHECK_THROW(sample(Eigen::Vector3f(0, kNaN, 1)), std::domain_error);
    BOOST_CHECK_THROW(sample(Eigen::Vector3f::Constant(-kInfinity)), std::domain_error);
    BOOST_CHECK_THROW(sample(Eigen::VectorXf()), std::domain_error);
  }
}

BOOST_AUTO_TEST_CASE(samplingOptionsAreChecked) {
  const auto make = [](double temperature, Index topK, double topP, double minP = 0, double penalty = 1) {
    llm::SamplingOptions options;
    options.temperature = temperature;
    options.topK = topK;
    options.topP = topP;
    options.minP = minP;
    options.repetitionPenalty = penalty;
    return llm::Sampler(options);
  };
  BOOST_CHECK_THROW(make(-1, 0, 1), std::invalid_argument);
  BOOST_CHECK_THROW(make(std::nan(""), 0, 1), std::invalid_argument);
  BOOST_CHECK_THROW(make(1, -1, 1), std::invalid_argument);
  BOOST_CHECK_THROW(make(1, 0, 0), std::invalid_argument);
  BOOST_CHECK_THROW(make(1, 0, 1.5), std::invalid_argument);
  BOOST_CHECK_THROW(make(1, 0, 1, -0.1), std::invalid_argument);
  BOOST_CHECK_THROW(make(1, 0, 1, std::nan("")), std::invalid_argument);
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double penalty : {0.0, -1.2, infinity, std::nan(""), 1e-60, 1e60})  // the last two: as floats 0, infinite
    BOOST_CHECK_THROW(make(0, 0, 1, 0, penalty), std::invalid_argument);
}
