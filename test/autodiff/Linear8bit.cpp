// SPDX-License-Identifier: MPL-2.0
// LLM.int8() on the tape: frozen codes with a threshold, and weights that are trained through their codes.
#define BOOST_TEST_MODULE Linear8bit
#include "Support.h"

#include <boost/mpl/list.hpp>

using namespace EigenQ;
using namespace EigenQ::ad;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using EigenQ::test::randomMatrix;

namespace {

/** in×tokens; feature 5 holds an outlier. */
MatrixXf activations(Eigen::Index features, Eigen::Index tokens) {
  MatrixXf x = randomMatrix<float>(features, tokens, 7);
  x(5, tokens / 2) = -30;
  return x;
}

}  // namespace

BOOST_AUTO_TEST_CASE(aFrozenWeightWithAThreshold) {
  const Int8Matrix w(randomMatrix<float>(6, 40, 1));
  const MatrixXf x = activations(40, 9), b = randomMatrix<float>(6, 1, 2), seed = randomMatrix<float>(6, 9, 3);
  Tape<float> tape;
  const Var<float> in = tape.variable(x), bias = tape.variable(b);
  const Var<float> y = linear(w.withThreshold(6), in, bias);  // the temporary refers to w
  const MatrixXf expected = (w.withThreshold(6) * x).colwise() + b.col(0);
  BOOST_TEST((y.value() == expected));
  BOOST_TEST((y.value() != linear(w, in, bias).value()));  // it does quantise
  tape.backward(y, seed);
  BOOST_TEST((in.grad() == MatrixXf(w.transpose() * seed)));
  BOOST_TEST((bias.grad() == MatrixXf(seed.rowwise().sum())));
}

BOOST_AUTO_TEST_CASE(aTrainedWeightIsThePlainFunctions) {
  for (const float threshold : {0.0f, 6.0f}) {
    for (const bool viaDense : {true, false}) {
      Parameter<float> weight(randomMatrix<float>(6, 40, 1), "w");
      const MatrixXf x = activations(40, 9), b = randomMatrix<float>(6, 1, 2), seed = randomMatrix<float>(6, 9, 3);
      MatmulLtState state, plain;
      state.threshold = plain.threshold = threshold;
      state.memoryEfficientBackward = plain.memoryEfficientBackward = viaDense;
      Tape<float> tape;
      const Var<float> in = tape.variable(x), bias = tape.variable(b);
      const Var<float> y = linear8bit(weight, in, state, bias);
      BOOST_TEST((y.value().transpose() == matMul8bitLt(x.transpose(), weight.value(), plain, b)));
      tape.backward(y, seed);
      const auto expected = matMul8bitLtBackward(seed.transpose(), x.transpose(), plain, plain.outlierColumns);
      BOOST_TEST((in.grad() == expected.a.transpose()));
      BOOST_TEST(plain.outlierColumns.size() == (threshold > 0 ? 1 : 0));
      // Outlier features: summed in float here, in double there.
      BOOST_TEST((weight.grad() - expected.b).norm() <= 1e-6f * expected.b.norm());
      const MatrixXf once = weight.grad(), onceX = in.grad();
      tape.backward(y, seed);  // accumulates
      BOOST_TEST((weight.grad() - 2 * once).norm() <= 1e-6f * once.norm());
      BOOST_TEST((in.grad() - 2 * onceX).norm() <= 1e-6f * onceX.norm());
    }
  }
}

BOOST_AUTO_TEST_CASE(codesAreThoseOfTheValueAsItIs) {
  Parameter<float> weight(randomMatrix<float>(3, 8, 1));
  const MatrixXf x = randomMatrix<float>(8, 2, 2);
  MatmulLtState state;
  const auto forward = [&] {
    Tape<float> tape;
    return MatrixXf(linear8bit(weight, tape.constant(x), state).value());
  };
  const MatrixXf first = forward();
  state.codes.setZero();  // to see them reused
  BOOST_TEST((forward().array() == 0).all());
  for (const bool training : {true, false}) {
    state.isTraining = training;
    weight.mutableValue() *= 2;
    const MatrixXf moved = forward();
    BOOST_TEST((moved - (training ? 2 : 4) * first).norm() <= 1e-5f * moved.norm());
  }
}

BOOST_AUTO_TEST_CASE(withoutIntegersNothingIsQuantisedButTheWeight) {
  Parameter<float> weight(randomMatrix<float>(6, 40, 1));
  const MatrixXf x = activations(40, 9), seed = randomMatrix<float>(6, 9, 3);
  MatmulLtState state;
  state.threshold = 6;
  state.forceNoIgemmlt = true;
  Tape<float> tape;
  const Var<float> in = tape.variable(x), y = linear8bit(weight, in, state);
  BOOST_TEST((y.value() == MatrixXf(Int8Matrix(weight.value()) * x)));
  tape.backward(y, seed);
  const MatrixXf exact = seed * x.transpose();
  BOOST_TEST((weight.grad() - exact).norm() <= 1e-6f * exact.norm());
}

BOOST_AUTO_TEST_CASE(trainingThroughCodesReachesTheTarget) {
  Parameter<float> weight(MatrixXf::Zero(4, 16), "w"), bias(MatrixXf::Zero(4, 1), "b");
  MatrixXf x = randomMatrix<float>(16, 61, 3);
  x.row(2) *= 40;
  const MatrixXf truth = randomMatrix<float>(4, 16, 4), target = truth * x;
  MatmulLtState state;
  state.threshold = 6;
  Tape<float> tape;
  AdamW<float> optimizer({&weight, &bias}, {/*learningRate=*/0.03f});
  for (int step = 0; step < 300; ++step) {
    tape.clear();
    optimizer.zeroGrad();
    const Var<float> error = linear8bit(weight, tape.constant(x), state, bias) - tape.constant(target);
    tape.backward(mean(cwiseProduct(error, error)));
    optimizer.step();
  }
  BOOST_TEST((weight.value() - truth).norm() <= 0.1f * truth.norm());
}

BOOST_AUTO_TEST_CASE(noTokens) {
  Parameter<float> weight(randomMatrix<float>(3, 8, 1));
  MatmulLtState state;
  Tape<float> tape;
  const Var<float> in = tape.variable(MatrixXf(8, 0)), y = linear8bit(weight, in, state);
  BOOST_TEST((y.rows() == 3 && y.cols() == 0));
  tape.backward(y, MatrixXf(3, 0));
  BOOST_TEST((weight.grad().array() == 0).all());
}
