// SPDX-License-Identifier: MPL-2.0
// Every row of the tables of attention kernels against the host tape, and attention over a cache.
#define BOOST_TEST_MODULE DeviceAttentionKernels
#include "OpSupport.h"

#include <src/cuda/op_attention.h>

#include <map>

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::ArrayXXd;
using Eigen::VectorXi;
using gpu::Context;
namespace kernels = gpu::internal;

namespace {

struct Heads {
  Index heads, kvHeads, headDim;
};

/** Host results, and bounds of the errors of any kernel that scores in float and rounds weights to Scalar at most.
 *
 * A score is a dot product of headDim terms: it errs by e = γ(headDim + 8)·scale·|k|ᵀ|q|. A weight p = exp(s - lse)
 * then errs, relative, by E = e + max e (through lse) + 8u·(|s| + |lse| + 4) + γ(n + 64), and by the unit roundoff v of
 * Scalar where it is rounded. The rest are sums of products with these weights. */
struct Expected {
  MatrixXd q, k, v, o, lse, d_o, dq, dk, dv;
  MatrixXd oBound, lseBound, dqBound, dkBound, dvBound;

  template <typename Scalar>
  static Expected make(const Heads& h, const VectorXi& offsets) {
    Expected x;
    const Index tokens = offsets(offsets.size() - 1), rows = h.heads * h.headDim, kvRows = h.kvHeads * h.headDim;
    x.q = inDouble(sample<Scalar>(rows, tokens, 1));
    x.k = inDouble(sample<Scalar>(kvRows, tokens, 2));
    x.v = inDouble(sample<Scalar>(kvRows, tokens, 3));
    x.d_o = inDouble(sample<Scalar>(rows, tokens, 4));
    const ad::AttentionHeads heads = {h.heads, h.kvHeads, h.headDim};
    const HostRun host = hostRun(
        [&](ad::Tape<double>&, const Vars& in) { return ad::causalAttention(in[0], in[1], in[2], heads, offsets); },
        {x.q, x.k, x.v}, x.d_o);
    x.o = host.y, x.dq = host.grads[0], x.dk = host.grads[1], x.dv = host.grads[2];
    x.lse = x.lseBound = MatrixXd::Zero(h.heads, tokens);
    x.oBound = x.dqBound = MatrixXd::Zero(rows, tokens);
    x.dkBound = x.dvBound = MatrixXd::Zero(kvRows, tokens);
    for (Index s = 0; s + 1 < offsets.size(); ++s)
      for (Index head = 0; head < h.heads && offsets(s) < offsets(s + 1); ++head)
        x.bound(h, head, offsets(s), offsets(s + 1) - offsets(s), unitRoundoff<Scalar>());
    return x;
  }

 private:
  void bound(const Heads& h, Index head, Index first, Index n, double v16) {
    const Index kvHead = head / (h.heads / h.kvHeads), dim = h.headDim;
    const double scale = 1 / std::sqrt(static_cast<double>(dim)), u = unitRoundoff<float>();
    const auto window = [&](MatrixXd& m, Index which) { return m.block(which * dim, first, dim, n); };
    const MatrixXd qa = window(q, head).cwiseAbs(), ka = window(k, kvHead).cwiseAbs(),
                   va = window(v, kvHead).cwiseAbs(), da = window(d_o, head).cwiseAbs(),
                   oa = window(o, head).cwiseAbs();
    const MatrixXd s = scale * window(k, kvHead).transpose() * window(q, head);
    const MatrixXd e = gammaFloat(dim + 8) * scale * ka.transpose() * qa;
    MatrixXd p = MatrixXd::Zero(n, n), pError = p;
    for (Index j = 0; j < n; ++j) {
      const auto seen = s.col(j).head(j + 1).array();
      const double top = seen.maxCoeff(), norm = top + std::log((seen - top).exp().sum());
      const double shared = e.col(j).head(j + 1).maxCoeff() + gammaFloat(n + 64);
      lse(head, first + j) = norm;
      lseBound(head, first + j) = shared + 4 * u * (std::abs(norm) + std::abs(top) + 1);
      p.col(j).head(j + 1) = (seen - norm).exp();
      pError.col(j).head(j + 1) = p.col(j).head(j + 1).array() *
                                  (e.col(j).head(j + 1).array() + shared + 8 * u * (seen.abs() + std::abs(norm) + 4));
    }
    window(oBound, head) = va * (pError + (v16 + gammaFloat(n + 64)) * p);
    window(dvBound, kvHead) += da * (pError + (v16 + gammaFloat(h.heads * n + 64)) * p).transpose();
    // dS = scale·P ∘ (dP - delta); o enters delta as it was rounded.
    const ArrayXXd size = (va.transpose() * da).array().rowwise() + (da.cwiseProduct(oa)).colwise().sum().array();
    const MatrixXd dsSize = (scale * p.array() * size).matrix();
    const MatrixXd dsError = (scale * pError.array() * size).matrix() + (4 * v16 + gammaFloat(dim + 16)) * dsSize;
    window(dqBound, head) = ka * (dsError + gammaFloat(n + 64) * dsSize);
    window(dkBound, kvHead) += qa * (dsError + gammaFloat(h.heads * n + 64) * dsSize).transpose();
  }
};

/** How often each kernel ran. */
using Runs = std::map<std::string, int>;

std::string name(const Heads& h, Index tokens, Place place) {
  return std::to_string(h.heads) + "/" + std::to_string(h.kvHeads) + " heads of " + std::to_string(h.headDim) + ", " +
         std::to_string(tokens) + " tokens, gap " + std::to_string(place.gap) + ", shift " +
         std::to_string(place.shift);
}

/** An attention problem on the device. */
template <typename Scalar>
struct Problem {
  Mat<Scalar> q, k, v, d_o, o;
  Ints offsets;
  DeviceArray<float> lse;
  kernels::CausalAttention forward;

