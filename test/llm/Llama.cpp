// SPDX-License-Identifier: MPL-2.0
// The decoder against a straightforward evaluation in double, token by token, and what training needs of it.
#define BOOST_TEST_MODULE llm_Llama
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>

#include "TinyModel.h"

namespace {

using namespace EigenQ;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using test::Model;
namespace bdata = boost::unit_test::data;

const std::vector<int> kTokens = {1, 5, 9, 2, 2, 7, 30, 0, 13, 21, 8};

/** The published formulas, one token and one head at a time, with weights decoded to double. */
class Reference {
 public:
  explicit Reference(Model& model) : m_model(model), m_config(model.config()) {}

  MatrixXd logits(const std::vector<int>& tokens) {
    const MatrixXd e = m_model.embedding().toHost().cast<double>();
    MatrixXd x(e.rows(), static_cast<Index>(tokens.size()));
    for (Index t = 0; t < x.cols(); ++t) x.col(t) = e.col(tokens[static_cast<std::size_t>(t)]);
    for (Index i = 0; i < m_config.numHiddenLayers; ++i) x = layer(i, x);
    x = norm(x, m_model.norm());
    return m_model.head() ? apply(*m_model.head(), x) : MatrixXd(e.transpose() * x);
  }

 private:
  MatrixXd layer(Index i, MatrixXd x) {
    Model::Layer& l = m_model.layers()[static_cast<std::size_t>(i)];
    const MatrixXd h = norm(x, l.attentionNorm);
    x += apply(l.output,
               attention(turned(apply(l.query, h)), turned(apply(l.key, h)), apply(l.value, h), m_config.window(i)));
    const MatrixXd g = norm(x, l.ffnNorm), gate = apply(l.gate, g);
    const MatrixXd silu = gate.array() / (1 + (-gate.array()).exp());
    return x + apply(l.down, silu.cwiseProduct(apply(l.up, g)));
  }

  static MatrixXd apply(llm::Linear<float>& linear, const MatrixXd& x) {
    const MatrixXd w = std::visit(
        [](const auto& m) -> MatrixXd {
          if constexpr (std::is_same_v<std::decay_t<decltype(m)>, llm::LlmInt8Weight<Int8Matrix>>)
            return Eigen::MatrixXf(m.codes).cast<double>();
          else
            return Eigen::MatrixXf(m).cast<double>();
        },
        linear.hostWeight());
    MatrixXd y = w * x;
    if (linear.bias()) y.colwise() += VectorXd(linear.bias()->toHost().cast<double>());
    if (linear.adapter())
      y += linear.adapter()->options.scale * linear.adapter()->b.value().cast<double>() *
           (linear.adapter()->a.value().cast<double>() * x);
    return y;
  }

  MatrixXd norm(MatrixXd x, const llm::DenseWeight<float>& gain) const {
    for (Index t = 0; t < x.cols(); ++t)
      x.col(t) /= std::sqrt(x.col(t).squaredNorm() / static_cast<double>(x.rows()) + m_config.rmsNormEps);
    return gain.toHost().cast<double>().col(0).asDiagonal() * x;
  }

  /** Pairs (i, i + headDim/2) of each head turned by position·theta^(-2i/headDim). */
  MatrixXd turned(MatrixXd x) const {
    const Index half = m_config.headDim / 2;
    for (Index t = 0; t < x.cols(); ++t)
      for (Index head = 0; head < x.rows() / m_config.headDim; ++head)
        for (Index i = 0; i < half; ++i) {
          const double angle = static_cast<double>(t) *
                               std::pow(m_config.ropeTheta, -static_cast<double>(i) / static_cast<double>(half));
          double& a = x(head * m_config.headDim + i, t);
          double& b = x(head * m_config.headDim + i + half, t);
          const double turnedA = a * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + a * std::sin(angle);
          a = turnedA;
        }
    return x;
  }

