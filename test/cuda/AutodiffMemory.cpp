// SPDX-License-Identifier: MPL-2.0
// What saves device memory: checkpoints, whose gradients have the bits that they have without, and the head whose
// logits are never all there.
#define BOOST_TEST_MODULE DeviceAutodiffMemory
#include <boost/test/unit_test.hpp>

#include <boost/mpl/list.hpp>

#include "AutodiffSupport.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

using Scalars = boost::mpl::list<float, Eigen::bfloat16, Eigen::half>;

template <typename Scalar>
using DeviceVar = ad::Var<Scalar, Device>;
template <typename Scalar>
using DeviceTape = ad::Tape<Scalar, Device>;
using DeviceParameter = ad::Parameter<float, Device>;

constexpr Index kDim = 32, kHidden = 48, kTokens = 33, kClasses = 70;

/** \tparam Integers  of the host, or of the device for graphs */
template <typename Integers>
struct Batch {
  Integers ids, targets, positions, offsets;
};

Batch<VectorXi> batch() {
  Batch<VectorXi> b{VectorXi(kTokens), VectorXi(kTokens), VectorXi(kTokens), integers({0, 20, kTokens})};
  for (int t = 0; t < kTokens; ++t) {
    b.ids(t) = 7 * t % kClasses;
    b.targets(t) = t % 5 == 2 ? -100 : 11 * t % kClasses;
    b.positions(t) = t % 20;
  }
  return b;
}

/** A decoder layer over 4-bit weights with an adapter and dropout, and a norm that all layers share. */
template <typename Scalar>
struct Layer {
  explicit Layer(std::uint64_t seed)
      : up(gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(kHidden, kDim, seed) / 6))),
        down(gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(kDim, kHidden, seed + 1) / 7))),
        wq(randomMatrix<float>(kDim, kDim, seed + 2) / 6, "wq"),
        a(randomMatrix<float>(4, kHidden, seed + 3) / 7, "a"),
        b(randomMatrix<float>(kDim, 4, seed + 4) / 2, "b") {}

  template <typename Integers>
  DeviceVar<Scalar> run(const DeviceVar<Scalar>& x, DeviceParameter& gain, double p, const Batch<Integers>& in) {
    const auto h = ad::rmsNorm(x, gain);
    const auto q = ad::rope(ad::linear(wq, h), table, in.positions);
    const auto y = x + ad::dropout(ad::causalAttention(q, q, h, {2, 2, 16}, in.offsets), p);
    const auto g = ad::linear(up, ad::rmsNorm(y, gain));
    return y + ad::loraLinear(down, a, b, ad::swiglu(g, g), {2, p / 2});
  }

  gpu::NF4Matrix up, down;
  DeviceParameter wq, a, b;
  ad::RopeTable<Scalar, Device> table{16, 20};
};

enum class Recording { kPlain, kCheckpoints, kNested };

template <typename Scalar>
struct Model {
  template <typename Integers>
  DeviceVar<Scalar> loss(DeviceTape<Scalar>& tape, Recording recording, const Batch<Integers>& in, double p) {
    const auto layer = [this, &in, p](std::size_t i) {
      return [this, &in, p, i](const DeviceVar<Scalar>& x) { return layers[i].run(x, gain, p, in); };
    };
    auto x = ad::embedding(tape, embeddings, in.ids);
    if (recording == Recording::kPlain) {
      x = layer(2)(layer(1)(layer(0)(x)));
    } else if (recording == Recording::kCheckpoints) {
      for (std::size_t i = 0; i < 3; ++i) x = ad::checkpoint(tape, layer(i), x);
    } else {
      const auto two = [layer](DeviceTape<Scalar>& t, const DeviceVar<Scalar>& y) {
        return ad::checkpoint(t, layer(2), ad::checkpoint(t, layer(1), y));
      };
      x = ad::checkpoint(tape, two, ad::checkpoint(tape, layer(0), x));
    }
    return ad::linearCrossEntropy(head, ad::rmsNorm(x, gain), in.targets, -100, ad::Reduction::Mean, /*chunk=*/10);
  }
  std::vector<DeviceParameter*> parameters() {
    std::vector<DeviceParameter*> all{&embeddings, &gain, &head};
    for (Layer<Scalar>& l : layers) all.insert(all.end(), {&l.wq, &l.a, &l.b});
    return all;
  }
  void zeroGrad() {
    for (DeviceParameter* p : parameters()) p->zeroGrad();
  }
  std::vector<MatrixXf> gradients() {
    std::vector<MatrixXf> found;
    for (const DeviceParameter* p : parameters()) found.push_back(p->grad().toHost());
    return found;
  }

