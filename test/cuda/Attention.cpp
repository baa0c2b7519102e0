// SPDX-License-Identifier: MPL-2.0
// Every attention kernel, forward and backward, against exact values in double within the bounds of its arithmetic.
#define BOOST_TEST_MODULE cuda_Attention
#include "Device.h"

#include <unsupported/eigen_q/Autodiff>

#include <src/cuda/op_attention.h>

#include <stdexcept>

#include "AttentionCases.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using gpu::Context;

namespace {

/** Sequences around the tiles of 64 and 128, one without tokens. */
const std::vector<int> kLengths = {1, 2, 0, 63, 64, 65, 129, 200};

template <typename F>
void forEachHeads(F f) {
  for (const Index headDim : {1, 8, 32, 64, 128, 256})
    for (const Heads& heads : {Heads{4, 2, headDim}, Heads{3, 1, headDim}}) f(heads);
}

/** More sequences than a warp has lanes, so that the search for a tile takes several rounds. */
std::vector<int> manyShort() {
  std::vector<int> lengths;
  for (int s = 0; s < 100; ++s) lengths.push_back(s % 7 == 3 ? 0 : s % 5 + 1);
  lengths[70] = 130;
  return lengths;
}

}  // namespace

BOOST_AUTO_TEST_CASE(exactValuesAreThoseOfTheTape, *needsDevice()) {
  for (const Index window : {0, 7}) {
    const Case c(ScalarType::kFloat, {4, 2, 8, window}, {1, 0, 5, 30});
    ad::Tape<double> tape;
    const auto q = tape.variable(c.in.q), k = tape.variable(c.in.k), v = tape.variable(c.in.v);
    const Eigen::VectorXi offsets = Eigen::Map<const Eigen::VectorXi>(c.in.offsets.data(), 5);
    const auto o = ad::causalAttention(q, k, v, {4, 2, 8, window}, offsets);
    const Forward f(c.in, kFloatArithmetic);
    BOOST_TEST((o.value() - f.o.exact).cwiseAbs().maxCoeff() < 1e-13);
    tape.backward(o, c.d_o);
    const Backward b(c.in, f.o.exact, f.lse.exact, c.d_o, kFloatArithmetic);
    BOOST_TEST((q.grad() - b.dq.exact).cwiseAbs().maxCoeff() < 1e-12);
    BOOST_TEST((k.grad() - b.dk.exact).cwiseAbs().maxCoeff() < 1e-12);
    BOOST_TEST((v.grad() - b.dv.exact).cwiseAbs().maxCoeff() < 1e-12);
  }
}

