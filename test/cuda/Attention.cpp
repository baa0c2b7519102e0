// SPDX-License-Identifier: MPL-2.0
// Every attention kernel, forward and backward, against exact values in double within the bounds of its arithmetic.
#define BOOST_TEST_MODULE cuda_Attention
#include "Device.h"

#include <unsupported/eigen_q/Autodiff>

#include <src/cuda/op_attention.h>

#include <map>
#include <stdexcept>

#include "AttentionBounds.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using gpu::Context;
using gpu::internal::CausalAttention;
using gpu::internal::CausalAttentionBackward;

namespace {

std::vector<std::int32_t> offsetsOf(const std::vector<int>& lengths) {
  std::vector<std::int32_t> offsets = {0};
  for (const int n : lengths) offsets.push_back(offsets.back() + n);
  return offsets;
}

/** Sequences around the tiles of 64 and 128, one without tokens. */
const std::vector<int> kLengths = {1, 2, 0, 63, 64, 65, 129, 200};

struct Inputs {
  Heads heads;
  std::vector<std::int32_t> offsets;
  MatrixXd q, k, v;

  /** Calls f(head, kvHead, first token, tokens) for each head of each sequence. */
  template <typename F>
  void forEachHead(F f) const {
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s)
      for (Index h = 0; h < heads.heads; ++h)
        if (offsets[s] < offsets[s + 1]) f(h, h / heads.group(), offsets[s], offsets[s + 1] - offsets[s]);
  }
  MatrixXd part(const MatrixXd& m, Index head, Index first, Index tokens) const {
    return m.block(head * heads.headDim, first, heads.headDim, tokens);
  }
};

struct Forward {
  Bounded o, lse;

  Forward(const Inputs& in, const Arithmetic& arithmetic)
      : o(in.q.rows(), in.q.cols()), lse(in.heads.heads, in.q.cols()) {
    const Index d = in.heads.headDim;
    in.forEachHead([&](Index h, Index kv, Index first, Index tokens) {
      const MatrixXd q = in.part(in.q, h, first, tokens), k = in.part(in.k, kv, first, tokens),
                     v = in.part(in.v, kv, first, tokens);
      for (Index j = 0; j < tokens; ++j) {
        const Index seen = in.heads.firstSeen(j), count = j + 1 - seen;
        const Attended a =
            attend(q.col(j), k.middleCols(seen, count), v.middleCols(seen, count), in.heads.scale(), arithmetic);
        o.exact.block(h * d, first + j, d, 1) = a.o;
        o.error.block(h * d, first + j, d, 1) = a.oError;
        lse.exact(h, first + j) = a.lse;
        lse.error(h, first + j) = a.lseError;
      }
    });
  }
};

/** The pullback with o and lse as given, which are rounded. */
struct Backward {
  Bounded dq, dk, dv;

  Backward(const Inputs& in, const MatrixXd& o, const MatrixXd& lse, const MatrixXd& d_o, const Arithmetic& arithmetic)
      : dq(in.q.rows(), in.q.cols()), dk(in.k.rows(), in.k.cols()), dv(in.k.rows(), in.k.cols()) {
    const Index d = in.heads.headDim;
    const double scale = in.heads.scale();
    in.forEachHead([&](Index h, Index kv, Index first, Index n) {
      const MatrixXd q = in.part(in.q, h, first, n), k = in.part(in.k, kv, first, n), v = in.part(in.v, kv, first, n),
                     g = in.part(d_o, h, first, n), out = in.part(o, h, first, n);
      const MatrixXd s = scale * (k.transpose() * q), dp = v.transpose() * g;  // keys×queries
      const MatrixXd sError = arithmetic.gamma(d + 3) * scale * (k.cwiseAbs().transpose() * q.cwiseAbs());
      const MatrixXd dpError = arithmetic.gamma(d + 1) * (v.cwiseAbs().transpose() * g.cwiseAbs());
      MatrixXd p = MatrixXd::Zero(n, n), ds = p, pError = p, dsError = p;
      for (Index j = 0; j < n; ++j) {
        const double norm = lse(h, first + j), delta = out.col(j).dot(g.col(j));
        const double deltaError = gammaFloat(d + 1) * out.col(j).cwiseAbs().dot(g.col(j).cwiseAbs());
        for (Index i = in.heads.firstSeen(j); i <= j; ++i) {
          p(i, j) = std::exp(s(i, j) - norm);
          ds(i, j) = p(i, j) * (dp(i, j) - delta);
          const double relative = sError(i, j) + 6 * kUnit * (std::abs(s(i, j)) + std::abs(norm) + 1) + 2 * kExpError;
          const double atDs = relative * std::abs(dp(i, j) - delta) + dpError(i, j) + deltaError +
                              3 * kUnit * (std::abs(dp(i, j)) + std::abs(delta));
          pError(i, j) = p(i, j) * (relative + arithmetic.weights) + arithmetic.weightUnderflow;
          dsError(i, j) = p(i, j) * atDs * (1 + arithmetic.weights) + arithmetic.weights * std::abs(ds(i, j)) +
                          arithmetic.weightUnderflow;
        }
      }
      const double ofRow = arithmetic.gamma(n + 6), ofGroup = arithmetic.gamma(in.heads.group() * (n + 6));
      const auto add = [&](Bounded& to, Index head, const MatrixXd& exact, const MatrixXd& error) {
        to.exact.block(head * d, first, d, n) += exact;
        to.error.block(head * d, first, d, n) += error;
      };
      add(dq, h, scale * (k * ds), scale * (k.cwiseAbs() * (dsError + ofRow * ds.cwiseAbs())));
      add(dk, kv, scale * (q * ds.transpose()),
          scale * (q.cwiseAbs() * (dsError + ofGroup * ds.cwiseAbs()).transpose()));
      add(dv, kv, g * p.transpose(), g.cwiseAbs() * (pError + ofGroup * p).transpose());
    });
  }
};

