// SPDX-License-Identifier: MPL-2.0
// Embeddings and sums on the device.
#define BOOST_TEST_MODULE cuda_OpKernelsTables
#include "Device.h"

#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

#include "OnTape.h"
#include "OpOperands.h"

using namespace EigenQ;
using namespace EigenQ::test;
using namespace EigenQ::gpu::internal;
using Eigen::MatrixXd;
using Eigen::MatrixXf;
using gpu::Context;

namespace {

/** Ids over the whole vocabulary; every other one is the same, so that one column has a long run. */
std::vector<std::int32_t> idsOf(Index tokens, Index vocabulary) {
  std::mt19937 random(11);
  std::vector<std::int32_t> ids;
  for (Index t = 0; t < tokens; ++t)
    ids.push_back(static_cast<std::int32_t>(t % 2 ? vocabulary - 1 : static_cast<Index>(random()) % vocabulary));
  return ids;
}

const std::pair<Index, Index> kDimsAndVocabularies[] = {{1, 1},     {7, 1},     {8, 7},      {333, 7},
                                                        {64, 1000}, {5, 32000}, {16, 32000}, {4104, 3}};
constexpr Index kTokens[] = {0, 1, 2, 33, 700};

void checkEmbedding(const Setting& ofTable, Index tokens, Context& context) {
  const OpMatrix table = ofTable.random(1);
  const Setting setting{ofTable.scalar, ofTable.columns, ofTable.rows, tokens};
  const OpMatrix dy = setting.random(2);
  OpMatrix y = setting.random(3), dtable = ofTable.random(4);
  const std::vector<std::int32_t> ids = idsOf(tokens, ofTable.cols);
  const Eigen::VectorXi hostIds = Eigen::Map<const Eigen::VectorXi>(ids.data(), tokens);
  DeviceArray<std::int32_t> deviceIds(ids);
  ad::Tape<double> tape;
  const auto e = tape.variable(table.values());
  const auto picked = ad::embedding<double>(tape, e, hostIds);
  tape.backward(picked, dy.values());
  const std::string name = std::to_string(tokens) + " columns of " + ofTable.name();
  checkOp(name, {{"y", &y, picked.value(), MatrixXd::Zero(ofTable.rows, tokens)}}, false, context,
          [&](bool) { embeddingForward(table.in(), deviceIds.data(), y.out(), context); });
  MatrixXd magnitude = MatrixXd::Zero(ofTable.rows, ofTable.cols);
  for (Index t = 0; t < tokens; ++t) magnitude.col(hostIds(t)) += dy.values().col(t).cwiseAbs();
  checkOp(name, {{"dtable", &dtable, e.grad(), gammaFloat(tokens) * magnitude}}, true, context,
          [&](bool accumulate) { embeddingBackward(dy.in(), deviceIds.data(), dtable.out(), accumulate, context); });
}

}  // namespace

BOOST_AUTO_TEST_CASE(embeddings, *needsDevice()) {
  Context context;
  for (const auto& shape : kDimsAndVocabularies)
    forEachSetting({shape}, [&](const Setting& setting) {
      for (const Index tokens : kTokens)
        if (tokens * setting.rows < 1000000) checkEmbedding(setting, tokens, context);
    });
}

// The columns of a run are added in the order of their tokens, in float: as the host does, to the bit.
BOOST_AUTO_TEST_CASE(tableGradientsAddInTheHostsOrder, *needsDevice()) {
  Context context;
  const Index tokens = 700, vocabulary = 5, dim = 9;
  const MatrixXf dy = gaussian(dim, tokens, 1).cast<float>();
  const std::vector<std::int32_t> ids = idsOf(tokens, vocabulary);
  MatrixXf sums = MatrixXf::Zero(dim, vocabulary);
  for (Index t = 0; t < tokens; ++t) sums.col(ids[static_cast<std::size_t>(t)]) += dy.col(t);
  const OpMatrix deviceDy(ScalarType::kFloat, dy.cast<double>());
  OpMatrix dtable(ScalarType::kFloat, MatrixXd::Zero(dim, vocabulary));
  DeviceArray<std::int32_t> deviceIds(ids);
  embeddingBackward(deviceDy.in(), deviceIds.data(), dtable.out(), false, context);
  BOOST_TEST((dtable.valuesOf(dtable.download(context)) == sums.cast<double>()));
}

BOOST_AUTO_TEST_CASE(idsOutOfRange, *needsDevice()) {
  Context context;
  const OpMatrix table(ScalarType::kFloat, gaussian(8, 3, 1)), dy(ScalarType::kFloat, gaussian(8, 5, 2));
  OpMatrix y(ScalarType::kFloat, MatrixXd::Zero(8, 5)), dtable(ScalarType::kFloat, MatrixXd::Zero(8, 3));
  DeviceArray<std::int32_t> ids(std::vector<std::int32_t>{2, 3, -1, 0, 1 << 30});
  MatrixXd picked = MatrixXd::Constant(8, 5, NAN), gradient = MatrixXd::Zero(8, 3);
  picked.col(0) = table.values().col(2), picked.col(3) = table.values().col(0);
  gradient.col(2) = dy.values().col(0), gradient.col(0) = dy.values().col(3);
  checkOp("out of range", {{"y", &y, picked, MatrixXd::Zero(8, 5)}}, false, context,
          [&](bool) { embeddingForward(table.in(), ids.data(), y.out(), context); });
  checkOp("out of range", {{"dtable", &dtable, gradient, MatrixXd::Zero(8, 3)}}, true, context,
          [&](bool accumulate) { embeddingBackward(dy.in(), ids.data(), dtable.out(), accumulate, context); });
}

