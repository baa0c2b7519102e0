// SPDX-License-Identifier: MPL-2.0
// Whole models on the device against the same models on the host: logits, generation by graphs, training, saving.
#define BOOST_TEST_MODULE cuda_Llm
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <future>
#include <ostream>
#include <string>

#include <unsupported/eigen_q/LlmCuda>

#include "Device.h"
#include "llm/TinyModel.h"
#include "support/TemporaryFolder.h"

using namespace EigenQ;
using namespace EigenQ::test;
using llm::WeightFormat;
template <typename Scalar>
using DeviceModel = llm::Llama<Scalar, ad::Device>;

namespace {

const std::vector<int> kTokens = {1, 5, 9, 2, 2, 7, 30, 0, 13, 21, 8};
const std::vector<std::vector<int>> kPrompts = {
    {1, 5, 9, 2, 2, 7, 30}, {3}, {4, 4, 4, 8, 15, 16, 23, 11, 31, 0, 6, 12}};

llm::LoadOptions format(WeightFormat f) {
  llm::LoadOptions options;
  options.format = f;
  return options;
}

template <typename A, typename B>
double gap(A& a, B& b) {
  return static_cast<double>((logitsOf(a, kTokens) - logitsOf(b, kTokens)).cwiseAbs().maxCoeff());
}

llm::GenerateOptions greedy() {
  llm::GenerateOptions options;
  options.maxNewTokens = 12;
  return options;
}

/** Adapters beside two projections, the same in every place. */
template <typename M>
void attachAdapters(M& model) {
  using Place = typename M::Place;
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"}) {
    auto& linear = *model.find(name);
    const auto wave = [](Index rows, Index cols) {
      return Eigen::MatrixXf(Eigen::MatrixXf::NullaryExpr(
          rows, cols, [](Index i, Index j) { return 0.2f * std::sin(static_cast<float>(3 * i + 7 * j)); }));
    };
    linear.adapter() = llm::Adapter<typename M::Scalar, Place>{ad::Parameter<float, Place>(wave(2, linear.cols()), "a"),
                                                               ad::Parameter<float, Place>(wave(linear.rows(), 2), "b"),
                                                               {0.5, 0}};
  }
}

template <typename M>
std::vector<Eigen::MatrixXf> gradients(M& model, bool checkpoint) {
  typename M::Tape tape;
  for (auto* p : model.trainable()) p->zeroGrad();
  const auto loss = model.loss(tape, llm::packForTraining({kTokens, {3, 3, 8}}), ad::Reduction::Mean, {checkpoint});
  tape.backward(loss);
  std::vector<Eigen::MatrixXf> found;
  for (auto* p : model.trainable()) found.push_back(M::Place::toHost(p->grad()));
  return found;
}

/** A model whose blocks one kernel can take: nested absmax want rows of 1024 codes. */
struct Wide {
  WeightFormat format;
  Statistics statistics;
  llm::LlamaFamily family;  // Qwen2 and Llama have biases, Qwen2 and Mistral windows
  Index headDim, sequences;
};
const std::vector<Wide> kWide = {{WeightFormat::kNF4, Statistics::kNested, llm::LlamaFamily::kQwen2, 64, 1},
                                 {WeightFormat::kNF4, Statistics::kNested, llm::LlamaFamily::kLlama, 128, 2},
                                 {WeightFormat::kNF4, Statistics::kPlain, llm::LlamaFamily::kMistral, 64, 2},
                                 {WeightFormat::kFP4, Statistics::kPlain, llm::LlamaFamily::kLlama, 128, 1}};

std::ostream& operator<<(std::ostream& os, const Wide& wide) {
  return os << wide.family << ", heads of " << wide.headDim << ", " << wide.sequences << " sequences, format "
            << int(wide.format);
}

using WideModel = DeviceModel<Eigen::bfloat16>;
using Step = llm::internal::DecodeStep<Eigen::bfloat16, ad::Device>;
constexpr Index kCapacity = 12;

/** Whether the kernel is for this device, and part of this build. */
bool canFuse() {
  const auto& properties = gpu::Context::current().properties();
  return properties.major == 9 && properties.minor == 0 && EIGENQ_TEST_HAVE_SM90A;
}

WideModel wideModel(const Wide& wide, Index blockSize = 64) {
  llm::LlamaConfig c = tinyConfig(wide.family);
  c.hiddenSize = 1024;
  c.intermediateSize = 2048;
  c.headDim = wide.headDim;
  c.numAttentionHeads = 1024 / c.headDim;
  c.numKeyValueHeads = c.numAttentionHeads / 4;
  c.numHiddenLayers = wide.family == llm::LlamaFamily::kQwen2 ? 3 : 2;
  if (wide.family == llm::LlamaFamily::kMistral) c.windows = {4, 4};
  llm::LoadOptions options = format(wide.format);
  options.statistics = wide.statistics;
  options.blockSize = blockSize;
  TinyWeights weights(c, 1, options);
  return WideModel(weights);
}

