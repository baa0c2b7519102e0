// SPDX-License-Identifier: MPL-2.0
// The ops that the library's kernels compute in float, against the same ops in double, which finite differences check.
#define BOOST_TEST_MODULE FloatOps
#include "Support.h"

using namespace EigenQ::ad;
using Eigen::Index;
using EigenQ::test::expectClose;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;

namespace {

using Shapes = std::vector<std::pair<Index, Index>>;

template <typename Scalar>
struct Run {
  Eigen::MatrixX<Scalar> value;
  std::vector<Eigen::MatrixX<Scalar>> gradients;
};

template <typename Scalar>
using Op = std::function<Var<Scalar>(Tape<Scalar>&, const std::vector<Var<Scalar>>&)>;

/** Value and gradients of op(inputs) on a tape, from a random seed. */
template <typename Scalar>
Run<Scalar> run(const Op<Scalar>& op, const Shapes& shapes) {
  Tape<Scalar> tape(7);
  std::vector<Var<Scalar>> inputs;
  for (const auto& s : shapes)
    inputs.push_back(tape.variable(randomMatrix<float>(s.first, s.second, inputs.size() + 1).template cast<Scalar>()));
  const Var<Scalar> y = op(tape, inputs);
  Run<Scalar> result{y.value(), {}};
  tape.backward(y, randomMatrix<float>(y.rows(), y.cols(), 99).template cast<Scalar>());
  for (const Var<Scalar>& x : inputs) result.gradients.push_back(x.grad());
  return result;
}

template <typename Scalar>
void setGrad(Parameter<Scalar>& p, const Eigen::MatrixX<Scalar>& gradient) {
  p.zeroGrad();
  Tape<Scalar> tape;
  tape.backward(tape.parameter(p), gradient);
}

void expectFloatIsDouble(const Op<float>& narrow, const Op<double>& wide, const Shapes& shapes) {
  constexpr double tolerance = 2e-5;
  const Run<float> found = run<float>(narrow, shapes);
  const Run<double> exact = run<double>(wide, shapes);
  expectClose(found.value, exact.value, tolerance);
  for (std::size_t i = 0; i < shapes.size(); ++i) expectClose(found.gradients[i], exact.gradients[i], tolerance);
}
/** \param op  callable with either scalar */
template <typename Generic>
void expectFloatIsDouble(const Generic& op, const Shapes& shapes) {
  expectFloatIsDouble(op, op, shapes);
}

}  // namespace

BOOST_AUTO_TEST_CASE(attentionOfPackedSequences) {
  const auto check = [](AttentionHeads h, const Eigen::VectorXi& offsets) {
    const Index tokens = offsets(offsets.size() - 1), rows = h.heads * h.headDim, kvRows = h.kvHeads * h.headDim;
    BOOST_TEST_CONTEXT(tokens << " tokens, headDim " << h.headDim << ", window " << h.window)
    expectFloatIsDouble([&](auto&, const auto& v) { return causalAttention(v[0], v[1], v[2], h, offsets); },
                        {{rows, tokens}, {kvRows, tokens}, {kvRows, tokens}});
  };
  check({1, 1, 1}, integers({0, 1}));
  check({4, 2, 3}, integers({0, 3, 3, 4, 71}));
  check({2, 1, 32}, integers({0, 150, 151}));
  check({3, 1, 40}, integers({0, 65}));
  check({2, 2, 16, 1}, integers({0, 70}));
  check({2, 1, 8, 40}, integers({0, 130, 200}));
}

BOOST_AUTO_TEST_CASE(attentionOfOneMatrixInThreeRoles) {
  const AttentionHeads h{2, 2, 5};
  const Eigen::VectorXi offsets = integers({0, 70});
  expectFloatIsDouble([&](auto&, const auto& v) { return causalAttention(v[0], v[0], v[0], h, offsets); }, {{10, 70}});
}

