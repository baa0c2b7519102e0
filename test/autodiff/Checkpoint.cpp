// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Checkpoint
#include "Support.h"

#include <memory>
#include <stdexcept>

#include <boost/mpl/list.hpp>

using namespace EigenQ;
using namespace EigenQ::ad;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;
using EigenQ::test::sameBits;

namespace {

constexpr Eigen::Index kDim = 8, kHidden = 12, kTokens = 7;

/** A decoder layer: norm, rotated attention, a gated block over frozen weights with an adapter and dropout. */
template <typename Frozen>
struct Layer {
  explicit Layer(std::uint64_t seed)
      : up(randomMatrix<float>(kHidden, kDim, seed)),
        down(randomMatrix<float>(kDim, kHidden, seed + 1)),
        gain(randomMatrix<float>(kDim, 1, seed + 2), "gain"),
        wq(randomMatrix<float>(kDim, kDim, seed + 3), "wq"),
        a(randomMatrix<float>(2, kHidden, seed + 4), "a"),
        b(randomMatrix<float>(kDim, 2, seed + 5), "b") {}

  Var<float> operator()(const Var<float>& x) {
    const Var<float> h = rmsNorm(x, gain);
    const Var<float> q = rope(linear(wq, h), table, positions);
    const Var<float> y = x + dropout(causalAttention(q, q, h, {2, 2, 4}, integers({0, 4, kTokens})), 0.2);
    const Var<float> g = linear(up, rmsNorm(y, gain));  // the gain once more
    return y + loraLinear(down, a, b, swiglu(g, g), {2, 0.1});
  }
  std::vector<Parameter<float>*> parameters() { return {&gain, &wq, &a, &b}; }

  Frozen up, down;
  Parameter<float> gain, wq, a, b;
  RopeTable<float> table{4, 8};
  Eigen::VectorXi positions = integers({0, 1, 2, 3, 0, 1, 2});
};

enum class Recording { kPlain, kCheckpoints, kNested };

template <typename Frozen>
struct Model {
  Var<float> loss(Tape<float>& tape, Recording recording) {
    Var<float> x = tape.parameter(input);
    const auto both = [this](const Var<float>& in) { return layers[2](layers[1](in)); };
    if (recording == Recording::kPlain) {
      x = both(layers[0](x));
    } else {
      x = checkpoint(
          tape, [this](const Var<float>& in) { return layers[0](in); }, x);
      const auto nested = [this, recording](Tape<float>& t, const Var<float>& in) {
        if (recording == Recording::kCheckpoints) return layers[2](layers[1](in));
        const auto one = [this](const Var<float>& i) { return layers[1](i); };
        const auto two = [this](const Var<float>& i) { return layers[2](i); };
        return checkpoint(t, two, checkpoint(t, one, in));
      };
      x = checkpoint(tape, nested, x);
    }
    return crossEntropy(linear(head, x + layers[0](x)), integers({0, 1, 2, -100, 1, 0, 2}));  // a layer once more
  }
  std::vector<Parameter<float>*> parameters() {
    std::vector<Parameter<float>*> all{&input, &head};
    for (Layer<Frozen>& layer : layers)
      for (Parameter<float>* p : layer.parameters()) all.push_back(p);
    return all;
  }