/** The tokens of step \a t, and what the ops make of them behind \a lengths. */
Eigen::VectorXi tokensOf(Index sequences, int t) {
  return Eigen::VectorXi::LinSpaced(sequences, t, t + 7 * int(sequences - 1));
}
Eigen::MatrixXf scoresOfOps(WideModel& model, WideModel::Cache& cache, const Eigen::VectorXi& tokens,
                            const Eigen::VectorXi& lengths) {
  WideModel::Tape tape;
  const ad::NoGradGuard<Eigen::bfloat16, ad::Device> guard(tape);
  return model.logits(model.features(tape, tokens, cache, ad::tokensBehind(lengths))).value().toHost().cast<float>();
}

/** The same roundings, but for the order of sums: single values of the stream may round to their neighbours. */
bool areClose(const Eigen::MatrixXf& found, const Eigen::MatrixXf& expected) {
  return (found - expected).norm() <= 0.02f * expected.norm();
}

/** Steps with the blocks in one kernel beside those op by op: eager, captured, and begun anew. */
void checkFusedBlocks(const Wide& wide) {
  auto model = wideModel(wide);
  WideModel::Cache fusedCache(model.config(), wide.sequences, kCapacity),
      cache(model.config(), wide.sequences, kCapacity);
  Step fused(model, fusedCache);
  const std::vector<bool> active(static_cast<std::size_t>(wide.sequences), true);
  for (int round = 0; round < 2; ++round) {
    fusedCache.clear();
    fused.restart();
    for (int t = 0; t < 10; ++t) {
      const Eigen::VectorXi tokens = tokensOf(wide.sequences, t);
      const auto expected = scoresOfOps(model, cache, tokens, Eigen::VectorXi::Constant(wide.sequences, t));
      BOOST_TEST_CONTEXT(wide << ": round " << round << ", step " << t)
      BOOST_TEST(areClose(fused.scores(tokens, active), expected));
    }
  }
  BOOST_TEST_CONTEXT(wide << ": " << (fused.refusal() ? fused.refusal() : "fused"))
  BOOST_TEST((fused.refusal() == nullptr) == canFuse());
}

/** Greedy text of a Generator: every token has to be the ops' choice, or as good as that. */
void checkFusedText(const Wide& wide) {
  auto model = wideModel(wide);
  llm::Generator generate(model, wide.sequences, 24);
  const std::vector<std::vector<int>> prompts(kPrompts.begin(), kPrompts.begin() + wide.sequences);
  const auto found = generate(prompts, greedy());
  BOOST_TEST((generate(prompts, greedy()) == found));  // by the graph alone: the same bits
  for (std::size_t s = 0; s < prompts.size(); ++s) {
    std::vector<int> text = prompts[s];
    text.insert(text.end(), found[s].begin(), found[s].end());
    const Eigen::MatrixXf scores = logitsOf(model, text);
    for (std::size_t i = prompts[s].size(); i < text.size(); ++i) {
      const auto behind = scores.col(static_cast<Index>(i) - 1);
      BOOST_TEST_CONTEXT(wide << ": sequence " << s << ", token " << i)
      BOOST_TEST(behind.maxCoeff() - behind(text[i]) <= 0.02f * behind.norm());
    }
  }
}

/** Why steps of a model go op by op. */
std::string refusalOf(WideModel& model, Index sequences = 1) {
  WideModel::Cache cache(model.config(), sequences, kCapacity);
  Step step(model, cache);
  step.scores(tokensOf(sequences, 1), std::vector<bool>(static_cast<std::size_t>(sequences), true));
  return step.refusal() ? step.refusal() : "";
}

}  // namespace

BOOST_AUTO_TEST_SUITE(models, *needsDevice())

BOOST_AUTO_TEST_CASE(logitsAreThoseOfTheHost) {
  for (const auto family : kFamilies)
    for (const auto f : {WeightFormat::kDense, WeightFormat::kInt8, WeightFormat::kNF4, WeightFormat::kFP4}) {
      auto host = tinyModel(family, 1, format(f));
      auto device = tinyModel<DeviceModel<float>>(family, 1, format(f));
      BOOST_TEST_CONTEXT("family " << family << ", format " << int(f)) {
        BOOST_TEST(gap(device, host) < 1e-4);
        BOOST_TEST(device.sizeInBytes() == host.sizeInBytes());
      }
    }
}

BOOST_AUTO_TEST_CASE(bfloat16CostsItsRounding) {
  for (const auto family : kFamilies) {
    auto host = tinyModel(family, 1, format(WeightFormat::kNF4));
    auto device = tinyModel<DeviceModel<Eigen::bfloat16>>(family, 1, format(WeightFormat::kNF4));
    // 2⁻⁸ a rounding, some dozens of them, on logits of a few units.
    BOOST_TEST_CONTEXT("family " << family) BOOST_TEST(gap(device, host) < 0.3);
  }
}