namespace {

/** Rounded once, so the device stores the very bits that the host's coeff() rounds to. */
void checkQuantizedEmbedding(const std::string& name, const internal::WeightView& host, bool offsetOnDevice,
                             Context& context) {
  const DeviceWeights weights(host, context, offsetOnDevice);
  const internal::WeightView windows[] = {weights.view(), weights.view().window(1, 3, host.rows - 1, host.cols - 3)};
  const internal::WeightView hostWindows[] = {host, host.window(1, 3, host.rows - 1, host.cols - 3)};
  for (int w = 0; w < 2; ++w)
    for (const ScalarType scalar : kDeviceScalars)
      for (const Columns columns : kColumns) {
        const Index dim = hostWindows[w].cols;
        std::vector<std::int32_t> ids = idsOf(40, hostWindows[w].rows);
        ids[7] = -1, ids[8] = static_cast<std::int32_t>(hostWindows[w].rows);
        MatrixXd exact = MatrixXd::Constant(dim, 40, NAN);
        for (Index t = 0; t < 40; ++t)
          for (Index i = 0; i < dim && t != 7 && t != 8; ++i)
            exact(i, t) = static_cast<double>(hostWindows[w].coeff(ids[static_cast<std::size_t>(t)], i));
        OpMatrix y = Setting{scalar, columns, dim, 40}.matrix(exact, 1);
        const MatrixXd expected = y.values();
        DeviceArray<std::int32_t> deviceIds(ids);
        y.uploadNaN();
        embeddingForward(windows[w], deviceIds.data(), y.out(), context);
        const auto bytes = y.download(context);
        const MatrixXd found = y.valuesOf(bytes);
        BOOST_TEST(y.keepsGaps(bytes));
        BOOST_TEST((expected.array() == found.array() || (expected.array().isNaN() && found.array().isNaN())).all(),
                   name << " as " << nameOf(scalar) << ", window " << w);
      }
}

}  // namespace

BOOST_AUTO_TEST_CASE(quantisedTables, *needsDevice()) {
  Context context;
  const MatrixXf w = gaussian(70, 133, 1).cast<float>();
  checkQuantizedEmbedding("int8", Int8Matrix(w).quantizedView().weights, false, context);
  checkQuantizedEmbedding("nf4", NF4Matrix(w).quantizedView().weights, false, context);
  for (const bool offsetOnDevice : {false, true})
    checkQuantizedEmbedding("nested fp4", FP4Matrix(w, 32, Statistics::kNested).quantizedView().weights, offsetOnDevice,
                            context);
}

BOOST_AUTO_TEST_CASE(sumsOfWholeMatrices, *needsDevice()) {
  Context context;
  forEachSetting({{0, 3}, {5, 0}, {1, 1}, {7, 5}, {64, 17}, {333, 71}, {1024, 1500}}, [&](const Setting& setting) {
    const OpMatrix x = setting.random(1);
    const MatrixXd v = x.values();
    const double alpha = 0.37, exact = alpha * v.sum(), error = 1e-12 * v.cwiseAbs().sum() + kUnit * std::abs(exact);
    for (const ScalarType scalar : kDeviceScalars) {
      OpMatrix total(scalar, MatrixXd::Constant(1, 1, 2.5));
      checkOp("sum " + setting.name(),
              {{"total", &total, MatrixXd::Constant(1, 1, exact), MatrixXd::Constant(1, 1, error)}}, true, context,
              [&](bool accumulate) { sum(x.in(), alpha, total.out(), accumulate, context); });
    }
    const double squares = v.squaredNorm();
    double runs[2];
    DeviceArray<double> total(std::vector<double>{0});
    for (double& run : runs) {
      total.upload({NAN});
      sumOfSquares(x.in(), total.data(), false, context);
      run = total.toHost(context)[0];
    }
    BOOST_TEST(runs[0] == runs[1]);
    BOOST_TEST(std::abs(runs[0] - squares) <= 1e-12 * squares, "sumOfSquares " << setting.name());
    sumOfSquares(x.in(), total.data(), true, context);
    BOOST_TEST(total.toHost(context)[0] == runs[0] + runs[0]);
  });
}

BOOST_AUTO_TEST_CASE(sumsOfRowsAndColumns, *needsDevice()) {
  Context context;
  forEachSetting({{0, 3}, {5, 0}, {1, 1}, {7, 5}, {64, 33}, {333, 71}, {24, 5000}, {32000, 3}},
                 [&](const Setting& setting) {
                   const OpMatrix x = setting.random(1);
                   const MatrixXd v = x.values();
                   OpMatrix ofRows(setting.scalar, gaussian(setting.rows, 1, 2));
                   // One total a column: a row of a wider matrix has any stride.
                   OpMatrix ofCols = Setting{setting.scalar, setting.columns, 1, setting.cols}.random(3);
                   const double rowGamma = gammaFloat(std::max<Index>(32, setting.cols / 128 + 1) + 130);
                   checkOp("rowSums " + setting.name(),
                           {{"totals", &ofRows, v.rowwise().sum(), rowGamma * v.cwiseAbs().rowwise().sum()}}, true,
                           context, [&](bool accumulate) { rowSums(x.in(), ofRows.out(), accumulate, context); });
                   checkOp("colSums " + setting.name(),
                           {{"totals", &ofCols, v.colwise().sum(),
                             gammaFloat(setting.rows / 512 + 64) * v.cwiseAbs().colwise().sum()}},
                           true, context, [&](bool accumulate) { colSums(x.in(), ofCols.out(), accumulate, context); });
                 });
}