BOOST_AUTO_TEST_CASE(everyForwardKernelComputesAttention, *needsDevice()) {
  Context context;
  Runs runs;
  forEachHeads([&](const Heads& heads) {
    for (const ScalarType scalar : kDeviceScalars) checkForward(Case(scalar, heads, kLengths), context, runs);
  });
  for (const auto& row : gpu::internal::attentionForwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
}

BOOST_AUTO_TEST_CASE(everyBackwardKernelComputesThePullback, *needsDevice()) {
  Context context;
  Runs runs;
  forEachHeads([&](const Heads& heads) {
    for (const ScalarType scalar : kDeviceScalars) checkBackward(Case(scalar, heads, kLengths), context, runs);
  });
  for (const auto& row : gpu::internal::attentionBackwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
}

BOOST_AUTO_TEST_CASE(manySequencesAndSharpScores, *needsDevice()) {
  Context context;
  Runs runs;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Index headDim : {32, 64}) {
      const Case packed(scalar, {2, 1, headDim}, manyShort()), sharp(scalar, {2, 2, headDim}, {150}, 10);
      checkForward(packed, context, runs);
      checkBackward(packed, context, runs);
      checkForward(sharp, context, runs);
      checkBackward(sharp, context, runs);
    }
}

BOOST_AUTO_TEST_CASE(everyKernelSlidesItsWindow, *needsDevice()) {
  Context context;
  Runs runs;
  for (const Index window : {1, 2, 33, 64, 65, 130, 1000})
    for (const Index headDim : {8, 64, 128, 256}) {
      const ScalarType scalar = window % 2 == 0 ? ScalarType::kHalf : ScalarType::kBFloat16;
      const Case c(headDim == 8 ? ScalarType::kFloat : scalar, {4, 2, headDim, window}, kLengths);
      checkForward(c, context, runs);
      checkBackward(c, context, runs);
    }
  for (const auto& row : gpu::internal::attentionForwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
  for (const auto& row : gpu::internal::attentionBackwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
}

// Keys that no query of a tile sees are not read: there they may be NaN.
BOOST_AUTO_TEST_CASE(hiddenKeysAreNotRead, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kHalf}) {
    Case c(scalar, {2, 1, 64, 10}, {428});
    const Index hidden = 384 - 9;  // queries 384 … 427 begin a tile, be it of 64, 128 or 192
    const Forward f(c.in, arithmeticOf(".mma", scalar));
    c.in.k.leftCols(hidden).setConstant(std::nan(""));
    c.in.v.leftCols(hidden).setConstant(std::nan(""));
    Upload device(c, Columns::kPacked);
    for (const auto& row : gpu::internal::attentionForwardLowerings()) {
      if (whyNot(row, device.forward, context)) continue;
      row.run(device.forward, context);
      const MatrixXd found = device.o.valuesOf(device.o.download(context));
      checkValues(found.rightCols(44), f.o.exact.rightCols(44), f.o.error.rightCols(44), scalar, row.name);
    }
  }
}

// Tiles of keys enough for every stage to be filled several times.
BOOST_AUTO_TEST_CASE(longSequences, *needsDevice()) {
  Context context;
  Runs runs;
  for (const Index headDim : {64, 128})
    for (const Index window : {0, 300}) {
      const Case c(window ? ScalarType::kHalf : ScalarType::kBFloat16, {2, 1, headDim, window}, {900, 641});
      checkForward(c, context, runs);
      checkBackward(c, context, runs);
    }
  for (const auto& row : gpu::internal::attentionForwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
  for (const auto& row : gpu::internal::attentionBackwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
}

// As many heads as fill the device: blocks take two tiles each, of several heads. All groups of heads are the same one.
BOOST_AUTO_TEST_CASE(blocksTakeSeveralTiles, *needsDevice()) {
  Context context;
  constexpr Index kTimes = 8;
  const auto repeat = [](const Bounded& b) {
    Bounded all;
    all.exact = b.exact.replicate(kTimes, 1);
    all.error = b.error.replicate(kTimes, 1);
    return all;
  };
  for (const Index headDim : {64, 128}) {
    const ScalarType scalar = headDim == 64 ? ScalarType::kHalf : ScalarType::kBFloat16;
    Case c(scalar, {4, 1, headDim}, {450, 512, 385, 500});
    const Arithmetic arithmetic = arithmeticOf(".mma", scalar);  // the wider bounds
    const Bounded o = repeat(Forward(c.in, arithmetic).o);
    const Backward b(c.in, c.o, c.lse, c.d_o, arithmetic);
    const Bounded dq = repeat(b.dq), dk = repeat(b.dk), dv = repeat(b.dv);
    c.in.heads = {4 * kTimes, kTimes, headDim};
    for (MatrixXd* m : {&c.in.q, &c.in.k, &c.in.v, &c.d_o, &c.o, &c.lse}) *m = m->replicate(kTimes, 1).eval();
    Upload device(c, Columns::kPacked);
    for (const auto& row : gpu::internal::attentionBackwardLowerings())
      if (!whyNot(row, device.backward(false), context))
        checkOp(std::string(row.name) + " " + c.name(Columns::kPacked),
                {{"dq", &device.dq, dq.exact, dq.error},
                 {"dk", &device.dk, dk.exact, dk.error},
                 {"dv", &device.dv, dv.exact, dv.error}},
                true, context, [&](bool accumulate) { row.run(device.backward(accumulate), context); });
    for (const auto& row : gpu::internal::attentionForwardLowerings())
      if (!whyNot(row, device.forward, context))
        checkOp(std::string(row.name) + " " + c.name(Columns::kPacked), {{"o", &device.o, o.exact, o.error}}, false,
                context, [&](bool) { row.run(device.forward, context); });
  }
}

// What lies beside a sequence is another's, which may hold anything.
BOOST_AUTO_TEST_CASE(sequencesDoNotTouchTheirNeighbours, *needsDevice()) {
  Context context;
  const std::vector<int> lengths = {40, 70, 300, 129, 65, 1, 200, 100};
  for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kHalf, ScalarType::kBFloat16})
    for (const Index headDim : {64, 128}) {
      Case c(scalar, {4, 2, headDim}, lengths);
      const auto spoil = [&](MatrixXd& m) {  // every other sequence
        for (std::size_t s = 0; s < lengths.size(); s += 2)
          m.middleCols(c.in.offsets[s], lengths[s]).setConstant(std::nan(""));
      };
      const Arithmetic arithmetic = arithmeticOf(".mma", scalar);  // the wider bounds
      const Forward f(c.in, arithmetic);
      const Backward b(c.in, c.o, c.lse, c.d_o, arithmetic);
      for (MatrixXd* m : {&c.in.q, &c.in.k, &c.in.v, &c.d_o, &c.o, &c.lse}) spoil(*m);
      Upload device(c, Columns::kPacked);
      const auto check = [&](const OpMatrix& m, const Bounded& expected, const char* name) {
        const MatrixXd found = m.valuesOf(m.download(context));
        for (std::size_t s = 1; s < lengths.size(); s += 2) {
          const auto part = [&](const MatrixXd& all) { return all.middleCols(c.in.offsets[s], lengths[s]).eval(); };
          checkValues(part(found), part(expected.exact), part(expected.error), scalar,
                      std::string(name) + " " + c.in.heads.name());
        }
      };
      for (const auto& row : gpu::internal::attentionBackwardLowerings()) {
        if (whyNot(row, device.backward(false), context)) continue;
        row.run(device.backward(false), context);
        check(device.dq, b.dq, row.name), check(device.dk, b.dk, row.name), check(device.dv, b.dv, row.name);
      }
      for (const auto& row : gpu::internal::attentionForwardLowerings()) {
        if (whyNot(row, device.forward, context)) continue;
        row.run(device.forward, context);
        check(device.o, f.o, row.name);
      }
    }
}

BOOST_AUTO_TEST_CASE(tensorCoresTakeAlignedHalvesOfTheirHeadDimensions, *needsDevice()) {
  Context context;
  const auto reason = [&](ScalarType scalar, Index headDim, Columns columns) {
    Upload device(Case(scalar, {2, 1, headDim}, {3}), columns);
    const char* const why = gpu::internal::refuseAttentionMma(device.forward, context);
    const char* const whyBackward = gpu::internal::refuseAttentionBackwardMma(device.backward(false), context);
    BOOST_TEST((why == nullptr) == (whyBackward == nullptr));
    return std::string(why ? why : "");
  };
  for (const Index headDim : {32, 64, 128})
    for (const ScalarType scalar : {ScalarType::kHalf, ScalarType::kBFloat16})
      for (const Columns columns : {Columns::kPacked, Columns::kGaps})
        BOOST_TEST(reason(scalar, headDim, columns) == "");
  BOOST_TEST(reason(ScalarType::kHalf, 64, Columns::kOdd) != "");
  BOOST_TEST(reason(ScalarType::kHalf, 96, Columns::kPacked) != "");
  BOOST_TEST(reason(ScalarType::kFloat, 64, Columns::kPacked) != "");
}

BOOST_AUTO_TEST_CASE(kernelsForHopperTakeLongSequencesOfTheirHeadDimensions, *needsDevice()) {
  Context context;
  if (context.properties().major != 9) return;
  const auto takes = [&](ScalarType scalar, Index headDim, Columns columns, int tokens) {
    Upload device(Case(scalar, {2, 1, headDim}, {tokens, tokens}), columns);
    const bool forward = !gpu::internal::refuseAttentionWgmma(device.forward, context);
    BOOST_TEST(forward == !gpu::internal::refuseAttentionBackwardWgmma(device.backward(false), context));
    return forward;
  };
  for (const Index headDim : {64, 128})
    for (const ScalarType scalar : {ScalarType::kHalf, ScalarType::kBFloat16})
      for (const Columns columns : {Columns::kPacked, Columns::kGaps}) BOOST_TEST(takes(scalar, headDim, columns, 256));
  BOOST_TEST(!takes(ScalarType::kHalf, 64, Columns::kPacked, 40));
  BOOST_TEST(!takes(ScalarType::kHalf, 64, Columns::kOdd, 256));
  BOOST_TEST(!takes(ScalarType::kHalf, 32, Columns::kPacked, 256));
  BOOST_TEST(!takes(ScalarType::kFloat, 64, Columns::kPacked, 256));
}

BOOST_AUTO_TEST_CASE(unwantedGradientsAreLeftOut, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kHalf}) {
    const Case c(scalar, {4, 2, 64}, {70});
    Upload device(c, Columns::kPacked);
    for (const auto& row : gpu::internal::attentionBackwardLowerings()) {
      if (whyNot(row, device.backward(false), context)) continue;
      const Backward b(c.in, c.o, c.lse, c.d_o, arithmeticOf(row.name, scalar));
      const Outcome outcomes[] = {{"dq alone", &device.dq, b.dq.exact, b.dq.error},
                                  {"dk alone", &device.dk, b.dk.exact, b.dk.error},
                                  {"dv alone", &device.dv, b.dv.exact, b.dv.error}};
      for (int only = 0; only < 3; ++only)
        checkOp(row.name, {outcomes[only]}, true, context, [&](bool accumulate) {
          CausalAttentionBackward op = device.backward(accumulate);
          if (only != 0) op.dq = {};
          if (only != 1) op.dk = {};
          if (only != 2) op.dv = {};
          row.run(op, context);
        });
    }
  }
}

