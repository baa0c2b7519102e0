// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Quantized
#include "Support.h"

#include <boost/mpl/list.hpp>

using namespace EigenQ;
using namespace EigenQ::ad;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using EigenQ::test::expectClose;
using EigenQ::test::expectGradient;
using EigenQ::test::randomMatrix;

namespace {

using Formats = boost::mpl::list<Int8Matrix, NF4Matrix, FP4Matrix>;

/** 5×70: rows of 4-bit codes begin inside a block, and the last block is partial. */
template <typename W>
W quantized() {
  return W(randomMatrix<float>(5, 70, 1));
}

template <typename W>
MatrixXd dequantized(const W& w) {
  return MatrixXf(w).template cast<double>();
}

}  // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(gradients, W, Formats) {
  const W w = quantized<W>();
  expectGradient([&](Tape<double>&, const auto& v) { return linear(w, v[0]); }, {{70, 3}});
  expectGradient([&](Tape<double>&, const auto& v) { return linear(w, v[0], v[1]); }, {{70, 1}, {5, 1}});
  expectGradient([&](Tape<double>&, const auto& v) { return linear(w, v[0]) + linear(w, v[0]); }, {{70, 1}});
  expectGradient(
      [&](Tape<double>&, const auto& v) {
        return loraLinear(w, v[0], v[1], v[2], {0.5, 0.3}, v[3]);
      },
      {{2, 70}, {5, 2}, {70, 2}, {5, 1}});
}

BOOST_AUTO_TEST_CASE_TEMPLATE(productsAreThoseOfTheDequantizedWeight, W, Formats) {
  const W w = quantized<W>();
  const MatrixXd dense = dequantized(w);
  for (Eigen::Index tokens : {0, 1, 2, 17}) {
    const MatrixXf x = randomMatrix<float>(70, tokens, 2), b = randomMatrix<float>(5, 1, 3),
                   seed = randomMatrix<float>(5, tokens, 4);
    Tape<float> tape;
    const Var<float> in = tape.variable(x), bias = tape.variable(b);
    const Var<float> plain = linear(w, in), biased = linear(w, in, bias);
    const MatrixXd product = dense * x.cast<double>();
    expectClose(plain.value(), product, 1e-5);  // sums of 70 terms below 1 in float: 70·2⁻²⁴·Σ|w||x| < 1e-4·2
    expectClose(biased.value(), product + b.cast<double>() * MatrixXd::Ones(1, tokens), 1e-5);
    tape.backward(biased, seed);
    tape.backward(plain, seed);  // accumulates: twice the gradient
    expectClose(in.grad(), 2 * dense.transpose() * seed.cast<double>(), 1e-5);
    // A product: rowwise().sum() over no columns steps from a null pointer in Eigen 3.4.
    expectClose(bias.grad(), seed * MatrixXf::Ones(tokens, 1), 1e-5);
  }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(aFrozenLayerOnDataRecordsNoPullback, W, Formats) {
  const W w = quantized<W>();
  Tape<float> tape;
  BOOST_TEST(!linear(w, tape.constant(randomMatrix<float>(70, 2, 2))).requiresGrad());
  BOOST_TEST(linear(w, tape.variable(randomMatrix<float>(70, 2, 2))).requiresGrad());
}

BOOST_AUTO_TEST_CASE(loraTrainsAdaptersAroundAWeightThatStaysTheSameToTheBit) {
  const NF4Matrix w(randomMatrix<float>(6, 64, 1), 64, Statistics::kNested);
  const ByteVector before = w.packed();
  Parameter<float> a(randomMatrix<float>(2, 64, 2) / 8, "a"), b(MatrixXf::Zero(6, 2), "b");
  const MatrixXf x = randomMatrix<float>(64, 20, 3), target = randomMatrix<float>(6, 20, 4);
  Tape<float> tape;
  AdamW<float> optimizer({&a, &b}, {/*learningRate=*/0.02});
  float first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    tape.clear();
    optimizer.zeroGrad();
    const Var<float> error = loraLinear(w, a, b, tape.constant(x), {2, 0}) - tape.constant(target);
    const Var<float> loss = mean(cwiseProduct(error, error));
    tape.backward(loss);
    optimizer.step();
    (step == 0 ? first : last) = loss.item();
  }
  BOOST_TEST(last < 0.7f * first);
  BOOST_TEST((w.packed() == before));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(embeddingsTakeTheRowsOfAFrozenTable, W, Formats) {
  const W w = quantized<W>();
  const MatrixXf dense = w;
  const Eigen::VectorXi ids = EigenQ::test::integers({4, 0, 4, 2});
  Tape<float> tape;
  const Var<float> x = embedding(tape, w, ids);
  BOOST_TEST_REQUIRE(x.rows() == 70);
  BOOST_TEST_REQUIRE(x.cols() == 4);
  for (Eigen::Index t = 0; t < 4; ++t) BOOST_TEST((x.value().col(t) == dense.row(ids(t)).transpose()));
  BOOST_TEST(!x.requiresGrad());
  BOOST_CHECK_THROW(embedding(tape, w, EigenQ::test::integers({5})), std::out_of_range);
  // Gradients of what follows do not mind.
  expectGradient([&](Tape<double>& t, const auto& v) { return linear(v[0], embedding(t, w, ids)); }, {{3, 70}});
}