BOOST_AUTO_TEST_CASE(greedyTokensAreThoseOfTheHost) {
  for (const auto family : kFamilies) {
    auto host = tinyModel(family);
    auto device = tinyModel<DeviceModel<float>>(family);
    llm::Generator onHost(host, 3);
    llm::Generator onDevice(device, 3);
    const auto expected = onHost(kPrompts, greedy());
    BOOST_TEST_CONTEXT("family " << family) {
      BOOST_TEST((onDevice(kPrompts, greedy()) == expected));  // first step as it is, then by the graph
      BOOST_TEST((onDevice(kPrompts, greedy()) == expected));  // by the graph alone
      BOOST_TEST((onDevice({kPrompts[2]}, greedy())[0] == expected[2]));
    }
  }
}

// Greedy steps hand their scores out then; the next call's choose on the device again.
BOOST_AUTO_TEST_CASE(penalisedTokensAreThoseOfTheHost) {
  auto host = tinyModel(llm::LlamaFamily::kQwen2);
  auto device = tinyModel<DeviceModel<float>>(llm::LlamaFamily::kQwen2);
  llm::Generator onHost(host, 3);
  llm::Generator onDevice(device, 3);
  llm::GenerateOptions penalised = greedy();
  penalised.sampling.repetitionPenalty = 1.3;
  const auto expected = onHost(kPrompts, penalised), without = onHost(kPrompts, greedy());
  BOOST_TEST((expected != without));
  BOOST_TEST((onDevice(kPrompts, penalised) == expected));
  BOOST_TEST((onDevice(kPrompts, greedy()) == without));
  BOOST_TEST((onDevice(kPrompts, penalised) == expected));
}

BOOST_AUTO_TEST_CASE(blocksInOneKernelAreThoseOfTheOps) {
  for (const Wide& wide : kWide) checkFusedBlocks(wide);
}

BOOST_AUTO_TEST_CASE(textFromOneKernelIsThatOfTheOps) {
  for (const Wide& wide : kWide) checkFusedText(wide);
}

BOOST_AUTO_TEST_CASE(whatOneKernelCannotTakeGoesOpByOp) {
  if (!canFuse()) return;
  auto adapted = wideModel(kWide[0]), fine = wideModel(kWide[1]), blocks = wideModel(kWide[2], 128);
  Wide integers = kWide[0];
  integers.format = WeightFormat::kInt8;
  auto codes = wideModel(integers);
  auto tiny = tinyModel<WideModel>(llm::LlamaFamily::kLlama, 1, format(WeightFormat::kNF4));
  BOOST_TEST(refusalOf(adapted) == "");
  attachAdapters(adapted);
  BOOST_TEST(refusalOf(adapted) == "a projection has an adapter");
  BOOST_TEST(refusalOf(fine, 2) == "");
  BOOST_TEST(refusalOf(fine, 3) == "no sequence, or more than 2");
  BOOST_TEST(refusalOf(blocks) == "blocks of other than 64");
  BOOST_TEST(refusalOf(codes) == "a weight is not in 4 bits");
  BOOST_TEST(refusalOf(tiny) == "heads of other than 64 or 128");
}

BOOST_AUTO_TEST_CASE(behindTheCacheOneKernelWritesNothing) {
  auto model = wideModel(kWide[1]);
  WideModel::Cache fusedCache(model.config(), 2, kCapacity), cache(model.config(), 2, kCapacity);
  WideModel::Cache anew(model.config(), 1, kCapacity);
  Step step(model, fusedCache);
  Eigen::VectorXi lengths(2);
  for (int t = 0; t <= kCapacity; ++t) {  // the second sequence begins anew where the first one's room ends
    lengths << t, t < kCapacity ? t : 0;
    fusedCache.setLengths(lengths);
    step.restart();
    const Eigen::VectorXi tokens = tokensOf(2, t);
    const Eigen::MatrixXf found = step.scores(tokens, {true, true});
    if (t == kCapacity) BOOST_TEST(found.col(0).array().isNaN().all());
    // The ops refuse lengths that the host knows to be too many: behind the end, the second sequence by itself.
    const Eigen::MatrixXf expected = t < kCapacity ? scoresOfOps(model, cache, tokens, lengths)
                                                   : scoresOfOps(model, anew, tokens.tail(1), lengths.tail(1));
    BOOST_TEST_CONTEXT("step " << t) BOOST_TEST(areClose(found.col(1), expected.rightCols(1)));
  }
  for (Index i = 0; i < model.config().numHiddenLayers; ++i) {  // what the first sequence had is as it was
    const auto keys = [&](WideModel::Cache& c) {
      return Eigen::MatrixXf(c.layer(i).keys().toHost().cast<float>().leftCols(kCapacity));
    };
    BOOST_TEST_CONTEXT("block " << i) BOOST_TEST(areClose(keys(fusedCache), keys(cache)));
  }
}