  Parameter<float> input{randomMatrix<float>(kDim, kTokens, 50), "input"};
  Parameter<float> head{randomMatrix<float>(3, kDim, 51), "head"};
  std::vector<Layer<Frozen>> layers = [] {
    std::vector<Layer<Frozen>> three;
    for (std::uint64_t i = 0; i < 3; ++i) three.emplace_back(10 * i + 1);
    return three;
  }();
};

/** The loss and all gradients after two backward() over the second of two steps. */
template <typename Frozen>
std::vector<Eigen::MatrixXf> gradients(Recording recording) {
  Model<Frozen> model;
  Tape<float> tape(42);
  tape.backward(model.loss(tape, recording));
  tape.clear();
  const Var<float> loss = model.loss(tape, recording);
  tape.backward(loss);
  tape.backward(loss);
  std::vector<Eigen::MatrixXf> found{loss.value()};
  for (const Parameter<float>* p : model.parameters()) found.push_back(p->grad());
  return found;
}

bool mentions(const std::exception& e, const char* words) {
  return std::string(e.what()).find(words) != std::string::npos;
}

using Eigen::MatrixXd;

using Weights = boost::mpl::list<Parameter<float>, NF4Matrix, Int8Matrix>;

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(gradientsHaveTheSameBits, W, Weights) {
  const std::vector<Eigen::MatrixXf> plain = gradients<W>(Recording::kPlain);
  for (const Recording recording : {Recording::kCheckpoints, Recording::kNested}) {
    const std::vector<Eigen::MatrixXf> found = gradients<W>(recording);
    for (std::size_t i = 0; i < plain.size(); ++i) {
      BOOST_TEST(plain[i].cwiseAbs().maxCoeff() > 0);
      BOOST_TEST(sameBits<float>(found[i], plain[i]), "matrix " << i << " differs");
    }
  }
}

// On the host a tape of 16 bits has no kernels of its own, but it has the graph: masters are rounded once for the tape,
// wherever they are used first, and their contributions add up in 16 bits before float sees the sum.
BOOST_AUTO_TEST_CASE(gradientsOfFloatMastersHaveTheSameBits) {
  using Half = Eigen::half;
  const auto gradients = [](bool checkpoints) {
    Parameter<float> first(randomMatrix<float>(5, 5, 1), "first"), second(randomMatrix<float>(5, 5, 2), "second");
    Tape<Half> tape;
    std::vector<Eigen::MatrixXf> found;
    const auto layer = [&](Tape<Half>& t, const Var<Half>& x) { return 0.5 * (x + t.parameter(first) * x); };
    const auto both = [&](Tape<Half>& t, const Var<Half>& x) { return layer(t, t.parameter(second) * layer(t, x)); };
    for (int step = 0; step < 2; ++step) {
      tape.clear();
      Var<Half> x = tape.variable(randomMatrix<float>(5, 5, 3).cast<Half>());
      for (int i = 0; i < 3; ++i) x = checkpoints ? checkpoint(tape, both, x) : both(tape, x);
      x = x * tape.parameter(second);
      for (int times = 0; times < 2; ++times) tape.backward(x, Eigen::MatrixX<Half>::Ones(5, 5));
    }
    return std::make_pair(first.grad(), second.grad());
  };
  const auto plain = gradients(false), found = gradients(true);
  BOOST_TEST(plain.first.allFinite());
  BOOST_TEST(plain.first.norm() > 0);
  BOOST_TEST(sameBits<float>(found.first, plain.first));
  BOOST_TEST(sameBits<float>(found.second, plain.second));
}

BOOST_AUTO_TEST_CASE(gradientsAreThoseOfCentralDifferences) {
  test::expectGradient(
      [](Tape<double>& tape, const test::Vars& v) {
        const auto inner = [captured = 2 * v[2]](const Var<double>& a, const Var<double>& b) {
          return dropout(cwiseProduct(tanh(a), b), 0.3) + cwiseProduct(a, captured);
        };
        return checkpoint(tape, inner, v[0], v[1]) + v[0];
      },
      {{3, 5}, {3, 5}, {3, 5}});
}

BOOST_AUTO_TEST_CASE(parametersInsideAreTrainedWhereNoInputIs) {
  Parameter<double> p(MatrixXd::Constant(1, 1, 3), "p"), frozen(MatrixXd::Ones(1, 1), "frozen", false);
  Tape<double> tape;
  const Var<double> x = tape.constant(MatrixXd::Constant(1, 1, 5));
  const auto times = [&tape, x](Parameter<double>& w) {
    return checkpoint(
        tape, [&w](const Var<double>& in) { return linear(w, in); }, x);
  };
  BOOST_TEST(!times(frozen).requiresGrad());
  tape.backward(times(p));
  BOOST_TEST(p.grad()(0, 0) == 5);
  const NoGradGuard<double> guard(tape);
  BOOST_TEST(!times(p).requiresGrad());
}

BOOST_AUTO_TEST_CASE(aStackHoldsItsResultsAndTheValuesOfOneLayer) {
  constexpr Eigen::Index kSize = 64;
  constexpr std::size_t kBytes = kSize * kSize * sizeof(float);
  const auto deep = [](Var<float> x) {
    for (int i = 0; i < 50; ++i) x = tanh(x);
    return x;
  };
  // Reserved memory grows by blocks: an upper bound of what 50 and of what a few matrices take.
  const auto reserved = [&](int layers, bool checkpoints, bool backward) {
    Tape<float> tape;
    Var<float> x = tape.variable(Eigen::MatrixXf::Ones(kSize, kSize));
    for (int i = 0; i < layers; ++i) x = checkpoints ? checkpoint(tape, deep, x) : deep(x);
    if (backward) tape.backward(x, Eigen::MatrixXf::Ones(kSize, kSize));
    return tape.bytesReserved() / kBytes;
  };
  BOOST_TEST(reserved(40, false, false) >= 2000u);
  BOOST_TEST(reserved(40, true, false) <= 2u * (50 + 40));
  BOOST_TEST(reserved(40, true, true) <= 2u * (50 + 40 + 4));
}

BOOST_AUTO_TEST_CASE(theRandomStreamsGoOnAsWithoutACheckpoint) {
  const auto masks = [](bool checkpoints, bool backward) {
    Tape<float> tape(5);
    const Var<float> x = tape.variable(Eigen::MatrixXf::Ones(4, 4));
    const auto twice = [](const Var<float>& in) { return dropout(dropout(in, 0.5), 0.5); };
    const Var<float> y = checkpoints ? checkpoint(tape, twice, x) : twice(x);
    if (backward) tape.backward(y, Eigen::MatrixXf::Ones(4, 4));
    return Eigen::MatrixXf(dropout(x, 0.5).value());
  };
  const Eigen::MatrixXf plain = masks(false, false);
  BOOST_TEST(sameBits<float>(masks(true, false), plain));
  BOOST_TEST(sameBits<float>(masks(true, true), plain));
}

BOOST_AUTO_TEST_CASE(anExceptionLeavesTheTapeAsItWas) {
  Tape<double> tape(3);
  Parameter<double> p(MatrixXd::Ones(2, 2), "p");
  const Var<double> x = tape.variable(MatrixXd::Ones(2, 2)), y = 2 * x;
  const auto throwing = [&](const Var<double>& in) -> Var<double> {
    (void)dropout(linear(p, in), 0.5);
    throw std::runtime_error("no");
  };
  const std::size_t nodes = tape.nodeCount();
  const RandomStream random = Tape<double>(3).nextRandomStream();
  BOOST_CHECK_THROW(checkpoint(tape, throwing, y), std::runtime_error);
  BOOST_TEST(tape.nodeCount() == nodes);
  BOOST_TEST(tape.gradEnabled());
  BOOST_TEST(tape.nextRandomStream().stream == random.stream);
  p.mutableValue().setZero();  // nobody reads it
  tape.backward(sum(y));
  BOOST_TEST((x.grad().array() == 2).all());
}

BOOST_AUTO_TEST_CASE(anExceptionInAReplayLeavesTheTapeUsable) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  auto calls = std::make_shared<int>(0);
  const auto second = [calls](const Var<double>& in) {
    if (++*calls == 2) throw std::runtime_error("no");
    return 2 * in;
  };
  const Var<double> y = 3 * checkpoint(tape, second, x);
  const std::size_t nodes = tape.nodeCount();
  BOOST_CHECK_THROW(tape.backward(y), std::runtime_error);
  BOOST_TEST(tape.nodeCount() == nodes);
  tape.backward(y);
  BOOST_TEST(x.grad()(0, 0) == 6);
  tape.clear();
  BOOST_TEST(calls.use_count() == 2);  // ours and that of the function, not the tape's
}