BOOST_AUTO_TEST_CASE(attentionDoesNotDependOnThreads) {
  const AttentionHeads h{6, 2, 24};
  const Eigen::VectorXi offsets = integers({0, 100, 180});
  const auto op = [&](auto&, const auto& v) { return causalAttention(v[0], v[1], v[2], h, offsets); };
  const Shapes shapes = {{144, 180}, {48, 180}, {48, 180}};
  EigenQ::setMaxThreads(1);
  const Run<float> one = run<float>(op, shapes);
  EigenQ::setMaxThreads(5);
  const Run<float> many = run<float>(op, shapes);
  EigenQ::setMaxThreads(0);
  BOOST_TEST(EigenQ::test::sameBits<float>(one.value, many.value));
  for (std::size_t i = 0; i < 3; ++i) BOOST_TEST(EigenQ::test::sameBits<float>(one.gradients[i], many.gradients[i]));
}

BOOST_AUTO_TEST_CASE(normsAndGates) {
  for (const Index rows : {1, 7, 16, 33, 130}) {
    BOOST_TEST_CONTEXT(rows << " rows") {
      expectFloatIsDouble([](auto&, const auto& v) { return rmsNorm(v[0], v[1]); }, {{rows, 5}, {rows, 1}});
      expectFloatIsDouble([](auto&, const auto& v) { return swiglu(v[0], v[1]); }, {{rows, 5}, {rows, 5}});
      expectFloatIsDouble([](auto&, const auto& v) { return swiglu(v[0], v[0]); }, {{rows, 5}});
      expectFloatIsDouble([](auto&, const auto& v) { return rmsNorm(v[0] + v[0], v[1]) + v[0]; },
                          {{rows, 5}, {rows, 1}});
    }
  }
}

BOOST_AUTO_TEST_CASE(rotations) {
  const Eigen::VectorXi positions = integers({0, 3, 1, 9, 2});
  for (const RopePairs pairs : {RopePairs::Half, RopePairs::Adjacent}) {
    const RopeTable<float> narrow(10, 10, 100, pairs);
    const RopeTable<double> wide(10, 10, 100, pairs);
    const auto op = [&](auto& tape, const auto& v) {
      if constexpr (std::is_same_v<std::decay_t<decltype(tape)>, Tape<float>>)
        return rope(v[0], narrow, positions) + v[0];
      else
        return rope(v[0], wide, positions) + v[0];
    };
    expectFloatIsDouble(op, {{30, 5}});
  }
}

BOOST_AUTO_TEST_CASE(lossesAndMasks) {
  const Eigen::VectorXi targets = integers({3, -100, 36, 0});
  expectFloatIsDouble([&](auto&, const auto& v) { return crossEntropy(10 * v[0], targets); }, {{37, 4}});
  expectFloatIsDouble([&](auto&, const auto& v) { return linearCrossEntropy(v[0], v[1], targets); }, {{37, 9}, {9, 4}});
  expectFloatIsDouble([](auto&, const auto& v) { return dropout(v[0], 0.3) + v[0]; }, {{37, 9}});
  expectFloatIsDouble(
      [](auto&, const auto& v) {
        return loraLinear(v[0], v[1], v[2], v[3], {0.5, 0.25});
      },
      {{40, 33}, {4, 33}, {40, 4}, {33, 21}});
}

BOOST_AUTO_TEST_CASE(stepsOfAdamW) {
  const Eigen::MatrixXf start = randomMatrix<float>(13, 11, 1);
  Parameter<float> narrow(start);
  Parameter<double> wide(start.cast<double>());
  AdamW<float> ours({&narrow}, {0.01, 0.8, 0.95, 1e-6, 0.1});
  AdamW<double> exact({&wide}, {0.01, 0.8, 0.95, 1e-6, 0.1});
  for (std::uint64_t i = 0; i < 5; ++i) {
    const Eigen::MatrixXf g = randomMatrix<float>(13, 11, 10 + i);
    setGrad<float>(narrow, g);
    setGrad<double>(wide, g.cast<double>());
    ours.step(0.5f);
    exact.step(0.5);
  }
  expectClose(narrow.value(), wide.value(), 1e-6);
}
