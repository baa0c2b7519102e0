// SPDX-License-Identifier: MPL-2.0
// The kernels of generation against exact values within the bounds of their arithmetic.
#define BOOST_TEST_MODULE cuda_CachedAttention
#include "Device.h"

#include <src/cuda/op_attention.h>

#include <limits>
#include <map>
#include <stdexcept>

#include "AttentionBounds.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXd;
using gpu::Context;
using gpu::internal::AttentionDecode;
using gpu::internal::CacheAppend;
using gpu::internal::CausalAttention;

namespace {

using Integers = std::vector<std::int32_t>;

MatrixXd rounded(ScalarType scalar, const MatrixXd& m) { return OpMatrix(scalar, m).values(); }

/** Keys and values of some sequences; what lies behind their \a lengths is NaN and must not matter. */
struct Caches {
  Heads heads;
  ScalarType scalar;
  Index capacity;
  MatrixXd k, v;

  Caches(const Heads& h, ScalarType type, const Integers& lengths, Index columns)
      : heads(h), scalar(type), capacity(columns) {
    const auto sequences = static_cast<Index>(lengths.size());
    k = rounded(scalar, gaussian(h.kvHeads * h.headDim, sequences * capacity, 2));
    v = rounded(scalar, gaussian(k.rows(), k.cols(), 3));
    for (Index s = 0; s < sequences; ++s) {
      const Index n = lengths[static_cast<std::size_t>(s)];
      k.middleCols(s * capacity + n, capacity - n).setConstant(std::nan(""));
      v.middleCols(s * capacity + n, capacity - n).setConstant(std::nan(""));
    }
  }

  /** Puts into column \a t of o what the query there makes of the keys that it sees at a position of a sequence. */
  void attendInto(Bounded& o, Index t, const MatrixXd& q, Index sequence, Index position,
                  const Arithmetic& arithmetic) const {
    const Index d = heads.headDim, seen = heads.firstSeen(position);
    for (Index h = 0; h < heads.heads; ++h) {
      const Index kv = h / heads.group() * d, first = sequence * capacity + seen;
      const Attended a = attend(q.block(h * d, t, d, 1), k.block(kv, first, d, position + 1 - seen),
                                v.block(kv, first, d, position + 1 - seen), heads.scale(), arithmetic);
      o.exact.block(h * d, t, d, 1) = a.o;
      o.error.block(h * d, t, d, 1) = a.oError;
    }
  }
  std::string name(Columns columns) const {
    return heads.name() + ", capacity " + std::to_string(capacity) + ", " + nameOf(scalar) + ", " + nameOf(columns);
  }
};

/** One query a sequence, behind \a lengths - 1 tokens; length 0 stands for a position that is none. */
void checkDecode(const Heads& heads, ScalarType scalar, const Integers& lengths, Index capacity, Context& context) {
  const Caches caches(heads, scalar, lengths, capacity);
  const auto sequences = static_cast<Index>(lengths.size());
  const MatrixXd q = rounded(scalar, gaussian(heads.heads * heads.headDim, sequences, 1, 2));
  Bounded o(q.rows(), sequences);
  Integers positions;
  for (Index s = 0; s < sequences; ++s) {
    positions.push_back(lengths[static_cast<std::size_t>(s)] - 1);
    if (positions.back() >= 0)
      caches.attendInto(o, s, q, s, positions.back(), kFloatArithmetic);
    else
      o.exact.col(s).setConstant(std::nan(""));
  }
  DeviceArray<std::int32_t> devicePositions(positions);
  for (const Columns columns : kColumns) {
    const Setting setting{scalar, columns, 0, 0};
    const OpMatrix deviceQ = setting.matrix(q, 0), k = setting.matrix(caches.k, 1), v = setting.matrix(caches.v, 2);
    OpMatrix result = setting.matrix(o.exact, 1);
    AttentionDecode op;
    op.heads = heads.heads, op.kvHeads = heads.kvHeads, op.headDim = heads.headDim, op.window = heads.window;
    op.capacity = capacity;
    op.positions = devicePositions.data();
    op.q = deviceQ.in(), op.k = k.in(), op.v = v.in(), op.o = result.out();
    checkOp("decode " + caches.name(columns), {{"o", &result, o.exact, o.error}}, false, context,
            [&](bool) { attentionDecode(op, context); });
  }
}

/** Sequence s has starts[s] tokens in the cache and brings counts[s]. */
void checkPrefill(const Heads& heads, ScalarType scalar, const Integers& starts, const Integers& counts, Index capacity,
                  Context& context, std::map<std::string, int>& runs) {
  Integers lengths, offsets = {0}, positions;
  for (std::size_t s = 0; s < starts.size(); ++s) {
    const bool fits = starts[s] >= 0 && starts[s] + counts[s] <= capacity;
    lengths.push_back(fits ? starts[s] + counts[s] : 0);
    offsets.push_back(offsets.back() + counts[s]);
    for (int i = 0; i < counts[s]; ++i) positions.push_back(starts[s] + i);
  }
  const Caches caches(heads, scalar, lengths, capacity);
  const MatrixXd q = rounded(scalar, gaussian(heads.heads * heads.headDim, offsets.back(), 1, 2));
  const auto expected = [&](const Arithmetic& arithmetic) {
    Bounded o(q.rows(), q.cols());
    for (std::size_t s = 0; s < starts.size(); ++s)
      for (Index t = offsets[s]; t < offsets[s + 1]; ++t)
        if (lengths[s] > 0)
          caches.attendInto(o, t, q, static_cast<Index>(s), positions[static_cast<std::size_t>(t)], arithmetic);
        else
          o.exact.col(t).setConstant(std::nan(""));
    return o;
  };
  DeviceArray<std::int32_t> deviceOffsets(offsets), devicePositions(positions);
  for (const Columns columns : {Columns::kPacked, Columns::kOdd}) {
    const Setting setting{scalar, columns, 0, 0};
    const OpMatrix deviceQ = setting.matrix(q, 0), k = setting.matrix(caches.k, 1), v = setting.matrix(caches.v, 2);
    OpMatrix result = setting.matrix(MatrixXd::Zero(q.rows(), q.cols()), 1);
    CausalAttention op;
    op.heads = heads.heads, op.kvHeads = heads.kvHeads, op.headDim = heads.headDim, op.window = heads.window;
    op.offsets = deviceOffsets.data();
    op.sequences = static_cast<Index>(starts.size());
    op.capacity = capacity;
    op.positions = devicePositions.data();
    op.q = deviceQ.in(), op.k = k.in(), op.v = v.in(), op.o = result.out();
    for (const auto& row : gpu::internal::attentionForwardLowerings()) {
      if (whyNot(row, op, context)) continue;
      ++runs[row.name];
      const Bounded o = expected(arithmeticOf(row.name, scalar));
      checkOp(std::string(row.name) + " " + caches.name(columns), {{"o", &result, o.exact, o.error}}, false, context,
              [&](bool) { row.run(op, context); });
    }
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(decodingAttendsToTheCache, *needsDevice()) {
  Context context;
  for (const Index headDim : {1, 8, 32, 33, 64, 128, 200, 256})
    for (const Heads& heads : {Heads{4, 2, headDim}, Heads{3, 1, headDim}})
      for (const ScalarType scalar : kDeviceScalars)
        checkDecode(heads, scalar, {1, 2, 0, 63, 64, 65, 200}, 200, context);
}

BOOST_AUTO_TEST_CASE(longCachesAreSplit, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : kDeviceScalars) {
    checkDecode({2, 1, 64}, scalar, {5000}, 5000, context);
    checkDecode({2, 1, 64}, scalar, {1, 0, 1023, 4097}, 4100, context);
    checkDecode({32, 8, 128}, scalar, {300, 7}, 512, context);
  }
  checkDecode({2, 1, 64}, ScalarType::kHalf, {}, 64, context);
  checkDecode({2, 1, 64}, ScalarType::kHalf, {0, 0}, 0, context);
}

BOOST_AUTO_TEST_CASE(decodingSlidesItsWindow, *needsDevice()) {
  Context context;
  for (const Index window : {1, 2, 64, 100, 3000})
    for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kHalf})
      checkDecode({4, 2, 64, window}, scalar, {1, 0, 64, 65, 99, 100, 101, 2500}, 2500, context);
}

