// SPDX-License-Identifier: MPL-2.0
// 16-bit tapes over float parameters.
#define BOOST_TEST_MODULE DeviceMixedPrecision
#include <boost/test/unit_test.hpp>

#include <boost/mpl/list.hpp>

#include "AutodiffSupport.h"
#include "support/KernelLog.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using Scalars = boost::mpl::list<Eigen::bfloat16, Eigen::half>;

/** A small net that touches every kind of kernel: table, norm, rotation, attention, quantised and dense weights. */
template <typename Place>
struct Net {
  using P = ad::Parameter<float, Place>;

  std::vector<P*> parameters() { return {&table, &gain, &a, &b, &bias, &head}; }

  template <typename Scalar, typename Weight, typename Table>
  ad::Var<Scalar, Place> loss(ad::Tape<Scalar, Place>& tape, Weight& w, const Table& rotation) {
    const VectorXi ids = integers({1, 5, 3, 0, 7, 2}), targets = integers({5, 3, 0, -100, 2, 1});
    const auto x = ad::embedding(tape, table, ids);
    const auto h = ad::rope(ad::rmsNorm(x, gain), rotation, integers({0, 1, 2, 3, 0, 1}));
    const auto y = ad::causalAttention(h, h, ad::loraLinear(w, a, b, h, {2, 0}, bias), {2, 2, 16}, integers({0, 4, 6}));
    return ad::crossEntropy(ad::linear(head, ad::gelu(x + y)), targets);
  }

  P table{randomMatrix<float>(32, 9, 1), "table"}, gain{randomMatrix<float>(32, 1, 2), "gain"};
  P a{randomMatrix<float>(4, 32, 3) / 4, "a"}, b{randomMatrix<float>(32, 4, 4) / 4, "b"};
  P bias{randomMatrix<float>(32, 1, 5), "bias"}, head{randomMatrix<float>(9, 32, 6) / 4, "head"};
};

}  // namespace

BOOST_AUTO_TEST_SUITE(mixedPrecision, *needsDevice())

// Each entry passes some ten roundings to Scalar, of u = 2⁻⁸ or 2⁻¹¹ relative to the largest of its matrix; gradients
// are sums of a few such errors.
BOOST_AUTO_TEST_CASE_TEMPLATE(gradientsAreThoseOfFloatButForRounding, Scalar, Scalars) {
  const double u = std::is_same_v<Scalar, Eigen::half> ? 1.0 / 2048 : 1.0 / 256;
  const NF4Matrix w(randomMatrix<float>(32, 32, 20) / 4);
  const auto deviceW = gpu::NF4Matrix::fromHost(w);
  Net<Host> host;
  Net<Device> device;
  const ad::RopeTable<float> hostTable(16, 8);
  const ad::RopeTable<Scalar, Device> deviceTable(16, 8);
  ad::Tape<float> hostTape;
  ad::Tape<Scalar, Device> tape;
  const auto expected = host.loss(hostTape, w, hostTable);
  const auto found = device.loss(tape, deviceW, deviceTable);
  BOOST_TEST(std::abs(static_cast<float>(found.item()) - expected.item()) <= 8 * u * expected.item());
  for (const int times : {1, 2}) {
    hostTape.backward(expected);
    tape.backward(found);
    for (std::size_t i = 0; i < host.parameters().size(); ++i) {
      const MatrixXf g = host.parameters()[i]->grad(), d = device.parameters()[i]->grad().toHost();
      const float worst = (d - g).cwiseAbs().maxCoeff(), bound = static_cast<float>(24 * u) * g.cwiseAbs().maxCoeff();
      BOOST_TEST(worst <= bound, host.parameters()[i]->name()
                                     << ", " << times << " times: off by " << worst << ", bound " << bound);
    }
  }
}

// Y += s·B·U and dX += Aᵀ·dU; with more than 128 tokens the gradients of A and B are long sums.
BOOST_AUTO_TEST_CASE_TEMPLATE(adaptersReadAndWriteAResultOnce, Scalar, Scalars) {
  const auto w = gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(64, 48, 1)));
  ad::Parameter<float, Device> a(randomMatrix<float>(8, 48, 2), "a"), b(randomMatrix<float>(64, 8, 3), "b");
  ad::Parameter<float, Device> x(randomMatrix<float>(48, 130, 4), "x");
  ad::Tape<Scalar, Device> tape;
  const KernelLog log;
  const auto y = ad::loraLinear(w, a, b, tape.parameter(x), {/*scale=*/2});
  BOOST_TEST(log.denseProductsBy("mma.update") == 1);
  tape.backward(ad::sum(y));
  BOOST_TEST(log.denseProductsBy("mma.update") == 2);
}

BOOST_AUTO_TEST_CASE(aParameterIsRoundedOnceARecording) {
  using Scalar = Eigen::bfloat16;
  ad::Parameter<float, Device> p(randomMatrix<float>(5, 3, 1), "p");
  ad::Tape<Scalar, Device> tape;
  const auto first = tape.parameter(p), second = tape.parameter(p);
  BOOST_TEST(tape.nodeCount() == 1u);
  BOOST_TEST((first.value().toHost() == p.value().toHost().cast<Scalar>()));
  tape.backward(ad::sum(first + second));
  BOOST_TEST((p.grad().toHost().array() == 2).all());
  p.mutableValue().setZero();
  BOOST_CHECK_THROW(tape.backward(ad::sum(first)), std::logic_error);
  const auto third = tape.parameter(p);
  BOOST_TEST((third.value().toHost().cast<float>().array() == 0).all());
}

BOOST_AUTO_TEST_CASE(stepsTooSmallForSixteenBitsAddUp) {
  ad::Parameter<float, Device> p(MatrixXf::Ones(4, 4), "p");
  ad::Sgd<float, Device> optimizer({&p}, {/*learningRate=*/1.0 / 1024});  // a quarter of an ulp of bfloat16 below 1
  ad::Tape<Eigen::bfloat16, Device> tape;
  for (int step = 0; step < 64; ++step) {
    tape.clear();
    optimizer.zeroGrad();
    tape.backward(ad::sum(tape.parameter(p)));
    optimizer.step();
  }
  BOOST_TEST((p.value().toHost().array() == 1 - 64.0f / 1024).all());
}

BOOST_AUTO_TEST_SUITE_END()