  DeviceParameter embeddings{randomMatrix<float>(kDim, kClasses, 1), "embeddings"};
  DeviceParameter gain{randomMatrix<float>(kDim, 1, 2).cwiseAbs(), "gain"};
  DeviceParameter head{randomMatrix<float>(kClasses, kDim, 3) / 6, "head"};
  std::vector<Layer<Scalar>> layers = [] {
    std::vector<Layer<Scalar>> three;
    for (std::uint64_t i = 0; i < 3; ++i) three.emplace_back(10 * i + 10);
    return three;
  }();
};

/** All gradients after two backward() over the second of two steps. */
template <typename Scalar>
std::vector<MatrixXf> gradients(Recording recording) {
  const Batch<VectorXi> in = batch();
  Model<Scalar> model;
  DeviceTape<Scalar> tape(42);
  tape.backward(model.loss(tape, recording, in, 0.2));
  const std::size_t reserved = tape.bytesReserved();
  tape.clear();
  model.zeroGrad();
  const auto loss = model.loss(tape, recording, in, 0.2);
  tape.backward(loss);
  BOOST_TEST(tape.bytesReserved() == reserved, "a second equal step took memory");
  tape.backward(loss);
  return model.gradients();
}

void expectSameBits(const std::vector<MatrixXf>& found, const std::vector<MatrixXf>& expected, const char* what) {
  BOOST_TEST_REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    BOOST_TEST(expected[i].allFinite(), what << ": gradient " << i);
    BOOST_TEST(expected[i].norm() > 0, what << ": gradient " << i);
    BOOST_TEST(sameBits<float>(found[i], expected[i]),
               what << ": gradient " << i << " differs by up to " << (found[i] - expected[i]).cwiseAbs().maxCoeff());
  }
}

struct HeadGradients {
  MatrixXf loss, dh, dw;
};

template <typename Scalar, typename Op>
HeadGradients headGradients(double lossScale, const Op& op) {
  DeviceTape<Scalar> tape;
  DeviceParameter w(randomMatrix<float>(kClasses, kDim, 1), "w");
  const auto h = tape.variable(randomMatrix<float>(kDim, 300, 2).template cast<Scalar>().eval());
  const auto loss = op(w, h);
  tape.backward(lossScale * loss);
  return {MatrixXf::Constant(1, 1, static_cast<float>(loss.item())), h.grad().toHost().template cast<float>(),
          w.grad().toHost()};
}

/** Of all entries together, relative. */
double error(const MatrixXf& found, const MatrixXf& expected) {
  if (!found.allFinite()) return std::numeric_limits<double>::infinity();
  return (found - expected).norm() / expected.norm();
}