BOOST_AUTO_TEST_CASE(severalQueriesAttendToTheCache, *needsDevice()) {
  Context context;
  std::map<std::string, int> runs;
  const Integers starts = {0, 0, 7, 100, 64, 199, 63}, counts = {1, 200, 0, 65, 64, 1, 130};
  for (const Index headDim : {8, 32, 64, 128, 256})
    for (const Index window : {0, 1, 50})
      for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kBFloat16})
        checkPrefill({4, 2, headDim, window}, scalar, starts, counts, 200, context, runs);
  checkPrefill({2, 1, 64}, ScalarType::kHalf, starts, counts, 200, context, runs);
  for (const auto& row : gpu::internal::attentionForwardLowerings()) BOOST_TEST(runs[row.name] > 0, row.name);
}

BOOST_AUTO_TEST_CASE(positionsThatLeaveTheCacheAreNaN, *needsDevice()) {
  Context context;
  std::map<std::string, int> runs;
  for (const ScalarType scalar : {ScalarType::kFloat, ScalarType::kHalf})
    checkPrefill({2, 1, 64}, scalar, {0, 90, -1, 2000000000, 36}, {70, 11, 3, 2, 64}, 100, context, runs);
}

BOOST_AUTO_TEST_CASE(sizesThatDoNotFitAreRefused, *needsDevice()) {
  Context context;
  for (const Heads& heads :
       {Heads{3, 2, 8}, Heads{0, 1, 8}, Heads{2, 0, 8}, Heads{2, 1, 0}, Heads{2, 1, 257}, Heads{2, 1, 8, -1}}) {
    AttentionDecode op;
    op.heads = heads.heads, op.kvHeads = heads.kvHeads, op.headDim = heads.headDim, op.window = heads.window;
    BOOST_CHECK_THROW(gpu::internal::attentionDecode(op, context), std::invalid_argument);
  }
}