BOOST_AUTO_TEST_CASE(whatDoesNotBelongInsideIsRefused) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const auto clearing = [&](const Var<double>& in) {
    tape.clear();
    return in;
  };
  const auto walking = [&](const Var<double>& in) {
    tape.backward(2 * in);
    return in;
  };
  BOOST_CHECK_EXCEPTION(checkpoint(tape, clearing, x), std::logic_error,
                        [](const auto& e) { return mentions(e, "inside a checkpoint"); });
  BOOST_CHECK_THROW(checkpoint(tape, walking, x), std::logic_error);
  const Var<double> y = tape.record("inner", {x}, x.value(), [=, &tape](const auto&) {
    (void)checkpoint(
        tape, [](const Var<double>& in) { return in; }, x);
  });
  BOOST_CHECK_THROW(tape.backward(y), std::logic_error);
}

BOOST_AUTO_TEST_CASE(varsOfTheFunctionEndWithIt) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  Var<double> leaked;
  const auto leaking = [&leaked](const Var<double>& in) {
    leaked = 2 * in;
    return 3 * leaked;
  };
  const Var<double> y = checkpoint(tape, leaking, x);
  const auto ended = [](const auto& e) { return mentions(e, "after the checkpoint()"); };
  BOOST_CHECK_EXCEPTION(leaked.value(), std::logic_error, ended);
  (void)(4 * x);  // stands where the leaked one stood
  BOOST_CHECK_EXCEPTION(leaked.value(), std::logic_error, ended);
  tape.backward(y);
  BOOST_TEST(x.grad()(0, 0) == 6);
  BOOST_CHECK_EXCEPTION(leaked.value(), std::logic_error, ended);
}