VectorXi someTargets() {
  VectorXi targets(300);
  for (Index j = 0; j < 300; ++j) targets(j) = j % 7 == 3 ? -100 : static_cast<int>(j * 31 % kClasses);
  return targets;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(checkpoints, *needsDevice())

BOOST_AUTO_TEST_CASE_TEMPLATE(gradientsHaveTheSameBits, Scalar, Scalars) {
  const std::vector<MatrixXf> plain = gradients<Scalar>(Recording::kPlain);
  expectSameBits(gradients<Scalar>(Recording::kCheckpoints), plain, "three checkpoints");
  expectSameBits(gradients<Scalar>(Recording::kNested), plain, "nested checkpoints");
}

BOOST_AUTO_TEST_CASE(aCapturedStepRepeatsTheBits) {
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  const Batch<VectorXi> host = batch();
  std::vector<gpu::DeviceMatrix<int>> memory;
  memory.reserve(4);
  const auto onDevice = [&](const VectorXi& v) {
    memory.emplace_back(v.size(), 1);
    memory.back().view().copyFromHost(v);
    return gpu::DeviceView<const int>(memory.back().view());
  };
  const Batch<gpu::DeviceView<const int>> in{onDevice(host.ids), onDevice(host.targets), onDevice(host.positions),
                                             onDevice(host.offsets)};
  Model<Eigen::bfloat16> model;
  DeviceTape<Eigen::bfloat16> tape(context);
  const auto step = [&] {
    tape.clear();
    model.zeroGrad();
    tape.backward(model.loss(tape, Recording::kNested, in, /*p=*/0));
  };
  for (int warm = 0; warm < 3; ++warm) step();  // memory, plans, kernels
  const std::vector<MatrixXf> expected = model.gradients();
  gpu::Graph graph(context, step);
  model.zeroGrad();
  for (int times = 0; times < 2; ++times) graph.launch();
  expectSameBits(model.gradients(), expected, "replay");
}

BOOST_AUTO_TEST_CASE(aStackHoldsItsResultsAndTheValuesOfOneLayer) {
  constexpr Index kSize = 1024;
  constexpr std::size_t kBytes = kSize * kSize * sizeof(float);
  const auto deep = [](DeviceVar<float> x) {
    for (int i = 0; i < 25; ++i) x = ad::tanh(x);
    return x;
  };
  const auto reserved = [&](bool checkpoints) {
    DeviceTape<float> tape;
    auto x = tape.variable(MatrixXf::Ones(kSize, kSize));
    for (int i = 0; i < 20; ++i) x = checkpoints ? ad::checkpoint(tape, deep, x) : deep(x);
    tape.backward(ad::sum(x));
    return tape.bytesReserved() / kBytes;
  };
  BOOST_TEST(reserved(false) >= 500u);
  BOOST_TEST(reserved(true) <= 2u * (25 + 20 + 4));  // blocks double
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(heads, *needsDevice())

BOOST_AUTO_TEST_CASE(agreesWithTheHost) {
  const VectorXi some = integers({0, 10, -100, 3, 4, -100, 9}), none = VectorXi::Constant(7, -100);
  const MatrixXf dense = randomMatrix<float>(11, 64, 5);
  const auto check = [&](const char* what, auto w) {
    for (const VectorXi& targets : {some, none})
      for (const Index chunk : {0, 1, 3, 7})
        agrees(
            what,
            [&](auto& tape, const auto& v) {
              return ad::linearCrossEntropy(w.at(tape), 5 * v[0], targets, -100, ad::Reduction::Mean, chunk);
            },
            random({{64, 7}}));
  };
  check("int8 head", both(Int8Matrix(dense)));
  check("nf4 head", both(NF4Matrix(dense)));
  for (const VectorXi& targets : {some, none})
    for (const Index chunk : {0, 1, 3, 7})
      for (const ad::Reduction reduction : {ad::Reduction::Mean, ad::Reduction::Sum})
        agrees(
            "trained head",
            [&](auto&, const auto& v) { return ad::linearCrossEntropy(v[0], v[1], targets, -100, reduction, chunk); },
            random({{11, 9}, {9, 7}}));
}

// Against the two ops in float: chunks must not cost accuracy, but that the loss, one number, may round the other way.
BOOST_AUTO_TEST_CASE_TEMPLATE(isAsAccurateAsTheTwoOps, Scalar, Scalars) {
  const VectorXi targets = someTargets();
  const auto twoOps = [&](DeviceParameter& w, const auto& h) { return ad::crossEntropy(ad::linear(w, h), targets); };
  const double scale = std::is_same_v<Scalar, Eigen::half> ? 1024 : 1;
  const HeadGradients exact = headGradients<float>(scale, twoOps), two = headGradients<Scalar>(scale, twoOps);
  for (const Index chunk : {0, 64, 7}) {
    const HeadGradients found = headGradients<Scalar>(scale, [&](DeviceParameter& w, const auto& h) {
      return ad::linearCrossEntropy(w, h, targets, -100, ad::Reduction::Mean, chunk);
    });
    const auto compare = [&](const char* what, const MatrixXf& f, const MatrixXf& t, const MatrixXf& e,
                             double slack = 1e-6) {
      BOOST_TEST(error(f, e) <= 1.2 * error(t, e) + slack,
                 what << ", chunks of " << chunk << ": error " << error(f, e) << ", of the two ops " << error(t, e));
    };
    const double ulp = static_cast<double>(Eigen::NumTraits<Scalar>::epsilon());
    compare("loss", found.loss, two.loss, exact.loss, std::max(ulp, 1e-6));
    compare("dh", found.dh, two.dh, exact.dh);
    compare("dw", found.dw, two.dw, exact.dw);
  }
}

BOOST_AUTO_TEST_CASE(targetsOnTheDeviceAreThoseOfTheHost) {
  const VectorXi targets = someTargets();
  gpu::DeviceMatrix<int> device(300, 1);
  gpu::internal::upload(device.data(), targets.data(), 300 * sizeof(int), gpu::Context::current());
  const auto run = [&](const auto& t) {
    return headGradients<float>(1, [&](DeviceParameter& w, const auto& h) { return ad::linearCrossEntropy(w, h, t); });
  };
  const HeadGradients a = run(targets), b = run(gpu::DeviceView<const int>(device.view()));
  BOOST_TEST(sameBits<float>(a.loss, b.loss));
  BOOST_TEST(sameBits<float>(a.dh, b.dh));
  BOOST_TEST(sameBits<float>(a.dw, b.dw));
}

BOOST_AUTO_TEST_SUITE_END()