  MatrixXd attention(const MatrixXd& q, const MatrixXd& k, const MatrixXd& v, Index window) const {
    const Index dim = m_config.headDim, group = m_config.numAttentionHeads / m_config.numKeyValueHeads;
    MatrixXd o(q.rows(), q.cols());
    for (Index head = 0; head < m_config.numAttentionHeads; ++head)
      for (Index t = 0; t < q.cols(); ++t) {
        const Index first = window > 0 ? std::max<Index>(0, t + 1 - window) : 0, n = t + 1 - first;
        const VectorXd s = k.block(head / group * dim, first, dim, n).transpose() * q.block(head * dim, t, dim, 1) /
                           std::sqrt(static_cast<double>(dim));
        const VectorXd p = (s.array() - s.maxCoeff()).exp();
        o.block(head * dim, t, dim, 1) = v.block(head / group * dim, first, dim, n) * p / p.sum();
      }
    return o;
  }

  Model& m_model;
  const llm::LlamaConfig& m_config;
};

llm::LoadOptions format(llm::WeightFormat f) {
  llm::LoadOptions options;
  options.format = f;
  options.blockSize = 32;
  return options;
}

/** Weights that a type of 16 bits holds. */
template <typename Narrow>
class NarrowWeights : public test::TinyWeights {
 public:
  using TinyWeights::TinyWeights;
  Eigen::MatrixXf embedding(const std::string& name, Index hidden, Index vocabulary) override {
    return rounded(TinyWeights::embedding(name, hidden, vocabulary));
  }
  llm::HostWeight projection(const std::string& module, Index out, Index in) override {
    return rounded(std::get<Eigen::MatrixXf>(TinyWeights::projection(module, out, in)));
  }

 private:
  static Eigen::MatrixXf rounded(const Eigen::MatrixXf& m) { return m.template cast<Narrow>().template cast<float>(); }
};

void attachAdapters(Model& model, double dropout = 0) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> draw(0, 0.2f);
  const auto noise = [&](Index rows, Index cols) {
    return Eigen::MatrixXf(Eigen::MatrixXf::NullaryExpr(rows, cols, [&] { return draw(random); }));
  };
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.2.mlp.down_proj"}) {
    llm::Linear<float>& linear = *model.find(name);
    linear.adapter() = llm::Adapter<float>{ad::Parameter<float>(noise(2, linear.cols()), "a"),
                                           ad::Parameter<float>(noise(linear.rows(), 2), "b"),
                                           {0.5, dropout}};
  }
}

double gap(Model& model) {
  return (test::logitsOf(model, kTokens).cast<double>() - Reference(model).logits(kTokens)).cwiseAbs().maxCoeff();
}

/** Loss and gradients of a step, in the order of trainable(). */
std::vector<Eigen::MatrixXf> step(Model& model, const llm::ForwardOptions& options) {
  ad::Tape<float> tape;
  for (auto* p : model.trainable()) p->zeroGrad();
  const auto loss = model.loss(tape, llm::packForTraining({kTokens, {3, 3, 8}}), ad::Reduction::Mean, options);
  tape.backward(loss);
  std::vector<Eigen::MatrixXf> found = {loss.value()};
  for (const auto* p : model.trainable()) found.push_back(p->grad());
  return found;
}

}  // namespace

BOOST_DATA_TEST_CASE(logitsFollowTheFormulas, bdata::make(test::kFamilies), family) {
  Model model = test::tinyModel(family);
  BOOST_TEST(gap(model) < 1e-5);
  attachAdapters(model);
  BOOST_TEST(gap(model) < 1e-5);
}

BOOST_AUTO_TEST_CASE(quantisedWeightsCountAsTheirDecodedValues) {
  for (const auto f : {llm::WeightFormat::kInt8, llm::WeightFormat::kNF4, llm::WeightFormat::kFP4}) {
    Model model = test::tinyModel(llm::LlamaFamily::kQwen2, 1, format(f));
    BOOST_TEST(!model.head()->isQuantized());
    BOOST_TEST(model.layers()[0].query.isQuantized());
    BOOST_TEST(gap(model) < 1e-4);
  }
  // Activations in int8: half a step of 1/127 of the largest feature, through three layers.
  Model llmInt8 = test::tinyModel(llm::LlamaFamily::kQwen2, 1, format(llm::WeightFormat::kLlmInt8));
  const double found = gap(llmInt8);
  BOOST_TEST((found > 1e-4 && found < 0.2));
}

