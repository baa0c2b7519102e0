// SPDX-License-Identifier: MPL-2.0
// Random products with quantised weights, as the device's table lowers them, against the host library's results for the
// same data. EIGENQ_RANDOM_CASES says how many (300), EIGENQ_RANDOM_SEED which come first (1); a case that fails names
// its seed, with which it runs alone.
#define BOOST_TEST_MODULE DeviceRandomProducts
#include <boost/test/unit_test.hpp>

#include <map>

#include <src/cuda/fourbit_gemm.h>

#include "RandomProduct.h"

using namespace EigenQ;
using namespace EigenQ::test;

BOOST_AUTO_TEST_CASE(randomProductsAgreeWithTheHost, *needsDevice()) {
  constexpr unsigned kDefaultCases = 300;
  const unsigned cases = fromEnvironment("EIGENQ_RANDOM_CASES", kDefaultCases);
  const unsigned begin = fromEnvironment("EIGENQ_RANDOM_SEED", 1);
  gpu::Context context;
  std::map<std::string, int> runs;
  for (unsigned seed = begin; seed < begin + cases; ++seed) {
    const Problem p = problemOf(seed);
    std::string row = "none", error;
    try {
      error = Trial(p, context).run(row);
    } catch (const std::exception& e) {
      error = e.what();
    }
    ++runs[row];
    if (!error.empty())
      BOOST_ERROR(describe(p) << ", by " << row << ": " << error << "; again: EIGENQ_RANDOM_SEED=" << seed
                              << " EIGENQ_RANDOM_CASES=1");
  }
  BOOST_TEST_MESSAGE(cases << " random products from seed " << begin);
  for (const auto& [name, count] : runs) BOOST_TEST_MESSAGE(name << ": " << count << " runs");
  if (cases < kDefaultCases) return;
  for (const char* row : {"mma.decode", "simt.decode", "int8.decode.weightonly", "dequantize+cublaslt"})
    BOOST_TEST(runs[row] > 0, row << " has never run");
}

// wgmma.team in both directions, with W in the layout that it takes; the table asks it for larger ones than these.
BOOST_AUTO_TEST_CASE(teamProductsAgreeWithTheHost, *needsDevice()) {
  gpu::Context context;
  if (!hasWgmma(context)) return;
  constexpr Row kTeam = {"wgmma.team", gpu::internal::refuseFourBitGemmAtAll, gpu::internal::runFourBitGemm};
  constexpr unsigned kDefaultCases = 60;
  const unsigned cases = std::min(kDefaultCases, fromEnvironment("EIGENQ_RANDOM_CASES", kDefaultCases));
  constexpr Index kMultiple = 64, kMostWork = 100000000;
  unsigned ran = 0;
  for (unsigned seed = 1; seed <= cases; ++seed) {
    Problem p = problemOf(seed);
    Dice dice(seed);
    p.m = awkwardSize(dice, 2100);
    p.transposed = dice.once(2);
    Index &rows = p.transposed ? p.n : p.k, &cols = p.transposed ? p.k : p.n;
    rows = awkwardSize(dice, 700);
    cols = kMultiple * (1 + dice.below(12));
    while (p.m * rows * cols > kMostWork) rows = (rows + 1) / 2;
    p.scalar = dice.once(2) ? ScalarType::kHalf : ScalarType::kBFloat16;
    p.format = WeightFormat::kFourBit;
    p.int8Activations = false;
    p.outlierColumns = 0;
    p.type = dice.once(2) ? FourBitType::kFP4 : FourBitType::kNF4;
    p.blockShift = static_cast<int>(6 + dice.below(5));
    p.nested = dice.once(2);
    p.row = dice.below(3);
    p.rowsBelow = dice.below(2);
    p.col = kMultiple * dice.below(3);
    p.colsBehind = kMultiple * dice.below(2);
    if (p.exact) p.epilogue = epilogueCases()[static_cast<std::size_t>(dice.below(8))];
    std::string row = "none";
    const std::string error = Trial(p, context).run(row, &kTeam);
    if (!error.empty()) BOOST_ERROR(describe(p) << ", by " << row << ": " << error);
    ran += row == kTeam.name;
  }
  BOOST_TEST(ran == cases);
}