  static Eigen::MatrixX<Scalar> rounded(const MatrixXd& m) { return m.template cast<Scalar>(); }
  Problem(const Heads& h, const VectorXi& offsetsOnHost, const Expected& x, Place place)
      : q(rounded(x.q), place),
        k(rounded(x.k), place),
        v(rounded(x.v), place),
        d_o(rounded(x.d_o), place),
        o(x.q.rows(), x.q.cols(), place),
        offsets(offsetsOnHost),
        lse(static_cast<std::size_t>(h.heads * x.q.cols())) {
    forward = {h.heads, h.kvHeads, h.headDim, offsets.data(), offsetsOnHost.size() - 1,
               q.in(),  k.in(),    v.in(),    o.out(),        lse.data()};
  }
};

template <typename Scalar>
void checkForward(Problem<Scalar>& problem, const Expected& x, const std::string& what, Runs& runs, Context& context) {
  for (const auto& row : kernels::attentionForwardLowerings()) {
    if (row.refuse(problem.forward, context)) continue;
    ++runs[row.name];
    row.run(problem.forward, context);
    const auto o = problem.o.toHost(context);
    expectWithin<Scalar>(o, x.o, x.oBound, row.name + (": " + what));
    const std::vector<float> lse = problem.lse.toHost(context);
    expectWithin<float>(Eigen::Map<const Eigen::MatrixXf>(lse.data(), x.lse.rows(), x.lse.cols()), x.lse, x.lseBound,
                        row.name + (", lse: " + what));
    row.run(problem.forward, context);
    BOOST_TEST(sameBits<Scalar>(o, problem.o.toHost(context)), row.name << ": two runs differ: " << what);
    BOOST_TEST((lse == problem.lse.toHost(context)), row.name << ", lse: two runs differ: " << what);
  }
}

template <typename Scalar>
void checkBackward(Problem<Scalar>& problem, const Expected& x, Place place, const std::string& what, Runs& runs,
                   Context& context) {
  using Backward = kernels::CausalAttentionBackward;
  const Index rows = x.q.rows(), kvRows = x.k.rows(), tokens = x.q.cols();
  for (const auto& row : kernels::attentionBackwardLowerings()) {
    Mat<Scalar> dq(rows, tokens, place), dk(kvRows, tokens, place);
    Backward all;
    all.forward = problem.forward;
    all.d_o = problem.d_o.in();
    all.dq = dq.out(), all.dk = dk.out();
    if (row.refuse(all, context)) continue;
    ++runs[row.name];
    const auto check = [&](DenseView Backward::*target, bool Backward::*accumulates, const MatrixXd& expected,
                           const MatrixXd& bound, bool alone, const char* of) {
      expectTarget<Scalar>(
          [&](const DenseView& view, bool accumulate) {
            Backward one = all;
            if (alone) one.dq = one.dk = one.dv = DenseView();
            one.*target = view;
            one.*accumulates = accumulate;
            row.run(one, context);
          },
          expected, bound, place, row.name + (": " + what) + of, context);
    };
    check(&Backward::dq, &Backward::accumulateQ, x.dq, x.dqBound, true, ", dq");
    check(&Backward::dk, &Backward::accumulateK, x.dk, x.dkBound, true, ", dk");
    check(&Backward::dv, &Backward::accumulateV, x.dv, x.dvBound, false, ", dv");
    expectWithin<Scalar>(dk.toHost(context), x.dk, x.dkBound, row.name + (": " + what) + ", dk beside dv");
  }
}

template <typename Scalar>
void check(const Heads& h, const VectorXi& offsets, Place place, Runs& runs, Context& context) {
  const Expected x = Expected::make<Scalar>(h, offsets);
  Problem<Scalar> problem(h, offsets, x, place);
  const std::string what = name(h, x.q.cols(), place);
  checkForward(problem, x, what, runs, context);
  checkBackward(problem, x, place, what, runs, context);  // with the o and lse of the table's last row
}

VectorXi packed(std::initializer_list<int> lengths) {
  VectorXi offsets(static_cast<Index>(lengths.size()) + 1);
  offsets(0) = 0;
  Index s = 0;
  for (const int length : lengths) ++s, offsets(s) = offsets(s - 1) + length;
  return offsets;
}

}  // namespace

