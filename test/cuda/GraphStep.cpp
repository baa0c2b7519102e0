// SPDX-License-Identifier: MPL-2.0
// A whole training step of a decoder as a CUDA graph: forward, dropout among it, backward, clipping, update. Replays
// with other tokens, masks and learning rates give the bits of the steps that were not captured.
#define BOOST_TEST_MODULE GraphStep
#include <boost/test/data/monomorphic.hpp>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>

#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include <unsupported/eigen_q/AutodiffCuda>

#include "Device.h"
#include "autodiff/Support.h"

using namespace EigenQ;
using namespace EigenQ::test;
using ad::Device;
using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXi;
using Parameter = ad::Parameter<float, Device>;
using Var = ad::Var<float, Device>;

namespace {

constexpr Index kDim = 32, kHidden = 64, kVocabulary = 50, kTokens = 24;

/** What changes from step to step, and what does not, where a graph can read it. */
struct Inputs {
  gpu::DeviceMatrix<int> ids{kTokens, 1}, targets{kTokens, 1}, positions{kTokens, 1}, offsets{3, 1};

  Inputs() {
    VectorXi p(kTokens);
    for (Index i = 0; i < kTokens; ++i) p(i) = static_cast<int>(i % 12);
    positions.view().copyFromHost(p);
    offsets.view().copyFromHost(Eigen::Vector3i(0, 12, 24));
  }
  void set(int step) {
    VectorXi tokens(kTokens + 1);
    for (Index i = 0; i <= kTokens; ++i) tokens(i) = static_cast<int>((7 * i + 13 * step + i * i * step) % kVocabulary);
    ids.view().copyFromHost(tokens.head(kTokens));
    targets.view().copyFromHost(tokens.tail(kTokens));
  }
};
gpu::DeviceView<const int> in(const gpu::DeviceMatrix<int>& m) { return m.view(); }

using MakeOptimizer = std::unique_ptr<ad::Optimizer<float, Device>> (*)(const std::vector<Parameter*>&);

template <typename Optimizer, typename Options>
std::unique_ptr<ad::Optimizer<float, Device>> make(const std::vector<Parameter*>& parameters, const Options& options) {
  return std::make_unique<Optimizer>(parameters, options);
}

struct Learner {
  const char* name;
  double rate;
  MakeOptimizer make;
};
const Learner kLearners[] = {
    {"AdamW", 0.02, [](const auto& p) { return make<ad::AdamW<float, Device>>(p, ad::AdamWOptions{}); }},
    {"AdamW8bit", 0.02, [](const auto& p) { return make<ad::AdamW8bitOn<Device>>(p, ad::AdamWOptions{}); }},
    {"Lion", 0.003, [](const auto& p) { return make<ad::Lion<float, Device>>(p, ad::LionOptions{}); }},
    {"Lion8bit", 0.003, [](const auto& p) { return make<ad::Lion8bitOn<Device>>(p, ad::LionOptions{}); }},
    {"Sgd", 0.1,
     [](const auto& p) {
       return make<ad::Sgd<float, Device>>(p, ad::SgdOptions{0.1, 0.9, 0.01});
     }},
};
std::ostream& operator<<(std::ostream& out, const Learner& learner) { return out << learner.name; }

/** A block of a Llama-style decoder: dense attention, a feed-forward part through frozen NF4 with an adapter. */
struct Decoder {
  Parameter table{randomMatrix<float>(kDim, kVocabulary, 1)}, gain{MatrixXf::Ones(kDim, 1)};
  Parameter q{randomMatrix<float>(kDim, kDim, 2)}, k{randomMatrix<float>(16, kDim, 3)};
  Parameter v{randomMatrix<float>(16, kDim, 4)}, o{randomMatrix<float>(kDim, kDim, 5)};
  Parameter a{randomMatrix<float>(4, kHidden, 6)}, b{MatrixXf::Zero(kDim, 4)};
  Parameter head{randomMatrix<float>(kVocabulary, kDim, 7)};
  gpu::NF4Matrix gate = gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(kHidden, kDim, 8)));
  gpu::NF4Matrix down = gpu::NF4Matrix::fromHost(NF4Matrix(randomMatrix<float>(kDim, kHidden, 9)));
  ad::RopeTable<float, Device> rope{8, 12};
  ad::Tape<float, Device> tape;
  std::vector<Parameter*> parameters{&table, &gain, &q, &k, &v, &o, &a, &b, &head};
  std::unique_ptr<ad::Optimizer<float, Device>> optimizer;

  explicit Decoder(const MakeOptimizer& make) : optimizer(make(parameters)) {}

  Var loss(const Inputs& inputs) {
    Var x = ad::embedding(tape, table, in(inputs.ids));
    const Var h = ad::rmsNorm(x, gain);
    const Var query = ad::rope(ad::linear(q, h), rope, in(inputs.positions));
    const Var key = ad::rope(ad::linear(k, h), rope, in(inputs.positions));
    x = x + ad::linear(o, ad::causalAttention(query, key, ad::linear(v, h), {4, 2, 8}, in(inputs.offsets)));
    const Var up = ad::linear(gate, ad::rmsNorm(x, gain));
    x = x + ad::loraLinear(down, a, b, ad::swiglu(up, up), {2, 0.25});
    const Var dropped = ad::dropout(x, 0.1);
    x = tape.checkpoint([dropped] { return ad::dropout(dropped, 0.1); });
    return ad::crossEntropy(ad::linear(head, x), in(inputs.targets));
  }

  Var step(const Inputs& inputs) {
    tape.clear();
    optimizer->zeroGrad();
    const Var l = loss(inputs);
    tape.backward(l);
    ad::clipGradNorm(optimizer->parameters(), 1);
    optimizer->step();
    return l;
  }
};