BOOST_AUTO_TEST_CASE(nothingToAttend, *needsDevice()) {
  Context context;
  for (const std::vector<int>& lengths : {std::vector<int>{}, std::vector<int>{0, 0}}) {
    Upload device(Case(ScalarType::kHalf, {4, 2, 64}, lengths), Columns::kPacked);
    BOOST_CHECK_NO_THROW(gpu::internal::causalAttentionForward(device.forward, context));
    BOOST_CHECK_NO_THROW(gpu::internal::causalAttentionBackward(device.backward(false), context));
  }
  BOOST_CHECK_NO_THROW(context.synchronize());
}

BOOST_AUTO_TEST_CASE(sizesThatDoNotFitAreRefused, *needsDevice()) {
  Context context;
  for (const Heads& heads :
       {Heads{3, 2, 8}, Heads{0, 1, 8}, Heads{2, 0, 8}, Heads{2, 1, 0}, Heads{2, 1, 257}, Heads{2, 1, 8, -1}}) {
    CausalAttention op;
    op.heads = heads.heads, op.kvHeads = heads.kvHeads, op.headDim = heads.headDim, op.window = heads.window;
    BOOST_CHECK_THROW(gpu::internal::causalAttentionForward(op, context), std::invalid_argument);
    CausalAttentionBackward backward;
    backward.forward = op;
    BOOST_CHECK_THROW(gpu::internal::causalAttentionBackward(backward, context), std::invalid_argument);
  }
}