BOOST_TEST_DECORATOR(*needsDevice())
BOOST_AUTO_TEST_CASE_TEMPLATE(causalAttention, Scalar, OpScalars) {
  Context context;
  Runs runs;
  const VectorXi mixed = packed({1, 2, 63, 0, 64, 65, 200});
  for (const Heads& h : {Heads{4, 2, 64}, Heads{3, 1, 32}, Heads{2, 2, 128}, Heads{4, 2, 5}, Heads{1, 1, 1},
                         Heads{2, 1, 80}, Heads{1, 1, 256}})
    check<Scalar>(h, mixed, {0, 0}, runs, context);
  for (const Place& place : kPlaces) {
    check<Scalar>({4, 2, 64}, packed({65, 3}), place, runs, context);
    check<Scalar>({3, 1, 128}, packed({33, 32, 31}), place, runs, context);
    check<Scalar>({2, 2, 40}, packed({70}), place, runs, context);
  }
  check<Scalar>({4, 2, 64}, packed({1}), {0, 0}, runs, context);
  check<Scalar>({3, 1, 32}, packed({200}), {8, 0}, runs, context);
  VectorXi many(101);  // more sequences than a warp looks at in one go
  for (Index s = 0; s < many.size(); ++s) many(s) = static_cast<int>(s * 3 - s % 2);
  check<Scalar>({2, 1, 32}, many, {0, 0}, runs, context);

  BOOST_TEST(runs["attention.float"] > 0);
  BOOST_TEST(runs["attentionBackward.float"] > 0);
  const bool tensorCores = !std::is_same<Scalar, float>::value;
  BOOST_TEST((runs["attention.mma"] > 0) == tensorCores);
  BOOST_TEST((runs["attentionBackward.mma"] > 0) == tensorCores);
}

BOOST_AUTO_TEST_CASE(noTokens, *needsDevice()) {
  Context context;
  Mat<float> q(8, 0);
  Ints offsets(integers({0, 0}));
  kernels::CausalAttention op;
  op.heads = 2, op.kvHeads = 2, op.headDim = 4, op.offsets = offsets.data(), op.sequences = 1;
  op.q = op.k = op.v = q.in();
  op.o = q.out();
  kernels::causalAttentionForward(op, context);
  kernels::CausalAttentionBackward backward;
  backward.forward = op, backward.d_o = q.in(), backward.dq = backward.dk = backward.dv = q.out();
  kernels::causalAttentionBackward(backward, context);
  context.synchronize();
}

BOOST_AUTO_TEST_CASE(headsThatDoNotFit, *needsDevice()) {
  Context context;
  kernels::CausalAttention op;
  op.heads = 3, op.kvHeads = 2, op.headDim = 4;
  BOOST_CHECK_THROW(kernels::causalAttentionForward(op, context), std::invalid_argument);
  op.kvHeads = 3, op.headDim = kernels::kMaxHeadDim + 1;
  BOOST_CHECK_THROW(kernels::causalAttentionForward(op, context), std::invalid_argument);
  kernels::AttentionDecode decode;
  decode.heads = 3, decode.kvHeads = 2;
  BOOST_CHECK_THROW(kernels::attentionDecode(decode, context), std::invalid_argument);
}