BOOST_AUTO_TEST_CASE(aFunctionThatChangesItsShapeIsRefused) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(2, 2));
  int calls = 0;
  const auto shrinking = [&calls](const Var<double>& in) { return middleRows(in, 0, 2 - calls++); };
  const Var<double> y = sum(checkpoint(tape, shrinking, x));
  BOOST_CHECK_EXCEPTION(tape.backward(y), std::logic_error,
                        [](const auto& e) { return mentions(e, "another matrix"); });
}

BOOST_AUTO_TEST_CASE(aParameterModifiedBeforeTheReplayIsDetected) {
  Tape<double> tape;
  Parameter<double> w(MatrixXd::Ones(1, 1), "w");
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const auto inner = [&w](const Var<double>& in) { return linear(w, in); };
  const auto outer = [&](const Var<double>& in) { return checkpoint(tape, inner, in); };
  const Var<double> y = checkpoint(tape, outer, x);
  w.mutableValue()(0, 0) = 2;
  BOOST_CHECK_EXCEPTION(tape.backward(y), std::logic_error, [](const auto& e) { return mentions(e, "parameter 'w'"); });
}

BOOST_AUTO_TEST_CASE(aRetainedGradientIsThatOfTheResult) {
  Tape<double> tape;
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const Var<double> y = checkpoint(
      tape, [](const Var<double>& in) { return 2 * in; }, x);
  y.retainGrad();
  tape.backward(3 * y);
  BOOST_TEST(y.grad()(0, 0) == 3);
  BOOST_TEST(x.grad()(0, 0) == 6);
}

BOOST_AUTO_TEST_CASE(aFunctionMayReturnWhatItWasGiven) {
  Tape<double> tape;
  Parameter<double> p(MatrixXd::Ones(1, 1), "p");
  const Var<double> x = tape.variable(MatrixXd::Ones(1, 1));
  const Var<double> same = checkpoint(
      tape, [](const Var<double>& in) { return in; }, x);
  const Var<double> leaf = checkpoint(tape, [&p](Tape<double>& t) { return t.parameter(p); });
  tape.backward(2 * same + 3 * leaf);
  BOOST_TEST(x.grad()(0, 0) == 2);
  BOOST_TEST(p.grad()(0, 0) == 3);
}
