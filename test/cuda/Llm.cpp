// SPDX-License-Identifier: MPL-2.0
// Whole models on the device against the same models on the host: logits, generation by graphs, training, saving.
#define BOOST_TEST_MODULE cuda_Llm
#include <boost/test/unit_test.hpp>

#include <cmath>

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
  Statistics statistics;
  llm::LlamaFamily family;  // Qwen2 has biases and a window
  Index headDim, sequences;
};
const std::vector<Wide> kWide = {{Statistics::kNested, llm::LlamaFamily::kQwen2, 64, 1},
                                 {Statistics::kNested, llm::LlamaFamily::kLlama, 128, 2},
                                 {Statistics::kPlain, llm::LlamaFamily::kMistral, 64, 2}};

DeviceModel<Eigen::bfloat16> wideModel(const Wide& wide) {
  llm::LlamaConfig c = tinyConfig(wide.family);
  c.hiddenSize = 1024;
  c.intermediateSize = 2048;
  c.headDim = wide.headDim;
  c.numAttentionHeads = 1024 / c.headDim;
  c.numKeyValueHeads = c.numAttentionHeads / 4;
  c.numHiddenLayers = wide.family == llm::LlamaFamily::kQwen2 ? 3 : 2;
  if (wide.family == llm::LlamaFamily::kMistral) c.windows = {4, 4};
  llm::LoadOptions options = format(WeightFormat::kNF4);
  options.statistics = wide.statistics;
  TinyWeights weights(c, 1, options);
  return DeviceModel<Eigen::bfloat16>(weights);
}

/** Steps with the blocks in one kernel beside those op by op: eager, captured, and begun anew. */
void checkFusedBlocks(const Wide& wide) {
  using Model = DeviceModel<Eigen::bfloat16>;
  auto model = wideModel(wide);
  auto& context = gpu::Context::current();
  const bool isHopper = context.properties().major == 9 && context.properties().minor == 0;
  Model::Cache fusedCache(model.config(), wide.sequences, 12), cache(model.config(), wide.sequences, 12);
  const auto blocks = llm::internal::FusedBlocks<Eigen::bfloat16>::make(model, fusedCache, context);
  BOOST_TEST_REQUIRE((blocks != nullptr) == (isHopper && EIGENQ_TEST_HAVE_SM90A));

  llm::internal::DecodeStep<Eigen::bfloat16, ad::Device> fused(model, fusedCache, /*fuseBlocks=*/true);
  const std::vector<bool> active(static_cast<std::size_t>(wide.sequences), true);
  Model::Tape tape;
  const ad::NoGradGuard<Eigen::bfloat16, ad::Device> guard(tape);
  for (int round = 0; round < 2; ++round) {
    fusedCache.clear();
    fused.restart();
    for (int t = 0; t < 10; ++t) {
      const Eigen::VectorXi tokens = Eigen::VectorXi::LinSpaced(wide.sequences, t, t + 7 * int(wide.sequences - 1));
      const auto where = ad::tokensBehind(Eigen::VectorXi::Constant(wide.sequences, t));
      const Eigen::MatrixXf expected =
          model.logits(model.features(tape, tokens, cache, where)).value().toHost().cast<float>();
      tape.clear();
      const Eigen::MatrixXf found = fused.scores(tokens, active);
      // The same roundings, but for the order of sums: single values of the stream may round to their neighbours.
      BOOST_TEST_CONTEXT("round " << round << ", step " << t << ", heads of " << wide.headDim)
      BOOST_TEST((found - expected).norm() <= 0.02 * expected.norm());
    }
  }
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

BOOST_AUTO_TEST_CASE(blocksInOneKernelAreThoseOfTheOps) {
  for (const Wide& wide : kWide) checkFusedBlocks(wide);
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