bool sameBits(const MatrixXf& x, const MatrixXf& y) {
  return x.size() == y.size() &&
         std::memcmp(x.data(), y.data(), sizeof(float) * static_cast<std::size_t>(x.size())) == 0;
}

/** Throws in the middle of a capture, which is then over. */
template <typename Exception, typename Queue>
void refusedInACapture(gpu::Context& context, const Queue& queue) {
  BOOST_TEST_REQUIRE(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  BOOST_CHECK_THROW(queue(), Exception);
  cudaGraph_t graph = nullptr;
  BOOST_TEST(cudaStreamEndCapture(context.stream(), &graph) == cudaSuccess);
  cudaGraphDestroy(graph);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(graphs, *needsDevice())

BOOST_DATA_TEST_CASE(replaysAreStepsToTheBit, boost::unit_test::data::make(kLearners), learner) {
  constexpr int kWarm = 3, kSteps = 12;
  const auto rate = ad::Schedule::cosine(learner.rate, kSteps, 4);
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  Inputs inputs;
  Decoder eager(learner.make), replayed(learner.make);
  const auto prepare = [&](Decoder& decoder, int step) {
    inputs.set(step);
    decoder.optimizer->setLearningRate(rate(step));
  };
  for (int step = 0; step < kWarm; ++step)  // memory, plans, kernels
    for (Decoder* decoder : {&eager, &replayed}) {
      prepare(*decoder, step);
      decoder->step(inputs);
    }

  Var loss;
  gpu::Graph graph(context, [&] { loss = replayed.step(inputs); });
  for (int step = kWarm; step < kSteps; ++step) {
    prepare(eager, step);
    const float expected = eager.step(inputs).item();
    prepare(replayed, step);
    replayed.optimizer->prepareReplay();
    replayed.tape.prepareReplay();
    graph.launch();
    BOOST_TEST(loss.item() == expected, "step " << step << ": loss " << loss.item() << ", eager " << expected);
  }
  for (std::size_t i = 0; i < eager.parameters.size(); ++i) {
    const MatrixXf x = eager.parameters[i]->value().toHost();
    const MatrixXf y = replayed.parameters[i]->value().toHost();
    BOOST_TEST(sameBits(x, y), "parameter " << i << " differs by " << (x - y).cwiseAbs().maxCoeff());
  }
  // And back: an eager step after the replays is the next one.
  prepare(eager, kSteps);
  const float expected = eager.step(inputs).item();
  BOOST_TEST(replayed.step(inputs).item() == expected);
}

BOOST_AUTO_TEST_CASE(whatAReplayWouldRepeatWronglyIsRefused) {
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  Parameter p(randomMatrix<float>(8, 8, 1));
  ad::Tape<float, Device> tape;
  const auto dropped = ad::sum(ad::dropout(tape.parameter(p), 0.5));  // its mask is that of no replay
  context.synchronize();
  refusedInACapture<std::logic_error>(context, [&] { tape.backward(dropped); });
}

BOOST_AUTO_TEST_SUITE_END()
