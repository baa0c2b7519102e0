// SPDX-License-Identifier: MPL-2.0
// Optimisers and whole training runs on the device against the host, and what a run takes of device memory.
#define BOOST_TEST_MODULE DeviceTraining
#include <boost/test/unit_test.hpp>

#include <cuda_runtime_api.h>

#include "AutodiffSupport.h"
#include "autodiff/TinyDecoder.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {

const VectorXi kIds = integers({1, 2, 3, 4, 5, 9, 10, 0}), kTargets = integers({2, 3, 4, 5, -100, 10, 0, -100});

/** A parameter after five steps whose gradients are the same on both places. */
template <typename Place, typename Optimizer>
MatrixXf afterSteps(const typename Optimizer::Options& options, Index rows, Index cols, bool clip) {
  ad::Parameter<float, Place> p(randomMatrix<float>(rows, cols, 1)), untouched(MatrixXf::Ones(2, 2));
  typename Optimizer::template On<Place> optimizer({&p, &untouched}, options);
  ad::Tape<float, Place> tape;
  for (std::uint64_t step = 2; step < 7; ++step) {
    tape.clear();
    optimizer.zeroGrad();
    tape.backward(tape.parameter(p), randomMatrix<float>(rows, cols, step));
    if (clip) ad::clipGradNorm(optimizer.parameters(), 3);
    optimizer.step(0.5f);
  }
  BOOST_TEST((toHost(untouched.value()).array() == 1).all(), "a parameter without a gradient is left alone");
  return toHost(p.value());
}

struct SgdCase {
  using Options = ad::SgdOptions;
  template <typename Place>
  using On = ad::Sgd<float, Place>;
};
struct AdamWCase {
  using Options = ad::AdamWOptions;
  template <typename Place>
  using On = ad::AdamW<float, Place>;
};
struct LionCase {
  using Options = ad::LionOptions;
  template <typename Place>
  using On = ad::Lion<float, Place>;
};
struct AdamW8bitCase {
  using Options = ad::AdamWOptions;
  template <typename Place>
  using On = ad::AdamW8bitOn<Place>;
};
struct Adam8bitCase {
  using Options = ad::AdamOptions;
  template <typename Place>
  using On = ad::Adam8bitOn<Place>;
};
struct Lion8bitCase {
  using Options = ad::LionOptions;
  template <typename Place>
  using On = ad::Lion8bitOn<Place>;
};

/** Every operation of a step is rounded by itself on both sides, so that results have the same bits where \a ulps is 0.
 */
template <typename Optimizer>
void stepsAgree(const char* what, const typename Optimizer::Options& options, int ulps = 0) {
  for (const auto& shape : std::vector<std::pair<Index, Index>>{{3, 5}, {67, 61}, {300, 211}}) {
    const MatrixXf host = afterSteps<Host, Optimizer>(options, shape.first, shape.second, false);
    const MatrixXf device = afterSteps<Device, Optimizer>(options, shape.first, shape.second, false);
    const bool close =
        (device - host).cwiseAbs().maxCoeff() <= static_cast<float>(ulps) * 0x1p-24f * host.cwiseAbs().maxCoeff();
    BOOST_TEST((ulps > 0 ? close : sameBits<float>(device, host)), what << " " << shape.first << "x" << shape.second
                                                                        << ": differs by up to "
                                                                        << (device - host).cwiseAbs().maxCoeff());
  }
}

/** One training step; the same text for both places. \returns its loss. */
template <typename Place, typename Model>
float trainingStep(ad::Tape<float, Place>& tape, Model& model, ad::Optimizer<float, Place>& optimizer) {
  tape.clear();
  optimizer.zeroGrad();
  const ad::Var<float, Place> loss = model.loss(tape, kIds, kTargets);
  tape.backward(loss);
  ad::clipGradNorm(optimizer.parameters(), 1);
  optimizer.step();
  return loss.item();
}

/** Losses of 20 steps. \param noise  relative, put on the parameters at the start; seed 0: none. */
template <typename Place, typename Frozen>
std::vector<float> losses(Frozen gate, Frozen down, std::uint64_t noiseSeed = 0) {
  TinyDecoder<float, Frozen, Place> model(std::move(gate), std::move(down));
  if constexpr (std::is_same_v<Place, Host>) {
    if (noiseSeed > 0)
      for (ad::Parameter<float>* p : model.parameters()) {
        const MatrixXf noise = randomMatrix<float>(p->rows(), p->cols(), noiseSeed) / 4194304.0f;  // 2⁻²²
        p->mutableValue().array() *= 1 + noise.array();
      }
  }
  ad::AdamWOptions options;
  options.learningRate = 0.02;
  options.eps = 1e-4;  // the sign of a gradient that is all noise shall not decide a step
  ad::AdamW<float, Place> optimizer(model.parameters(), options);
  ad::Tape<float, Place> tape(42);
  std::vector<float> found;
  for (int step = 0; step < 20; ++step) found.push_back(trainingStep(tape, model, optimizer));
  return found;
}