template <typename Narrow>
void checkNarrowWeights(llm::LlamaFamily family, ScalarType scalar) {
  NarrowWeights<Narrow> weights(test::tinyConfig(family), 1, {});
  Model model(weights);
  model.forEachLinear([&](llm::Linear<float>& linear) {
    BOOST_TEST_REQUIRE(linear.denseWeight()->narrow() != nullptr);
    BOOST_TEST((linear.denseWeight()->narrow()->scalar() == scalar));
    BOOST_TEST(linear.denseWeight()->sizeInBytes() == 2 * linear.rows() * linear.cols());
  });
  BOOST_TEST_REQUIRE(model.embedding().narrow() != nullptr);
  BOOST_TEST(gap(model) < 1e-5);
  attachAdapters(model);
  BOOST_TEST(gap(model) < 1e-5);

  // The same step with all weights in float: made trainable, and so widened.
  const std::vector<Eigen::MatrixXf> narrow = step(model, {});
  model.forEachDense([](llm::DenseWeight<float>& dense) { dense.setTrainable(true); });
  BOOST_TEST(model.embedding().narrow() == nullptr);
  const std::vector<Eigen::MatrixXf> wide = step(model, {});
  BOOST_TEST(std::abs(narrow[0](0, 0) - wide[0](0, 0)) < 1e-5f);
  for (std::size_t i = 1; i <= 4; ++i)  // the adapters come last
    BOOST_TEST((narrow[narrow.size() - i] - wide[wide.size() - i]).cwiseAbs().maxCoeff() < 1e-4f);
  model.forEachDense([](llm::DenseWeight<float>& dense) { dense.setTrainable(false); });
  BOOST_TEST(model.embedding().narrow() != nullptr);
}

BOOST_AUTO_TEST_CASE(weightsThatFit16BitsTakeNoMore) {
  checkNarrowWeights<Eigen::bfloat16>(llm::LlamaFamily::kLlama, ScalarType::kBFloat16);  // a tied head
  checkNarrowWeights<Eigen::half>(llm::LlamaFamily::kQwen2, ScalarType::kHalf);
  BOOST_TEST(test::tinyModel(llm::LlamaFamily::kLlama).embedding().narrow() == nullptr);
}

BOOST_AUTO_TEST_CASE(lossIsTheMeanOverCountedTargets) {
  for (const auto family : {llm::LlamaFamily::kLlama, llm::LlamaFamily::kQwen2}) {  // tied and not
    Model model = test::tinyModel(family);
    const MatrixXd logits = Reference(model).logits(kTokens);
    double expected = 0;
    for (Index t = 0; t + 1 < logits.cols(); ++t)
      expected += std::log(logits.col(t).array().exp().sum()) - logits(kTokens[static_cast<std::size_t>(t) + 1], t);
    ad::Tape<float> tape;
    const double found = model.loss(tape, llm::packForTraining({kTokens})).item();
    BOOST_TEST(found == expected / static_cast<double>(logits.cols() - 1), boost::test_tools::tolerance(1e-5));
    model.embedding().setTrainable(true);
    tape.clear();
    BOOST_TEST(model.loss(tape, llm::packForTraining({kTokens})).item() == found, boost::test_tools::tolerance(1e-5));
  }
}

BOOST_DATA_TEST_CASE(checkpointsChangeNoBit, bdata::make(test::kFamilies), family) {
  Model model = test::tinyModel(family, 1, format(llm::WeightFormat::kNF4));
  attachAdapters(model, /*dropout=*/0.3);
  model.norm().setTrainable(true);
  const auto kept = step(model, {}), again = step(model, {/*checkpointLayers=*/true});
  BOOST_TEST_REQUIRE(kept.size() == 6U);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    BOOST_TEST(kept[i].cwiseAbs().maxCoeff() > 0);
    BOOST_TEST((kept[i] - again[i]).cwiseAbs().maxCoeff() == 0);
  }
}

