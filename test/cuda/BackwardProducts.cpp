// SPDX-License-Identifier: MPL-2.0
// The products of a backward pass, X·W, by the kernels that decode W on its way to the tensor cores.
#define BOOST_TEST_MODULE DeviceBackwardProducts
#include <boost/test/unit_test.hpp>

#include <src/cuda/via_dense.h>
#include <src/cuda/wgmma_backward.h>

#include "RandomProduct.h"

using namespace EigenQ;
using namespace EigenQ::test;
using Eigen::MatrixXf;

namespace {

/** X·W with W in the layout that the kernel takes: every tile, slices of W's rows, and each edge of them. */
void checkBackward(WeightFormat format, const std::string& kernel, gpu::Context& context) {
  const bool int8 = format == WeightFormat::kInt8;
  const Index multiple = int8 ? 16 : 256;
  const Index most = int8 ? gpu::internal::kInt8BackwardRows : gpu::internal::kFourBitBackwardRows;
  const Index rows[] = {1, 7, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, most, most + 1};
  const Index depths[] = {1, 63, 64, 65, 300, 512, 777};
  unsigned seed = 1;
  int fused = 0, others = 0;
  for (const Index m : rows) {
    for (const Index depth : depths) {
      Problem p = problemOf(seed);
      p.seed = seed;
      p.exact = seed++ % 2 == 0;
      Dice dice(seed);
      p.m = m;
      p.k = depth;
      p.n = multiple * (1 + dice.below((m > 64 || depth > 512 ? 256 : 768) / multiple));
      p.transposed = false;
      p.scalar = seed % 3 == 0 ? ScalarType::kHalf : ScalarType::kBFloat16;
      p.format = format;
      p.int8Activations = false;
      p.outlierColumns = 0;
      p.type = dice.once(2) ? FourBitType::kFP4 : FourBitType::kNF4;
      p.blockShift = 6;
      p.nested = dice.once(2);
      p.row = dice.below(3);
      p.rowsBelow = dice.below(2);
      p.col = multiple * dice.below(2);
      p.colsBehind = multiple * dice.below(2);
      if (p.exact) p.epilogue = epilogueCases()[static_cast<std::size_t>(dice.below(8))];
      std::string row = "none";
      const std::string error = Trial(p, context).run(row);
      if (!error.empty()) BOOST_ERROR(describe(p) << ", by " << row << ": " << error);
      ++(row == kernel ? fused : others);
    }
  }
  BOOST_TEST(fused == 15 * 7);
  BOOST_TEST(others == 7, "more rows are not for it");
}

}  // namespace

BOOST_AUTO_TEST_CASE(backwardProductsAgreeWithTheHost, *needsDevice()) {
  gpu::Context context;
  if (!hasWgmma(context)) return;
  checkBackward(WeightFormat::kFourBit, "wgmma.backward", context);
  checkBackward(WeightFormat::kInt8, "int8.wgmma.backward", context);
}

BOOST_AUTO_TEST_CASE(int8BackwardIsAsExactAsDecodingFirst, *needsDevice()) {
  gpu::Context context;
  if (!hasWgmma(context)) return;
  constexpr Row kFused = {"int8.wgmma.backward", gpu::internal::refuseInt8Backward, gpu::internal::runInt8Backward};
  constexpr Row kDecodedFirst = {"dequantize+cublaslt", gpu::internal::refuseViaDense, gpu::internal::runViaDense};
  for (const ScalarType scalar : {ScalarType::kBFloat16, ScalarType::kHalf}) {
    for (const Index m : {8, 16, 32, 64, 128, 256}) {
      Problem p;
      p.seed = 1;
      p.m = m;
      p.k = 1500;
      p.n = 512;
      p.transposed = false;
      p.scalar = scalar;
      p.epilogue = epilogueCases()[0];
      Trial trial(p, context);
      const double fused = trial.relativeErrorOf(kFused), decodedFirst = trial.relativeErrorOf(kDecodedFirst);
      BOOST_TEST_MESSAGE("scalar " << int(scalar) << ", m " << m << ": " << fused << ", decoding first "
                                   << decodedFirst);
      BOOST_TEST(fused <= 1.02 * decodedFirst);
    }
  }
}