namespace {

/** The last token of each sequence, in a cache whose other columns are noise. */
template <typename Scalar>
void checkDecode(const Heads& h, const VectorXi& lengths, Index capacity, Place place, Context& context) {
  const Index sequences = lengths.size(), rows = h.heads * h.headDim, kvRows = h.kvHeads * h.headDim;
  Eigen::MatrixX<Scalar> q = sample<Scalar>(rows, sequences, 1);
  Eigen::MatrixX<Scalar> k = sample<Scalar>(kvRows, sequences * capacity, 2), v = k;
  v = sample<Scalar>(kvRows, sequences * capacity, 3);
  MatrixXd expected = MatrixXd::Zero(rows, sequences), bound = expected;
  const double scale = 1 / std::sqrt(static_cast<double>(h.headDim));
  for (Index s = 0; s < sequences; ++s)
    for (Index head = 0; head < h.heads && lengths(s) > 0; ++head) {
      const Index kvRow = head / (h.heads / h.kvHeads) * h.headDim, n = lengths(s);
      const MatrixXd keys = inDouble(k.block(kvRow, s * capacity, h.headDim, n)),
                     values = inDouble(v.block(kvRow, s * capacity, h.headDim, n));
      const Eigen::VectorXd query = inDouble(q.block(head * h.headDim, s, h.headDim, 1));
      const Eigen::ArrayXd scores = scale * (keys.transpose() * query).array();
      Eigen::ArrayXd p = (scores - scores.maxCoeff()).exp();
      p /= p.sum();
      // As Expected: twice the largest error of a score, and the roundings of exponents and sums.
      const double e = (keys.cwiseAbs().transpose() * query.cwiseAbs()).maxCoeff() * scale;
      const double relative = 2 * gammaFloat(h.headDim + 8) * e + gammaFloat(n + 128) +
                              16 * unitRoundoff<float>() * (2 * scores.abs().maxCoeff() + 4);
      expected.block(head * h.headDim, s, h.headDim, 1) = values * p.matrix();
      bound.block(head * h.headDim, s, h.headDim, 1) = relative * (values.cwiseAbs() * p.matrix());
    }
  for (Index s = 0; s < sequences; ++s) {
    k.middleCols(s * capacity + lengths(s), capacity - lengths(s)).setConstant(static_cast<Scalar>(NAN));
    v.middleCols(s * capacity + lengths(s), capacity - lengths(s)).setConstant(static_cast<Scalar>(NAN));
  }
  Mat<Scalar> mq(q, place), mk(k, place), mv(v, place), o(rows, sequences, place);
  Ints on(lengths);
  const kernels::AttentionDecode op = {h.heads, h.kvHeads, h.headDim, capacity, on.data(),
                                       mq.in(), mk.in(),   mv.in(),   o.out()};
  kernels::attentionDecode(op, context);
  const auto found = o.toHost(context);
  expectWithin<Scalar>(found, expected, bound,
                       "decode " + name(h, sequences, place) + ", capacity " + std::to_string(capacity));
  kernels::attentionDecode(op, context);
  BOOST_TEST(sameBits<Scalar>(found, o.toHost(context)), "two runs differ");
}

}  // namespace

BOOST_TEST_DECORATOR(*needsDevice())
BOOST_AUTO_TEST_CASE_TEMPLATE(decode, Scalar, OpScalars) {
  Context context;
  for (const Place& place : kPlaces)
    for (const Heads& h : {Heads{4, 2, 64}, Heads{3, 1, 128}, Heads{1, 1, 1}, Heads{2, 2, 33}, Heads{2, 1, 256}}) {
      checkDecode<Scalar>(h, integers({1, 0, 63, 64, 65, 200}), 200, place, context);
      checkDecode<Scalar>(h, integers({3}), 4, place, context);
    }
  checkDecode<Scalar>({4, 2, 64}, integers({5000, 17}), 5001, {0, 0}, context);  // as many splits as there can be
  checkDecode<Scalar>({2, 1, 64}, VectorXi(0), 10, {0, 0}, context);
}