namespace {

/** Tokens that leave the capacity are left out. \param offsets  empty: one token a sequence */
void checkAppend(ScalarType scalar, Index rows, Index capacity, Index sequences, const Integers& offsets,
                 const Integers& positions, Context& context) {
  const auto tokens = static_cast<Index>(positions.size());
  DeviceArray<std::int32_t> devicePositions(positions), deviceOffsets(offsets);
  const MatrixXd k = rounded(scalar, gaussian(rows, tokens, 1)), v = rounded(scalar, gaussian(rows, tokens, 2));
  const MatrixXd oldKeys = rounded(scalar, gaussian(rows, sequences * capacity, 3)),
                 oldValues = rounded(scalar, gaussian(rows, sequences * capacity, 4));
  MatrixXd keys = oldKeys, values = oldValues;
  for (Index t = 0; t < tokens; ++t) {
    const Index position = positions[static_cast<std::size_t>(t)];
    if (position < 0 || position >= capacity) continue;
    Index s = t;
    if (!offsets.empty())
      for (s = 0; offsets[static_cast<std::size_t>(s) + 1] <= t;) ++s;
    keys.col(s * capacity + position) = k.col(t);
    values.col(s * capacity + position) = v.col(t);
  }
  for (const Columns columns : kColumns) {
    const Setting setting{scalar, columns, rows, tokens};
    const OpMatrix from = setting.matrix(k, 0), fromV = setting.matrix(v, 1);
    OpMatrix to = setting.matrix(oldKeys, 2), toV = setting.matrix(oldValues, 0);
    CacheAppend op;
    op.k = from.in(), op.v = fromV.in(), op.keys = to.out(), op.values = toV.out();
    op.sequences = sequences, op.capacity = capacity;
    op.positions = devicePositions.data();
    op.offsets = offsets.empty() ? nullptr : deviceOffsets.data();
    appendToCache(op, context);
    const auto bytes = to.download(context), bytesV = toV.download(context);
    BOOST_TEST((to.valuesOf(bytes) == keys), "keys " << setting.name());
    BOOST_TEST((toV.valuesOf(bytesV) == values), "values " << setting.name());
    BOOST_TEST(to.keepsGaps(bytes));
    BOOST_TEST(toV.keepsGaps(bytesV));
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(newTokensGoToTheirColumns, *needsDevice()) {
  Context context;
  for (const ScalarType scalar : kDeviceScalars)
    for (const Index rows : {1, 7, 64, 2000}) {
      checkAppend(scalar, rows, 6, 5, {0, 0, 3, 3, 4, 4}, {3, 4, 5, 0}, context);  // sequences without a token
      checkAppend(scalar, rows, 6, 3, {}, {5, 0, 3}, context);
      checkAppend(scalar, rows, 6, 4, {}, {6, -1, 2, 2000000000}, context);
      checkAppend(scalar, rows, 6, 2, {0, 4, 5}, {4, 5, 6, 7, 1}, context);
      checkAppend(scalar, rows, 6, 2, {0, 0, 0}, {}, context);
    }
}

BOOST_AUTO_TEST_CASE(argmaxTakesTheFirstOfTheLargest, *needsDevice()) {
  Context context;
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (const Index rows : {1, 5, 8, 31, 1000, 1024, 50257, 128256})
    for (const ScalarType scalar : kDeviceScalars)
      for (const Columns columns : kColumns) {
        const Setting setting{scalar, columns, rows, 9};
        MatrixXd x = gaussian(rows, 9, 5);
        x(rows - 1, 1) = 100, x(rows / 2, 1) = 100;
        x(0, 2) = 100, x(rows - 1, 2) = 100;
        x.col(3).setConstant(-infinity);
        x(rows / 3, 4) = nan, x(rows - 1, 4) = infinity;
        x(rows - 1, 5) = nan;
        x(0, 6) = nan;
        x.col(7).setZero(), x(rows / 2, 7) = -0.0;
        const OpMatrix device = setting.matrix(x, 1);
        const MatrixXd seen = device.values();
        Integers expected;
        for (Index j = 0; j < seen.cols(); ++j) {
          Index best = 0;
          for (Index i = 1; i < rows; ++i)
            if (seen(i, j) > seen(best, j)) best = i;
          expected.push_back(seen.col(j).hasNaN() ? -1 : static_cast<std::int32_t>(best));
        }
        DeviceArray<std::int32_t> found(expected.size());
        gpu::internal::argmax(device.in(), found.data(), context);
        BOOST_TEST(found.toHost(context) == expected, boost::test_tools::per_element());
      }
}

BOOST_AUTO_TEST_CASE(integersMoveOn, *needsDevice()) {
  Context context;
  for (const int count : {0, 1, 127, 128, 1000}) {
    Integers values, expected;
    for (int i = 0; i < count; ++i) values.push_back(3 * i - 50), expected.push_back(3 * i - 57);
    DeviceArray<std::int32_t> device(values);
    gpu::internal::addToIntegers(device.data(), count, -7, context);
    BOOST_TEST(device.toHost(context) == expected, boost::test_tools::per_element());
  }
}
