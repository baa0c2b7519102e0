// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE LinearCrossEntropy
#include "Support.h"

#include <stdexcept>

using namespace EigenQ;
using namespace EigenQ::ad;
using Eigen::Index;
using Eigen::MatrixXf;
using EigenQ::test::expectClose;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;

namespace {

constexpr Index kClasses = 13, kDim = 5, kTokens = 11;
const Eigen::VectorXi kSome = integers({0, 12, -100, 3, 4, -100, 9, 1, 1, 0, -100});
const Eigen::VectorXi kNone = Eigen::VectorXi::Constant(kTokens, -100);

struct Found {
  float loss;
  MatrixXf dh, dw;
};

/** Loss and gradients by \a op(tape, w, h), times three. \param weight  a Parameter, or anything frozen */
template <typename Weight, typename Op>
Found gradients(Weight& weight, const Op& op) {
  Tape<float> tape;
  const Var<float> h = tape.variable(randomMatrix<float>(kDim, kTokens, 2));
  const Var<float> loss = op(weight, h);
  tape.backward(3 * loss);
  Found found{loss.item(), h.grad(), {}};
  if constexpr (std::is_same_v<Weight, Parameter<float>>) {
    found.dw = weight.grad();
    weight.zeroGrad();
  }
  return found;
}

/** With chunks of any size it is crossEntropy(linear()) but for the order of sums. */
template <typename Weight>
void expectTheTwoOps(Weight& weight) {
  for (const Eigen::VectorXi& targets : {kSome, kNone})
    for (const Reduction reduction : {Reduction::Mean, Reduction::Sum}) {
      const Found expected = gradients(
          weight, [&](Weight& w, const Var<float>& h) { return crossEntropy(linear(w, h), targets, -100, reduction); });
      for (const Index chunk : {0, 1, 4, 10, 11, 12}) {
        const Found found = gradients(weight, [&](Weight& w, const Var<float>& h) {
          return linearCrossEntropy(w, h, targets, -100, reduction, chunk);
        });
        BOOST_TEST(std::abs(found.loss - expected.loss) <= 1e-6f * std::abs(expected.loss));
        expectClose(found.dh, expected.dh, 2e-6);
        expectClose(found.dw, expected.dw, 2e-6);
      }
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(aTrainedHead) {
  Parameter<float> w(randomMatrix<float>(kClasses, kDim, 1));
  expectTheTwoOps(w);
}

BOOST_AUTO_TEST_CASE(frozenHeads) {
  const MatrixXf dense = randomMatrix<float>(kClasses, kDim, 1);
  Parameter<float> frozen(dense, "frozen", /*requiresGrad=*/false);
  expectTheTwoOps(frozen);
  Int8Matrix int8(dense);
  expectTheTwoOps(int8);
  NF4Matrix nf4(dense);
  expectTheTwoOps(nf4);
}

BOOST_AUTO_TEST_CASE(gradientsAreThoseOfCentralDifferences) {
  for (const Eigen::VectorXi& targets : {kSome, kNone})
    for (const Reduction reduction : {Reduction::Mean, Reduction::Sum})
      test::expectGradient(
          [&](Tape<double>&, const test::Vars& v) {
            return linearCrossEntropy(v[0], v[1], targets, -100, reduction, 4) + 0.5 * sum(v[1]);
          },
          {{kClasses, kDim}, {kDim, kTokens}});
  const NF4Matrix nf4(randomMatrix<float>(kClasses, kDim, 1));
  test::expectGradient(
      [&](Tape<double>&, const test::Vars& v) {
        return linearCrossEntropy(nf4, v[0], kSome, -100, Reduction::Mean, 4);
      },
      {{kDim, kTokens}});
}

BOOST_AUTO_TEST_CASE(ignoredTokensChangeNothing) {
  Parameter<float> w(randomMatrix<float>(3, 2, 1));
  Tape<float> tape;
  MatrixXf x = MatrixXf::Ones(2, 3);
  x.col(1).setConstant(std::numeric_limits<float>::infinity());
  const Var<float> h = tape.variable(x), one = tape.variable(MatrixXf::Ones(2, 1));
  const Var<float> loss = linearCrossEntropy(w, h.detach(), integers({2, 7, 2}), /*ignoreIndex=*/7);
  BOOST_TEST(loss.item() == crossEntropy(linear(w, one), integers({2})).item());
  const Var<float> none = linearCrossEntropy(w, h, integers({7, 7, 7}), 7);
  BOOST_TEST(none.item() == 0);
  tape.backward(none);
  BOOST_TEST((h.grad().array() == 0).all());
}

BOOST_AUTO_TEST_CASE(noTokenIsNoLoss) {
  Parameter<float> w(randomMatrix<float>(3, 2, 1));
  Tape<float> tape;
  const Var<float> loss = linearCrossEntropy(w, tape.variable(MatrixXf(2, 0)), Eigen::VectorXi());
  BOOST_TEST(loss.item() == 0);
  tape.backward(loss);
  BOOST_TEST((w.grad().array() == 0).all());
}

BOOST_AUTO_TEST_CASE(backwardTwiceAddsTwice) {
  Parameter<float> w(randomMatrix<float>(kClasses, kDim, 1));
  Tape<float> tape;
  const Var<float> h = tape.variable(randomMatrix<float>(kDim, kTokens, 2));
  const Var<float> loss = linearCrossEntropy(w, h, kSome, -100, Reduction::Mean, 4);
  tape.backward(loss);
  const MatrixXf dw = w.grad(), dh = h.grad();
  tape.backward(loss);
  BOOST_TEST(test::sameBits<float>(w.grad(), 2 * dw));
  BOOST_TEST(test::sameBits<float>(h.grad(), 2 * dh));
}

BOOST_AUTO_TEST_CASE(aLongBatchTakesTheMemoryOfAChunk) {
  constexpr Index kManyClasses = 1000, kManyTokens = 4096;
  const NF4Matrix w(randomMatrix<float>(kManyClasses, 8, 1));
  const auto reserved = [&](Index chunk) {
    Tape<float> tape;
    const Var<float> h = tape.variable(MatrixXf::Ones(8, kManyTokens));
    tape.backward(linearCrossEntropy(w, h, Eigen::VectorXi::Zero(kManyTokens), -100, Reduction::Mean, chunk));
    return tape.bytesReserved();
  };
  BOOST_TEST(reserved(kManyTokens) > kManyClasses * kManyTokens * sizeof(float));
  BOOST_TEST(reserved(64) < kManyClasses * kManyTokens * sizeof(float) / 10);
}

BOOST_AUTO_TEST_CASE(mistakesAreReported) {
  Parameter<float> w(randomMatrix<float>(3, 2, 1));
  Tape<float> tape;
  const Var<float> h = tape.variable(MatrixXf::Ones(2, 2));
  BOOST_CHECK_THROW(linearCrossEntropy(w, h, integers({0})), std::invalid_argument);
  BOOST_CHECK_THROW(linearCrossEntropy(w, h, integers({0, 3})), std::out_of_range);
  BOOST_CHECK_THROW(linearCrossEntropy(w, h, integers({-1, 0})), std::out_of_range);
}