/** The device may differ by a few times what parameters that differ in their last bits make on the host. */
template <typename Frozen, typename OnDevice>
void runsAgree(const Frozen& gate, const Frozen& down, OnDevice deviceGate, OnDevice deviceDown) {
  const std::vector<float> host = losses<Host>(gate, down);
  float noise = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const std::vector<float> disturbed = losses<Host>(gate, down, seed);
    for (std::size_t i = 0; i < host.size(); ++i) noise = std::max(noise, std::abs(disturbed[i] - host[i]));
  }
  const std::vector<float> device = losses<Device>(std::move(deviceGate), std::move(deviceDown));
  BOOST_TEST(host.back() < 0.8f * host.front());
  BOOST_TEST(std::abs(device[0] - host[0]) <= 1e-5f * host[0]);
  for (std::size_t i = 0; i < host.size(); ++i)
    BOOST_TEST(std::abs(device[i] - host[i]) <= 16 * noise,
               "step " << i << ": loss " << device[i] << " instead of " << host[i] << ", noise " << noise);
}

template <typename Optimizer>
void expectSkip(const char* name, Index size) {
  BOOST_TEST_CONTEXT(name << ", " << size) {
    const MatrixXf start = randomMatrix<float>(size, 1, 1);
    ad::Parameter<float, Device> p(start);
    Optimizer optimizer({&p});
    ad::Tape<float, Device> tape;
    const auto step = [&](const MatrixXf& gradient) {
      tape.clear();
      optimizer.zeroGrad();
      tape.backward(tape.parameter(p), gradient);
      optimizer.stepIfFinite(ad::clipGradNorm(optimizer.parameters(), 1));
      return p.value().toHost();
    };
    MatrixXf gradient = randomMatrix<float>(size, 1, 2);
    gradient(size / 2, 0) = std::numeric_limits<float>::quiet_NaN();
    BOOST_TEST((step(gradient) == start));
    const MatrixXf moved = step(randomMatrix<float>(size, 1, 2));
    BOOST_TEST((moved.allFinite() && moved != start));  // the moments have met no NaN
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(optimizers, *needsDevice())

BOOST_AUTO_TEST_CASE(sgd) {
  stepsAgree<SgdCase>("plain", {0.1, 0, 0});
  stepsAgree<SgdCase>("momentum and decay", {0.1, 0.9, 0.01});
}
// Eigen's vectorised square root is not always the nearest float.
BOOST_AUTO_TEST_CASE(adamW) { stepsAgree<AdamWCase>("AdamW", {0.01}, 16); }
BOOST_AUTO_TEST_CASE(lion) { stepsAgree<LionCase>("Lion", {0.01, 0.9, 0.99, 0.1}); }
BOOST_AUTO_TEST_CASE(adamW8bit) { stepsAgree<AdamW8bitCase>("AdamW8bit", {0.01}); }
BOOST_AUTO_TEST_CASE(adam8bit) { stepsAgree<Adam8bitCase>("Adam8bit", {0.01}); }
BOOST_AUTO_TEST_CASE(lion8bit) { stepsAgree<Lion8bitCase>("Lion8bit", {0.01, 0.9, 0.99, 0.1}); }

BOOST_AUTO_TEST_CASE(clipping) {
  const auto norms = [](double maxNorm) {
    ad::Parameter<float> a(MatrixXf::Zero(30, 7)), none(MatrixXf::Zero(2, 2)), b(MatrixXf::Zero(5, 1));
    ad::Parameter<float, Device> da(a.value()), dnone(none.value()), db(b.value());
    ad::Tape<float> tape;
    ad::Tape<float, Device> deviceTape;
    for (const auto& p : {std::make_pair(&a, &da), std::make_pair(&b, &db)}) {
      const MatrixXf g = 3 * randomMatrix<float>(p.first->rows(), p.first->cols(), 5);
      tape.backward(tape.parameter(*p.first), g);
      deviceTape.backward(deviceTape.parameter(*p.second), g);
    }
    const std::vector<ad::Parameter<float>*> host{&a, &none, &b};
    const double norm = ad::clipGradNorm(host, maxNorm);
    const std::vector<ad::Parameter<float, Device>*> device{&da, &dnone, &db};
    BOOST_TEST(std::abs(ad::clipGradNorm(device, maxNorm).toHost() - norm) <= 1e-6 * norm);
    expectNear("a", da.grad().toHost(), a.grad(), 1e-6);
    expectNear("b", db.grad().toHost(), b.grad(), 1e-6);
    return norm;
  };
  BOOST_TEST(norms(1) > 1);
  norms(1e6);  // leaves them alone
}

BOOST_AUTO_TEST_CASE(aGradientThatIsNotFiniteIsNotSpread) {
  ad::Parameter<float, Device> p(MatrixXf::Zero(3, 1));
  ad::Tape<float, Device> tape;
  tape.backward(tape.parameter(p), Eigen::Vector3f(1, std::numeric_limits<float>::infinity(), 2));
  const std::vector<ad::Parameter<float, Device>*> parameters{&p};
  BOOST_TEST(!std::isfinite(ad::clipGradNorm(parameters, 0.5).toHost()));
  BOOST_TEST(p.grad().toHost()(0, 0) == 1);
}

// Which is known on the device alone.
BOOST_AUTO_TEST_CASE(stepsOfGradientsThatAreNotFiniteChangeNothing) {
  for (const Index size : {Index{300}, Index{5000}}) {  // moments of 8 bits from 4096 on
    expectSkip<ad::AdamW<float, Device>>("AdamW", size);
    expectSkip<ad::AdamW8bitOn<Device>>("AdamW8bit", size);
    expectSkip<ad::Lion<float, Device>>("Lion", size);
    expectSkip<ad::Lion8bitOn<Device>>("Lion8bit", size);
    expectSkip<ad::Sgd<float, Device>>("Sgd", size);
  }
}

BOOST_AUTO_TEST_CASE(aResumedRunGoesOnToTheBit) {
  const auto run = [](bool resume) {
    ad::Parameter<float, Device> p(randomMatrix<float>(70, 80, 1));
    std::optional<ad::AdamW8bitOn<Device>> optimizer(std::in_place, std::vector{&p});
    ad::Tape<float, Device> tape;
    for (std::uint64_t step = 2; step < 6; ++step) {
      if (resume && step == 4) {
        ad::AdamW8bitOn<Device>::State state;
        const auto copy = [](const auto& from, auto& to) {
          for (const auto& moment : from) to.push_back(ad::Moment8bitOn<Device>::fromHost(moment.toHost()));
        };
        copy(optimizer->state().firstMoment, state.firstMoment);
        copy(optimizer->state().secondMoment, state.secondMoment);
        state.steps = optimizer->state().steps;
        optimizer.emplace(std::vector{&p});
        optimizer->setState(std::move(state));
      }
      tape.clear();
      optimizer->zeroGrad();
      tape.backward(tape.parameter(p), randomMatrix<float>(70, 80, step));
      optimizer->step();
    }
    return p.value().toHost();
  };
  BOOST_TEST(sameBits<float>(run(true), run(false)));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(training, *needsDevice())

BOOST_AUTO_TEST_CASE(adaptersOverNf4) {
  const NF4Matrix gate(randomMatrix<float>(12, 8, 20)), down(randomMatrix<float>(8, 12, 21));
  runsAgree(gate, down, gpu::NF4Matrix::fromHost(gate), gpu::NF4Matrix::fromHost(down));
}

BOOST_AUTO_TEST_CASE(adaptersOverInt8) {
  const Int8Matrix gate(randomMatrix<float>(12, 8, 20)), down(randomMatrix<float>(8, 12, 21));
  runsAgree(gate, down, gpu::Int8Matrix::fromHost(gate), gpu::Int8Matrix::fromHost(down));
}

BOOST_AUTO_TEST_CASE(theSameSeedGivesTheSameRunToTheBit) {
  const NF4Matrix gate(randomMatrix<float>(12, 8, 20)), down(randomMatrix<float>(8, 12, 21));
  const auto run = [&] { return losses<Device>(gpu::NF4Matrix::fromHost(gate), gpu::NF4Matrix::fromHost(down)); };
  BOOST_TEST(run() == run(), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(fromTheSecondStepNoDeviceMemoryIsTaken) {
  TinyDecoder<float, gpu::NF4Matrix, Device> model(gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(12, 8, 20))),
                                                   gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(8, 12, 21))));
  ad::AdamW<float, Device> optimizer(model.parameters());
  ad::Tape<float, Device> tape;
  const auto freeMemory = [] {
    gpu::Context::current().synchronize();
    std::size_t free = 0, total = 0;
    BOOST_TEST_REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
    return free;
  };
  trainingStep(tape, model, optimizer);
  const std::size_t reserved = tape.bytesReserved();
  trainingStep(tape, model, optimizer);  // CUDA loads kernels at their first use
  const std::size_t before = freeMemory();
  for (int step = 0; step < 10; ++step) trainingStep(tape, model, optimizer);
  BOOST_TEST(tape.bytesReserved() == reserved);
  BOOST_TEST(freeMemory() == before, "needs a device that nobody else uses");
}

BOOST_AUTO_TEST_CASE(withoutGradientsTheValuesAreTheSameToTheBit) {
  TinyDecoder<float, gpu::NF4Matrix, Device> model(gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(12, 8, 20))),
                                                   gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(8, 12, 21))));
  ad::Tape<float, Device> tape(3);
  const float recorded = model.loss(tape, kIds, kTargets).item();
  tape.clear();
  tape.setSeed(3);
  const ad::NoGradGuard<float, Device> guard(tape);
  const auto loss = model.loss(tape, kIds, kTargets);
  BOOST_TEST(loss.item() == recorded);
  BOOST_TEST(!loss.requiresGrad());
}

BOOST_AUTO_TEST_SUITE_END()