BOOST_AUTO_TEST_CASE(modelsInOneKernelRunSideBySide) {
  // Two contexts, hence two streams: a kernel that holds every multiprocessor waits for the other one to end.
  auto first = wideModel(kWide[0]), second = wideModel(kWide[1]);
  gpu::Context other;
  gpu::Context::current().synchronize();
  const auto textOf = [](WideModel& model, int steps) {
    WideModel::Cache cache(model.config(), 1, kCapacity);
    Step step(model, cache);
    step.restart();
    std::vector<int> tokens = {1};
    while (int(tokens.size()) <= steps)
      tokens.push_back(step.greedy(Eigen::VectorXi::Constant(1, tokens.back()), {true})(0));
    return tokens;
  };
  const auto expectedFirst = textOf(first, 8), expectedSecond = textOf(second, 8);
  const auto threeTimes = [&](WideModel& model) {
    std::vector<int> text;
    for (int i = 0; i < 3; ++i) text = textOf(model, 8);
    return text;
  };
  auto foundSecond = std::async(std::launch::async, [&] {
    const gpu::ContextGuard onOther(other);
    return threeTimes(second);
  });
  BOOST_TEST(threeTimes(first) == expectedFirst, boost::test_tools::per_element());
  BOOST_TEST(foundSecond.get() == expectedSecond, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(sampledTokensRepeat) {
  auto device = tinyModel<DeviceModel<Eigen::bfloat16>>(llm::LlamaFamily::kQwen2);
  llm::Generator generate(device, 3);
  llm::GenerateOptions options = greedy();
  options.sampling.temperature = 1;
  options.sampling.seed = 5;
  const auto first = generate(kPrompts, options);
  (void)generate(kPrompts, greedy());  // the two kinds of step share their memory
  BOOST_TEST((generate(kPrompts, options) == first));
}

BOOST_AUTO_TEST_CASE(graphsSeeNewContentsOfAdapters) {
  auto host = tinyModel(llm::LlamaFamily::kLlama);
  auto device = tinyModel<DeviceModel<float>>(llm::LlamaFamily::kLlama);
  attachAdapters(host);
  attachAdapters(device);
  llm::Generator onHost(host, 3);
  llm::Generator onDevice(device, 3);
  BOOST_TEST((onDevice(kPrompts, greedy()) == onHost(kPrompts, greedy())));
  for (auto* p : host.trainable()) p->mutableValue() *= 3;
  for (auto* p : device.trainable()) {
    const Eigen::MatrixXf tripled = 3 * p->value().toHost();
    p->mutableValue().copyFromHost(tripled);
  }
  BOOST_TEST((onDevice(kPrompts, greedy()) == onHost(kPrompts, greedy())));
}

BOOST_AUTO_TEST_CASE(gradientsAreThoseOfTheHost) {
  for (const auto family : kFamilies) {
    auto host = tinyModel(family, 1, format(WeightFormat::kNF4));
    auto device = tinyModel<DeviceModel<float>>(family, 1, format(WeightFormat::kNF4));
    attachAdapters(host);
    attachAdapters(device);
    const auto expected = gradients(host, false), found = gradients(device, false), again = gradients(device, true);
    BOOST_TEST_REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) BOOST_TEST_CONTEXT("family " << family << ", parameter " << i) {
        BOOST_TEST((found[i] - expected[i]).norm() <= 1e-3 * expected[i].norm());
        BOOST_TEST((found[i] - again[i]).cwiseAbs().maxCoeff() == 0);  // checkpoints change no bit
      }
  }
}

BOOST_AUTO_TEST_CASE(savedFromTheDeviceItOpensOnTheHost) {
  const TemporaryFolder folder;
  for (const auto f : {WeightFormat::kDense, WeightFormat::kLlmInt8, WeightFormat::kNF4}) {
    auto host = tinyModel(llm::LlamaFamily::kMistral, 1, format(f));
    auto device = tinyModel<DeviceModel<float>>(llm::LlamaFamily::kMistral, 1, format(f));
    llm::saveLlama(device, folder.path());
    auto loaded = llm::loadLlama(folder.path());
    BOOST_TEST_CONTEXT("format " << int(f)) BOOST_TEST(gap(loaded, host) == 0);
    auto back = llm::loadLlama<float, ad::Device>(folder.path());
    BOOST_TEST_CONTEXT("format " << int(f)) BOOST_TEST(gap(back, device) == 0);
  }
}

BOOST_AUTO_TEST_SUITE_END()