/** The operands of one problem, for any layout. */
struct Case {
  ScalarType scalar;
  Inputs in;
  MatrixXd d_o;
  MatrixXd o, lse;  // as the backward pass finds them

  Case(ScalarType type, const Heads& heads, const std::vector<int>& lengths, double sharpness = 1) : scalar(type) {
    in.heads = heads;
    in.offsets = offsetsOf(lengths);
    const Index tokens = in.offsets.back(), rows = heads.heads * heads.headDim, kvRows = heads.kvHeads * heads.headDim;
    const auto rounded = [&](const MatrixXd& m) { return OpMatrix(type, m).values(); };
    in.q = rounded(gaussian(rows, tokens, 1, 2 * sharpness));
    in.k = rounded(gaussian(kvRows, tokens, 2));
    in.v = rounded(gaussian(kvRows, tokens, 3));
    d_o = rounded(gaussian(rows, tokens, 4));
    const Forward forward(in, kFloatArithmetic);
    o = rounded(forward.o.exact);
    lse = OpMatrix(ScalarType::kFloat, forward.lse.exact).values();
  }
  std::string name(Columns columns) const {
    return in.heads.name() + ", " + std::to_string(in.q.cols()) + " tokens, " + nameOf(scalar) + ", " + nameOf(columns);
  }
};

/** A case on the device. */
struct Upload {
  Setting setting;
  OpMatrix q, k, v, o, lse, d_o, dq, dk, dv;
  DeviceArray<std::int32_t> offsets;
  CausalAttention forward;

  Upload(const Case& c, Columns columns)
      : setting{c.scalar, columns, 0, 0},
        q(setting.matrix(c.in.q, 0)),
        k(setting.matrix(c.in.k, 1)),
        v(setting.matrix(c.in.v, 2)),
        o(setting.matrix(c.o, 0)),
        lse(ScalarType::kFloat, c.lse),
        d_o(setting.matrix(c.d_o, 1)),
        dq(setting.matrix(gaussian(c.in.q.rows(), c.in.q.cols(), 5), 2)),
        dk(setting.matrix(gaussian(c.in.k.rows(), c.in.k.cols(), 6), 0)),
        dv(setting.matrix(gaussian(c.in.k.rows(), c.in.k.cols(), 7), 1)),
        offsets(c.in.offsets) {
    forward.heads = c.in.heads.heads;
    forward.kvHeads = c.in.heads.kvHeads;
    forward.headDim = c.in.heads.headDim;
    forward.window = c.in.heads.window;
    forward.offsets = offsets.data();
    forward.sequences = static_cast<Index>(c.in.offsets.size()) - 1;
    forward.q = q.in();
    forward.k = k.in();
    forward.v = v.in();
    forward.o = o.out();
    forward.lse = static_cast<float*>(lse.out().data);
  }
  CausalAttentionBackward backward(bool accumulate) const {
    CausalAttentionBackward op;
    op.forward = forward;
    op.d_o = d_o.in();
    op.dq = dq.out(), op.dk = dk.out(), op.dv = dv.out();
    op.accumulateQ = op.accumulateK = op.accumulateV = accumulate;
    return op;
  }
};

using Runs = std::map<std::string, int>;

void checkForward(const Case& c, Context& context, Runs& runs) {
  std::map<double, Forward> exact;  // by the arithmetic's unit
  for (const Columns columns : kColumns) {
    Upload device(c, columns);
    for (const auto& row : gpu::internal::attentionForwardLowerings()) {
      if (whyNot(row, device.forward, context)) continue;
      ++runs[row.name];
      const Arithmetic arithmetic = arithmeticOf(row.name, c.scalar);
      const Forward& f = exact.try_emplace(arithmetic.unit, c.in, arithmetic).first->second;
      checkOp(std::string(row.name) + " " + c.name(columns),
              {{"o", &device.o, f.o.exact, f.o.error}, {"lse", &device.lse, f.lse.exact, f.lse.error}}, false, context,
              [&](bool) { row.run(device.forward, context); });
    }
  }
}

void checkBackward(const Case& c, Context& context, Runs& runs) {
  std::map<double, Backward> exact;  // by the arithmetic's unit
  for (const Columns columns : kColumns) {
    Upload device(c, columns);
    for (const auto& row : gpu::internal::attentionBackwardLowerings()) {
      if (whyNot(row, device.backward(false), context)) continue;
      ++runs[row.name];
      const Arithmetic arithmetic = arithmeticOf(row.name, c.scalar);
      const Backward& b = exact.try_emplace(arithmetic.unit, c.in, c.o, c.lse, c.d_o, arithmetic).first->second;
      checkOp(std::string(row.name) + " " + c.name(columns),
              {{"dq", &device.dq, b.dq.exact, b.dq.error},
               {"dk", &device.dk, b.dk.exact, b.dk.error},
               {"dv", &device.dv, b.dv.exact, b.dv.error}},
              true, context, [&](bool accumulate) { row.run(device.backward(accumulate), context); });
    }
  }
}

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
