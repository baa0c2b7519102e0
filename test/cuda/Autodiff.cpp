// SPDX-License-Identifier: MPL-2.0
// Every op of the tape, its value and its gradients, on the device against the host.
#define BOOST_TEST_MODULE DeviceAutodiff
#include <boost/test/unit_test.hpp>

#include "AutodiffSupport.h"

using namespace EigenQ;
using namespace EigenQ::test;

namespace {
const std::vector<std::pair<Index, Index>> kShapes{{1, 1}, {7, 13}, {64, 33}, {129, 5}, {5, 0}};
}

/** An op of \a count inputs of one shape. */
#define AGREES(count, expression)                                                                                     \
  for (const auto& shape : kShapes) {                                                                                 \
    std::vector<MatrixXf> inputs;                                                                                     \
    for (std::uint64_t k = 1; k <= (count); ++k) inputs.push_back(randomMatrix<float>(shape.first, shape.second, k)); \
    const auto fn = [&](auto& tape, const auto& v) {                                                                  \
      (void)tape;                                                                                                     \
      return expression;                                                                                              \
    };                                                                                                                \
    agrees(#expression " " + std::to_string(shape.first) + "x" + std::to_string(shape.second), fn, inputs);           \
  }

BOOST_AUTO_TEST_SUITE(ops, *needsDevice())

BOOST_AUTO_TEST_CASE(arithmetic) {
  AGREES(2, v[0] + v[1]);
  AGREES(2, v[0] - v[1]);
  AGREES(1, v[0] + v[0]);
  AGREES(1, 2.5 * v[0]);
  AGREES(1, -(v[0] / 3));
  AGREES(2, cwiseProduct(v[0], v[1]));
  AGREES(1, cwiseProduct(v[0], v[0]));
  AGREES(1, transpose(v[0]));
  AGREES(1, sum(v[0]));
  AGREES(1, v[0] + v[0].detach());
}

BOOST_AUTO_TEST_CASE(activations) {
  AGREES(1, relu(3 * v[0]));
  AGREES(1, tanh(3 * v[0]));
  AGREES(1, silu(3 * v[0]));
  AGREES(1, gelu(3 * v[0]));
  AGREES(2, swiglu(3 * v[0], v[1]));
  AGREES(1, swiglu(v[0], v[0]));
}

BOOST_AUTO_TEST_CASE(means) {
  agrees(
      "mean", [](auto&, const auto& v) { return mean(v[0]); }, random({{37, 11}}));
}

BOOST_AUTO_TEST_CASE(windows) {
  agrees(
      "middleRows", [](auto&, const auto& v) { return middleRows(v[0], 3, 5); }, random({{17, 9}}));
  agrees(
      "middleCols", [](auto&, const auto& v) { return middleCols(v[0], 2, 4); }, random({{17, 9}}));
  agrees(
      "two windows", [](auto&, const auto& v) { return middleRows(v[0], 0, 9) + middleRows(v[0], 8, 9); },
      random({{17, 9}}));
  agrees(
      "no rows", [](auto&, const auto& v) { return middleRows(v[0], 3, 0); }, random({{17, 9}}));
}

BOOST_AUTO_TEST_CASE(products) {
  agrees(
      "a b", [](auto&, const auto& v) { return v[0] * v[1]; }, random({{9, 70}, {70, 13}}));
  agrees(
      "a a", [](auto&, const auto& v) { return v[0] * v[0]; }, random({{33, 33}}));
  agrees(
      "w x", [](auto&, const auto& v) { return linear(v[0], v[1]); }, random({{31, 64}, {64, 17}}));
  agrees(
      "w x + b", [](auto&, const auto& v) { return linear(v[0], v[1], v[2]); }, random({{31, 64}, {64, 17}, {31, 1}}));
  agrees(
      "no token", [](auto&, const auto& v) { return linear(v[0], v[1], v[2]); }, random({{31, 64}, {64, 0}, {31, 1}}));
}

BOOST_AUTO_TEST_CASE(quantizedWeights) {
  const MatrixXf dense = randomMatrix<float>(48, 96, 5);
  const auto check = [](const char* what, auto w) {
    for (const Index tokens : {1, 7, 40}) {
      agrees(
          what, [&](auto& tape, const auto& v) { return ad::linear(w.at(tape), v[0]); }, random({{96, tokens}}));
      agrees(
          what, [&](auto& tape, const auto& v) { return ad::linear(w.at(tape), v[0], v[1]); },
          random({{96, tokens}, {48, 1}}));
    }
  };
  check("int8", both(Int8Matrix(dense)));
  check("nf4", both(NF4Matrix(dense)));
  check("nf4, nested", both(NF4Matrix(dense, 64, Statistics::kNested)));
  check("fp4", both(FP4Matrix(dense, 128)));
}

// The codes of x are the same on both sides, so that forward differs by float sums only; backward is as without a
// threshold.
BOOST_AUTO_TEST_CASE(int8Activations) {
  auto w = both(Int8Matrix(randomMatrix<float>(48, 96, 5)));
  std::vector<MatrixXf> inputs = random({{96, 21}, {48, 1}});
  inputs[0].row(11) *= 9;  // an outlier feature
  agrees(
      "llm.int8()", [&](auto& tape, const auto& v) { return ad::linear(w.at(tape).withThreshold(6.0f), v[0], v[1]); },
      inputs);
}

BOOST_AUTO_TEST_CASE(lora) {
  const MatrixXf dense = randomMatrix<float>(48, 96, 5);
  const auto check = [](const char* what, auto w) {
    for (const double p : {0.0, 0.25})
      agrees(
          what,
          [&](auto& tape, const auto& v) {
            return ad::loraLinear(w.at(tape), v[1], v[2], v[0], {/*scale=*/2, p}, v[3]);
          },
          random({{96, 13}, {4, 96}, {48, 4}, {48, 1}}));
  };
  check("lora over int8", both(Int8Matrix(dense)));
  check("lora over nf4", both(NF4Matrix(dense)));
  agrees(
      "lora over a dense weight",
      [](auto&, const auto& v) {
        return ad::loraLinear(v[3], v[1], v[2], v[0], {2, 0.1});
      },
      random({{96, 13}, {4, 96}, {48, 4}, {48, 96}}));
}

BOOST_AUTO_TEST_CASE(masks) {
  for (const double p : {0.0, 0.3, 0.99}) AGREES(1, ad::dropout(ad::dropout(v[0], p), 0.5));
}

BOOST_AUTO_TEST_CASE(columns) {
  AGREES(1, softmax(4 * v[0]));
  AGREES(1, logSoftmax(4 * v[0]));
  const std::vector<std::pair<Index, Index>> shapes{{1, 1}, {7, 13}, {64, 33}, {129, 5}, {515, 3}, {5, 0}};
  for (const auto& s : shapes) {
    agrees(
        "rmsNorm", [](auto&, const auto& v) { return rmsNorm(v[0], v[1]); }, random({s, {s.first, 1}}));
    if (s.first == 1) continue;  // LayerNorm of one feature is 0/√eps: noise
    agrees(
        "layerNorm", [](auto&, const auto& v) { return layerNorm(v[0], v[1], v[2]); },
        random({s, {s.first, 1}, {s.first, 1}}));
    agrees(
        "layerNorm, gain is bias", [](auto&, const auto& v) { return layerNorm(v[0], v[1], v[1]); },
        random({s, {s.first, 1}}));
  }
}

BOOST_AUTO_TEST_CASE(crossEntropy) {
  const VectorXi some = integers({0, 10, -100, 3, 4, -100, 9}), none = VectorXi::Constant(7, -100);
  for (const VectorXi& targets : {some, none})
    for (const ad::Reduction reduction : {ad::Reduction::Mean, ad::Reduction::Sum})
      agrees(
          "crossEntropy", [&](auto&, const auto& v) { return ad::crossEntropy(5 * v[0], targets, -100, reduction); },
          random({{11, 7}}));
}

BOOST_AUTO_TEST_CASE(embeddings) {
  const VectorXi ids = integers({3, 0, 3, 10, 3, 9, 0});
  agrees(
      "embedding", [&](auto& tape, const auto& v) { return ad::embedding(tape, v[0], ids); }, random({{19, 11}}));
  const auto check = [&](const char* what, auto table) {
    agrees(
        what, [&](auto& tape, const auto&) { return ad::embedding(tape, table.at(tape), ids); }, {}, /*tolerance=*/0);
  };
  const MatrixXf dense = randomMatrix<float>(11, 37, 3);
  check("int8 table", both(Int8Matrix(dense)));
  check("nf4 table", both(NF4Matrix(dense)));
  check("nested fp4 table", both(FP4Matrix(dense, 32, Statistics::kNested)));
}

BOOST_AUTO_TEST_CASE(ropes) {
  const VectorXi positions = integers({0, 1, 2, 30, 0, 1, 2, 3, 4});
  for (const ad::RopePairs pairs : {ad::RopePairs::Half, ad::RopePairs::Adjacent}) {
    const ad::RopeTable<float> host(6, 31, 10000, pairs);
    const ad::RopeTable<float, Device> device(host);
    agrees(
        "rope",
        [&](auto& tape, const auto& v) {
          if constexpr (std::is_same_v<std::decay_t<decltype(tape)>, ad::Tape<float>>)
            return ad::rope(v[0], host, positions);
          else
            return ad::rope(v[0], device, positions);
        },
        random({{24, 9}}));
  }
}

BOOST_AUTO_TEST_CASE(attention) {
  const VectorXi offsets = integers({0, 5, 5, 6, 77});
  for (const ad::AttentionHeads& h :
       {ad::AttentionHeads{4, 2, 8}, ad::AttentionHeads{3, 3, 5}, ad::AttentionHeads{2, 1, 64}})
    agrees(
        "attention", [&](auto&, const auto& v) { return causalAttention(v[0], v[1], v[2], h, offsets); },
        random({{h.heads * h.headDim, 77}, {h.kvHeads * h.headDim, 77}, {h.kvHeads * h.headDim, 77}}));
  agrees(
      "keys are values",
      [&](auto&, const auto& v) {
        return causalAttention(v[0], v[1], v[1], {4, 2, 8}, offsets);
      },
      random({{32, 77}, {16, 77}}));
  agrees(
      "all are one",
      [&](auto&, const auto& v) {
        return causalAttention(v[0], v[0], v[0], {2, 2, 8}, offsets);
      },
      random({{16, 77}}));
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(tape, *needsDevice())

BOOST_AUTO_TEST_CASE(integersOnTheDeviceAreThoseOfTheHost) {
  const VectorXi ids = integers({3, 0, 3, 10}), positions = integers({0, 1, 0, 1}), offsets = integers({0, 2, 4}),
                 targets = integers({1, 2, -100, 0});
  const auto on = [](const VectorXi& v) {
    Both<VectorXi, gpu::DeviceMatrix<int>> b{v, {}};
    b.device.resize(v.size(), 1);
    gpu::internal::upload(b.device.data(), v.data(), sizeof(int) * static_cast<std::size_t>(v.size()),
                          gpu::Context::current());
    return b;
  };
  auto i = on(ids), p = on(positions), o = on(offsets), t = on(targets);
  const ad::RopeTable<float, Device> table(4, 8);
  ad::Tape<float, Device> tape;
  const auto e = tape.variable(randomMatrix<float>(8, 11, 1));
  const auto run = [&](const auto& id, const auto& pos, const auto& off, const auto& tgt) {
    const auto x = ad::rope(ad::embedding(tape, e, id), table, pos);
    return ad::crossEntropy(ad::causalAttention(x, x, x, {2, 2, 4}, off), tgt).item();
  };
  const float host = run(i.host, p.host, o.host, t.host);
  const auto view = [](const gpu::DeviceMatrix<int>& m) { return m.view(); };
  BOOST_TEST(run(view(i.device), view(p.device), view(o.device), view(t.device)) == host);
}

BOOST_AUTO_TEST_CASE(mistakesAreReported) {
  ad::Tape<float, Device> tape, other;
  const auto x = tape.variable(randomMatrix<float>(4, 3, 1));
  BOOST_CHECK_THROW(ad::embedding(tape, x, integers({0, 3})), std::out_of_range);
  BOOST_CHECK_THROW(ad::crossEntropy(x, integers({0, 1})), std::invalid_argument);
  BOOST_CHECK_THROW(ad::crossEntropy(x, integers({0, 1, 4})), std::out_of_range);
  BOOST_CHECK_THROW(ad::causalAttention(x, x, x, {1, 1, 4}, integers({0, 2})), std::invalid_argument);
  BOOST_CHECK_THROW(ad::dropout(x, 1), std::invalid_argument);
  BOOST_CHECK_THROW(ad::add(other.constant(MatrixXf::Ones(4, 3)), x), std::logic_error);
  BOOST_CHECK_THROW(tape.backward(x), std::invalid_argument);  // not 1x1
  ad::Parameter<float, Device> w(MatrixXf::Ones(2, 4), "w");
  const auto loss = ad::sum(ad::linear(w, x));
  w.mutableValue().setZero();
  BOOST_CHECK_THROW(tape.backward(loss), std::logic_error);
  tape.clear();
  BOOST_CHECK_THROW(x.value(), std::logic_error);
}

BOOST_AUTO_TEST_CASE(aTapeWorksOnItsOwnContext) {
  gpu::Context context;
  ad::Tape<float, Device> tape(context, 3);
  const MatrixXf w = randomMatrix<float>(30, 40, 1), x = randomMatrix<float>(40, 50, 2);
  ad::Parameter<float, Device> p(w);  // made on the current context
  tape.backward(ad::sum(ad::linear(p, tape.constant(x))));
  // Read on the current context: it waits for the tape's.
  expectNear("gradient", p.grad().toHost(), VectorXi::Ones(30).cast<float>() * x.rowwise().sum().transpose(),
             kOpTolerance);
}

BOOST_AUTO_TEST_CASE(parametersMoveBetweenPlaces) {
  const ad::Parameter<float> host(randomMatrix<float>(5, 3, 1), "p", /*requiresGrad=*/false);
  const ad::Parameter<float, Device> device(host);
  const ad::Parameter<float> back(device);
  BOOST_TEST(sameBits<float>(back.value(), host.value()));
  BOOST_TEST(back.name() == "p");
  BOOST_TEST(!device.requiresGrad());
}

BOOST_AUTO_TEST_CASE(gradientsAddUpUntilTheyAreZeroed) {
  ad::Parameter<float, Device> p(MatrixXf::Ones(3, 2), "p");
  ad::Tape<float, Device> tape;
  const auto y = 2 * tape.parameter(p);
  BOOST_TEST(!p.hasGrad());
  BOOST_TEST((p.grad().toHost().array() == 0).all());
  tape.backward(ad::sum(y));
  tape.backward(ad::sum(y));
  BOOST_TEST(p.hasGrad());
  BOOST_TEST((p.grad().toHost().array() == 4).all());
  p.zeroGrad();
  BOOST_TEST((p.grad().toHost().array() == 0).all());
  p.setRequiresGrad(false);
  BOOST_TEST(p.grad().size() == 0);
}

BOOST_AUTO_TEST_SUITE_END()