BOOST_AUTO_TEST_CASE(backwardRefusesInWords, *needsDevice()) {
  gpu::Context context;
  if (!hasWgmma(context)) return;
  const NF4Matrix w(MatrixXf::Random(64, 256)), narrow(MatrixXf::Random(64, 128)),
      coarse(MatrixXf::Random(64, 256), 128);
  const auto asked = [&](const NF4Matrix& weights, Index m, ScalarType scalar, bool transposed) {
    QuantizedProduct p;
    p.w = weights.quantizedView().weights;
    p.transposed = transposed;
    const Index depth = transposed ? p.w.cols : p.w.rows, width = transposed ? p.w.rows : p.w.cols;
    Frame x(m, depth, Layout::kRowMajor, scalar), y(m, width, Layout::kRowMajor, scalar);
    p.x = constant(x.view());
    p.y = y.view();
    const char* const why = gpu::internal::refuseFourBitBackward(p, context);
    return std::string(why ? why : "");
  };
  BOOST_TEST(asked(w, 512, ScalarType::kHalf, false) == "");
  BOOST_TEST(asked(w, 513, ScalarType::kHalf, false) == "more than 512 rows of X");
  BOOST_TEST(asked(w, 1, ScalarType::kHalf, true) == "W is used transposed");
  BOOST_TEST(asked(w, 1, ScalarType::kFloat, false) == "X is neither half nor bfloat16");
  BOOST_TEST(asked(coarse, 1, ScalarType::kBFloat16, false) == "blocks of other than 64");
  BOOST_TEST(asked(narrow, 1, ScalarType::kBFloat16, false) ==
             "rows of W do not begin and end at multiples of 256 codes");
}

BOOST_AUTO_TEST_CASE(int8BackwardRefusesInWords, *needsDevice()) {
  gpu::Context context;
  if (!hasWgmma(context)) return;
  const Int8Matrix w(MatrixXf::Random(64, 256)), narrow(MatrixXf::Random(64, 100));
  const NF4Matrix fourBit(MatrixXf::Random(64, 256));
  const auto asked = [&](const WeightView& weights, Index m, ScalarType scalar, bool transposed) {
    QuantizedProduct p;
    p.w = weights;
    p.transposed = transposed;
    p.x.rows = p.y.rows = m;
    p.x.scalar = p.y.scalar = scalar;
    const char* const why = gpu::internal::refuseInt8Backward(p, context);
    return std::string(why ? why : "");
  };
  const WeightView view = w.quantizedView().weights;
  constexpr Index kMost = gpu::internal::kInt8BackwardRows;
  BOOST_TEST(asked(view.window(0, 0, 64, 48), kMost, ScalarType::kHalf, false) == "");
  BOOST_TEST(asked(view, kMost + 1, ScalarType::kHalf, false) ==
             "more than 2048 rows of X: a product with decoded weights is faster");
  BOOST_TEST(asked(view, 1, ScalarType::kHalf, true) == "W is used transposed");
  BOOST_TEST(asked(view, 1, ScalarType::kFloat, false) == "X is neither half nor bfloat16");
  BOOST_TEST(asked(fourBit.quantizedView().weights, 1, ScalarType::kBFloat16, false) == "needs int8 weights");
  const std::string reason = "rows of W do not begin and end at multiples of 16 bytes";
  BOOST_TEST(asked(narrow.quantizedView().weights, 1, ScalarType::kBFloat16, false) == reason);
  BOOST_TEST(asked(view.window(0, 8, 64, 48), 1, ScalarType::kBFloat16, false) == reason);
  BOOST_TEST(asked(view.window(0, 0, 64, 40), 1, ScalarType::kBFloat16, false) == reason);
}