// Central differences in the direction of the gradient: its length squared.
BOOST_DATA_TEST_CASE(gradientsAreThoseOfTheLoss, bdata::make(test::kFamilies), family) {
  Model model = test::tinyModel(family);
  attachAdapters(model);
  model.embedding().setTrainable(true);
  model.layers()[1].attentionNorm.setTrainable(true);
  if (auto* weight = model.layers()[1].gate.denseWeight()) weight->setTrainable(true);
  const auto gradients = step(model, {});
  const auto parameters = model.trainable();
  double squared = 0;
  for (std::size_t i = 1; i < gradients.size(); ++i) squared += static_cast<double>(gradients[i].squaredNorm());
  const auto shifted = [&](float by) {
    for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i]->mutableValue() += by * gradients[i + 1];
    return static_cast<double>(step(model, {})[0](0, 0));
  };
  const float h = 2e-3f;
  const double up = shifted(h), down = shifted(-2 * h);
  BOOST_TEST((up - down) / (2 * static_cast<double>(h)) == squared, boost::test_tools::tolerance(0.01));
}

BOOST_AUTO_TEST_CASE(weightsAreFoundByName) {
  Model model = test::tinyModel(llm::LlamaFamily::kQwen2);
  BOOST_TEST(model.find("model.layers.2.mlp.gate_proj")->rows() == 20);
  BOOST_TEST(model.find("lm_head")->shortName() == "lm_head");
  BOOST_TEST(!model.find("model.layers.3.mlp.gate_proj"));
  BOOST_TEST(!test::tinyModel(llm::LlamaFamily::kLlama).find("lm_head"));
  BOOST_TEST(model.trainable().empty());
  int linears = 0, dense = 0;
  model.forEachLinear([&](llm::Linear<float>&) { ++linears; });
  model.forEachDense([&](llm::DenseWeight<float>&) { ++dense; });
  BOOST_TEST(linears == 22);
  BOOST_TEST(dense == 1 + 7 + 22 + 9);  // embedding, norms, projections, biases
}

BOOST_AUTO_TEST_CASE(positionsWithoutALimitTakeNoMemoryWithoutALimit) {
  llm::LlamaConfig config = test::tinyConfig(llm::LlamaFamily::kQwen2);
  test::TinyWeights bounded(config, 1, {});
  config.maxPositionEmbeddings = std::numeric_limits<int>::max();  // 51 GB of angles, with three of them a head
  test::TinyWeights unbounded(config, 1, {});
  Model usual(bounded), large(unbounded);
  BOOST_TEST(large.maxPositions() == Model::kUsualPositions);
  BOOST_TEST(large.config().maxPositionEmbeddings == std::numeric_limits<int>::max());
  BOOST_TEST((test::logitsOf(large, kTokens) == test::logitsOf(usual, kTokens)));
  test::TinyWeights asked(config, 1, {});
  BOOST_TEST(Model(asked, Model::kUsualPositions + 1).maxPositions() == Model::kUsualPositions + 1);
}

BOOST_AUTO_TEST_CASE(inputsAreChecked) {
  Model model = test::tinyModel(llm::LlamaFamily::kLlama);
  ad::Tape<float> tape;
  BOOST_CHECK_THROW(model.features(tape, llm::pack({{1, 32}})), std::out_of_range);
  BOOST_CHECK_THROW(model.features(tape, llm::pack({{-1}})), std::out_of_range);
  BOOST_CHECK_THROW(model.features(tape, llm::pack({std::vector<int>(41, 1)})), std::out_of_range);
  llm::Batch batch = llm::pack({{1, 2}});
  batch.offsets(1) = 1;
  BOOST_CHECK_THROW(model.features(tape, batch), std::invalid_argument);
  BOOST_CHECK_THROW(model.loss(tape, llm::pack({{1, 2}})), std::invalid_argument);  // no targets
}
