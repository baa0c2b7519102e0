// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Quantize
#include <boost/test/unit_test.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <Eigen/Core>

#include <eigen_q/src/BlockScale.h>
#include <eigen_q/src/FourBitCodec.h>
#include <eigen_q/src/Quantize.h>
#include <src/formats/convert.h>

using namespace EigenQ;
using Eigen::MatrixXf;
using Eigen::VectorXf;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/** The vector of bitsandbytes-like self-checks: one partial block whose reciprocal is exact. */
Eigen::RowVectorXf selfCheck() {
  return (Eigen::RowVectorXf(8) << 0.5f, -1.25f, 0, 2, -0.03f, 0.875f, -2, 0.003f).finished();
}

/** Values of many magnitudes and both signs, the same for every call. */
MatrixXf sample(Index rows, Index cols) {
  return MatrixXf::NullaryExpr(rows, cols, [](Index i, Index j) {
    const float t = static_cast<float>((i * 31 + j * 17) % 101) - 50;
    return t * std::exp2(static_cast<float>((i + j) % 7));
  });
}

/** The rule itself, value by value. */
std::vector<int> expectedFourBit(const MatrixXf& x, FourBitType type, Index blockSize, VectorXf& absmax) {
  const RowMajorMatrix<float> flat = x;
  absmax.setZero(internal::blockCount(flat.size(), blockSize));
  for (Index i = 0; i < flat.size(); ++i)
    absmax[i / blockSize] = std::max(absmax[i / blockSize], std::fabs(flat.data()[i]));
  std::vector<int> codes;
  for (Index i = 0; i < flat.size(); ++i)
    codes.push_back(internal::encodeFourBit(type, flat.data()[i] * (1 / absmax[i / blockSize])));
  return codes;
}

std::vector<int> codesOf(const FourBitQuantized& q) {
  std::vector<int> codes;
  for (Index i = 0; i < q.state.size(); ++i) codes.push_back(internal::codeAt(q.packed.data(), i));
  return codes;
}

template <typename T>
std::vector<int> ints(std::initializer_list<T> values) {
  return {values.begin(), values.end()};
}

template <typename Derived>
std::vector<int> ints(const Eigen::DenseBase<Derived>& m) {
  std::vector<int> values;
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) values.push_back(m.derived().coeff(i, j));
  return values;
}

}  // namespace

BOOST_AUTO_TEST_CASE(selfCheckVectors) {
  const FourBitQuantized nf4 = quantize4bit(selfCheck(), FourBitType::kNF4);
  BOOST_TEST(ints(nf4.packed) == ints({0xa1, 0x7f, 0x7c, 0x07}), boost::test_tools::per_element());
  BOOST_TEST(nf4.state.absmax()[0] == 2.0f);
  const float nf4Values[] = {0.4922246039f, -1.3923856020f, 0, 2, 0, 0.8814196587f, -2, 0};
  const RowMajorMatrix<float> nf4Decoded = dequantize4bit(nf4.packed, nf4.state);
  for (Index i = 0; i < 8; ++i) BOOST_TEST(nf4Decoded(0, i) == nf4Values[i]);

  const FourBitQuantized fp4 = quantize4bit(selfCheck(), FourBitType::kFP4);
  BOOST_TEST(ints(fp4.packed) == ints({0x7a, 0x03, 0x95, 0xb0}), boost::test_tools::per_element());
  const float fp4Values[] = {0.5f, -1.3333333731f, 0, 2, -0.0104166670f, 1, -2, 0};
  const RowMajorMatrix<float> fp4Decoded = dequantize4bit(fp4.packed, fp4.state);
  for (Index i = 0; i < 8; ++i) BOOST_TEST(fp4Decoded(0, i) == fp4Values[i]);

  const BlockwiseQuantized bytes = quantizeBlockwise(selfCheck());
  BOOST_TEST(ints(bytes.codes) == ints({201, 26, 127, 255, 94, 214, 0, 143}), boost::test_tools::per_element());
  const float byteValues[] = {0.4953124821f,  -1.2546875477f, 0, 2, -0.0284375008f, 0.8609374762f,
                              -1.9859374762f, 0.0025624998f};
  const RowMajorMatrix<float> byteDecoded = dequantizeBlockwise(bytes);
  for (Index i = 0; i < 8; ++i) BOOST_TEST(byteDecoded(0, i) == byteValues[i]);
}

BOOST_AUTO_TEST_CASE(everyBlockSizeAndRaggedShape) {
  for (const Index blockSize : {32, 64, 128, 256, 512, 1024, 2048, 4096}) {
    for (const auto& [rows, cols] : {std::pair<Index, Index>{1, 1},
                                     {1, blockSize},
                                     {1, blockSize + 1},
                                     {3, blockSize - 1},
                                     {7, 61},
                                     {blockSize / 2 + 1, 2}}) {
      for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4}) {
        const MatrixXf x = sample(rows, cols);
        const FourBitQuantized q = quantize4bit(x, type, blockSize);
        VectorXf absmax;
        BOOST_REQUIRE(codesOf(q) == expectedFourBit(x, type, blockSize, absmax));
        BOOST_REQUIRE(q.state.absmax() == absmax);
        BOOST_REQUIRE(q.packed.size() == (x.size() + 1) / 2);
        const int padding = type == FourBitType::kNF4 ? 7 : 0;
        if (x.size() % 2 == 1) BOOST_REQUIRE((q.packed[q.packed.size() - 1] & 0xf) == padding);
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(blocksRunAlongRowsWhateverTheStrides) {
  const MatrixXf x = sample(37, 70);
  const FourBitQuantized expected = quantize4bit(RowMajorMatrix<float>(x));
  const auto same = [&](const FourBitQuantized& q) {
    return q.packed == expected.packed && q.state.absmax() == expected.state.absmax();
  };
  BOOST_TEST(same(quantize4bit(x)));
  BOOST_TEST(same(quantize4bit(RowMajorMatrix<float>(x.transpose()).transpose())));
  BOOST_TEST(same(quantize4bit(x + MatrixXf::Zero(37, 70))));  // no direct access

  MatrixXf frame = MatrixXf::Constant(80, 150, kNaN);
  frame.block(3, 5, 37, 70) = x;
  BOOST_TEST(same(quantize4bit(frame.block(3, 5, 37, 70))));
  Eigen::Map<MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> spread(frame.data(), 37, 70, {160, 2});
  spread = x;
  BOOST_TEST(same(quantize4bit(spread)));
  const MatrixXf reversed = x.reverse();
  const Eigen::Map<const MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> backwards(
      reversed.data() + reversed.size() - 1, 37, 70, {-37, -1});
  BOOST_TEST(same(quantize4bit(backwards)));
}

// The padding nibble is a zero of its block, as the original's kernel loads it.
BOOST_AUTO_TEST_CASE(theLastNibbleOfAnOddCountIsAZeroOfItsBlock) {
  MatrixXf x = MatrixXf::Zero(1, 33);
  BOOST_TEST(quantize4bit(x, FourBitType::kNF4, 32).packed[16] == 0x00);
  x(0, 32) = 1;
  BOOST_TEST(quantize4bit(x, FourBitType::kNF4, 32).packed[16] == 0xf7);
  BOOST_TEST(quantize4bit(x, FourBitType::kFP4, 32).packed[16] == 0x30);
}

// More than one panel of the copying path, with blocks that straddle panels.
BOOST_AUTO_TEST_CASE(largeColumnMajorInput) {
  const MatrixXf x = sample(700, 999);
  const FourBitQuantized rowMajor = quantize4bit(RowMajorMatrix<float>(x), FourBitType::kNF4, 4096);
  const FourBitQuantized colMajor = quantize4bit(x, FourBitType::kNF4, 4096);
  BOOST_TEST((rowMajor.packed == colMajor.packed));
  BOOST_TEST((rowMajor.state.absmax() == colMajor.state.absmax()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(narrowInputIsQuantisedFromItsOwnValues, Scalar,
                              decltype(std::tuple<Eigen::half, Eigen::bfloat16>())) {
  const Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic> x = (sample(9, 77) * 0.37f).cast<Scalar>();
  const MatrixXf wide = x.template cast<float>();
  const FourBitQuantized q = quantize4bit(x, FourBitType::kFP4, 32);
  BOOST_TEST((q.packed == quantize4bit(wide, FourBitType::kFP4, 32).packed));
  BOOST_TEST((quantizeBlockwise(x).codes == quantizeBlockwise(wide).codes));
  BOOST_TEST((q.state.dtype() == internal::ScalarTypeOf<Scalar>::value));
  const RowMajorMatrix<float> decoded = dequantize4bit<float>(q.packed, q.state);
  BOOST_TEST((dequantize4bit<Scalar>(q.packed, q.state).template cast<float>() ==
              decoded.cast<Scalar>().template cast<float>()));
}

BOOST_AUTO_TEST_CASE(doublesAreRoundedToFloatFirst) {
  const Eigen::MatrixXd x = sample(5, 50).cast<double>() * 1.00000001;
  BOOST_TEST((quantize4bit(x).packed == quantize4bit(MatrixXf(x.cast<float>())).packed));
  BOOST_TEST((dequantize4bit<double>(quantize4bit(x).packed, quantize4bit(x).state) ==
              dequantize4bit<float>(quantize4bit(x).packed, quantize4bit(x).state).cast<double>()));
}

BOOST_AUTO_TEST_CASE(quantisingDecodedValuesChangesNothing) {
  for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4}) {
    const FourBitQuantized q = quantize4bit(sample(16, 96), type);
    const RowMajorMatrix<float> decoded = dequantize4bit(q.packed, q.state);
    const FourBitQuantized again = quantize4bit(decoded, type);
    BOOST_TEST((dequantize4bit(again.packed, again.state) == decoded));
    if (type == FourBitType::kNF4) BOOST_TEST((again.packed == q.packed));
  }
}

BOOST_AUTO_TEST_CASE(zeroBlocksTakeCodeZero) {
  MatrixXf x = sample(3, 64);
  x.row(1).setZero();
  const FourBitQuantized nf4 = quantize4bit(x), fp4 = quantize4bit(x, FourBitType::kFP4);
  BOOST_TEST(nf4.state.absmax()[1] == 0);
  BOOST_TEST((nf4.packed.segment(32, 32).array() == 0).all());
  BOOST_TEST((fp4.packed.segment(32, 32).array() == 0).all());
  const RowMajorMatrix<float> decoded = dequantize4bit(nf4.packed, nf4.state);
  BOOST_TEST((decoded.row(1).array() == 0).all());
  BOOST_TEST(std::signbit(decoded(1, 0)));  // -1·0
  BOOST_TEST((quantizeBlockwise(x, dynamicMap(), 64).codes.row(1).array() == 0).all());
}

BOOST_AUTO_TEST_CASE(subnormalsCountAsZero) {
  Eigen::RowVectorXf x = Eigen::RowVectorXf::Constant(64, std::numeric_limits<float>::denorm_min());
  x[5] = -std::nextafter(std::numeric_limits<float>::min(), 0.0f);
  BOOST_TEST(quantize4bit(x).state.absmax()[0] == 0);
  BOOST_TEST((quantize4bit(x).packed.array() == 0).all());
  x[6] = std::numeric_limits<float>::min();
  const FourBitQuantized q = quantize4bit(x);
  BOOST_TEST(q.state.absmax()[0] == std::numeric_limits<float>::min());
  BOOST_TEST(codesOf(q)[5] == 7);  // zero, not nearly -1
  BOOST_TEST(codesOf(q)[6] == 15);
}

BOOST_AUTO_TEST_CASE(nanIsIgnoredAndInfinityEmptiesItsBlock) {
  MatrixXf x = sample(1, 128);
  const float absmax = x.leftCols(64).cwiseAbs().maxCoeff();
  x(0, 3) = kNaN;
  x(0, 100) = -kInfinity;
  const FourBitQuantized q = quantize4bit(x);
  BOOST_TEST(q.state.absmax()[0] == absmax);
  BOOST_TEST(codesOf(q)[3] == 0);
  BOOST_TEST(q.state.absmax()[1] == kInfinity);
  BOOST_TEST(codesOf(q)[100] == 0);
  BOOST_TEST(codesOf(q)[101] == 7);  // a finite value over an infinite absmax
}

BOOST_AUTO_TEST_CASE(theLargestFloatsKeepTheirCodes) {
  const Eigen::RowVectorXf x = selfCheck() * (std::numeric_limits<float>::max() / 2);
  BOOST_TEST(codesOf(quantize4bit(x)) == codesOf(quantize4bit(selfCheck())), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(nestedStatistics) {
  const NestedAbsmax nested = internal::nestAbsmax(Eigen::Vector4f(1, 2, 4, 1));
  BOOST_TEST(nested.offset == 2);
  BOOST_TEST(nested.absmax[0] == 2);
  BOOST_TEST(ints(nested.codes) == ints({35, 127, 255, 35}), boost::test_tools::per_element());
  const QuantState state(FourBitType::kNF4, 64, ScalarType::kFloat, {4, 64}, nested);
  const float decoded[] = {0.9984375238f, 2, 4, 0.9984375238f};
  for (Index b = 0; b < 4; ++b) BOOST_TEST(state.decodedAbsmax()[b] == decoded[b]);
}

BOOST_AUTO_TEST_CASE(nestedAbsmaxChangesNoCode) {
  const MatrixXf x = sample(300, 64);
  const FourBitQuantized plain = quantize4bit(x), nested = quantize4bit(x, FourBitType::kNF4, 64, true);
  BOOST_TEST((plain.packed == nested.packed));
  BOOST_TEST(nested.state.isNested());
  BOOST_TEST(nested.state.nestedAbsmax().absmax.size() == 2);  // 300 blocks in blocks of 256
  const VectorXf shifted = plain.state.absmax().array() - nested.state.nestedAbsmax().offset;
  // Half the widest gap of the map; at the negative end it is 1 - 0.99297.
  const float bound = 0.0072f * shifted.cwiseAbs().maxCoeff();
  BOOST_TEST((nested.state.decodedAbsmax() - plain.state.absmax()).cwiseAbs().maxCoeff() <= bound);
}

BOOST_AUTO_TEST_CASE(emptyInput) {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 0}, {0, 5}, {5, 0}}) {
    const FourBitQuantized q = quantize4bit(MatrixXf(rows, cols), FourBitType::kNF4, 64, true);
    BOOST_TEST(q.packed.size() == 0);
    BOOST_TEST(q.state.blocks() == 0);
    const RowMajorMatrix<float> decoded = dequantize4bit(q.packed, q.state);
    BOOST_TEST((decoded.rows() == rows && decoded.cols() == cols));
    BOOST_TEST(dequantizeBlockwise(quantizeBlockwise(MatrixXf(rows, cols))).size() == 0);
  }
}

BOOST_AUTO_TEST_CASE(whatCannotBeIsRefused) {
  const MatrixXf x = sample(2, 64);
  for (const Index blockSize : {0, -64, 16, 63, 96, 8192}) {
    BOOST_CHECK_THROW(quantize4bit(x, FourBitType::kNF4, blockSize), FormatError);
    BOOST_CHECK_THROW(quantizeBlockwise(x, dynamicMap(), blockSize), FormatError);
  }
  BOOST_CHECK_THROW(quantizeBlockwise(x, VectorXf::Zero(255)), FormatError);
  VectorXf table = dynamicMap();
  std::swap(table[7], table[8]);
  BOOST_CHECK_THROW(quantizeBlockwise(x, table), FormatError);
  table[7] = kNaN;
  BOOST_CHECK_THROW(quantizeBlockwise(x, table), FormatError);
  const FourBitQuantized q = quantize4bit(x);
  BOOST_CHECK_THROW(dequantize4bit(q.packed.head(63), q.state), FormatError);
  BlockwiseQuantized bytes = quantizeBlockwise(x);
  bytes.absmax.conservativeResize(2);
  BOOST_CHECK_THROW(dequantizeBlockwise(bytes), FormatError);
}

// Values on thresholds and beside them, subnormals, zeros, NaN and infinities; blocks of every kind of absmax.
BOOST_AUTO_TEST_CASE(everyConverterFollowsTheScalarDefinition) {
  constexpr Index kBlock = 32, kCount = 20 * kBlock + 7;
  std::vector<float> values(kCount);
  for (Index i = 0; i < kCount; ++i) {
    const Index block = i / kBlock;
    const float unit = block % 5 == 1 ? 1e-37f : block % 5 == 2 ? 3e30f : 1.0f;
    const float threshold = internal::nf4Thresholds().at[i % 15];
    const float v = i % 3 == 0   ? threshold
                    : i % 3 == 1 ? std::nextafter(threshold, 2.0f)
                                 : 0.001f * float(i % 97) - 0.05f;
    values[std::size_t(i)] = unit * (i % kBlock == 5 ? 1.0f : v);
  }
  values[3 * kBlock + 1] = kNaN;
  values[4 * kBlock + 1] = -kInfinity;
  values[6 * kBlock + 2] = -1e-40f;
  std::fill_n(values.begin() + 8 * kBlock, kBlock, 1e-40f);
  int rows = 0;
  for (const internal::ConvertLowering& row : internal::hostConverters()) {
    if (row.refuse()) continue;
    ++rows;
    for (const FourBitType type : {FourBitType::kNF4, FourBitType::kFP4}) {
      std::vector<std::uint8_t> packed((kCount + 1) / 2);
      std::vector<float> absmax(21);
      row.kernels->quantizeFourBit(type, values.data(), kCount, kBlock, packed.data(), absmax.data());
      int wrong = 0;
      for (Index i = 0; i < kCount; ++i) {
        const Index begin = i / kBlock * kBlock, end = std::min(kCount, begin + kBlock);
        std::int32_t largest = 0;
        for (Index j = begin; j < end; ++j)
          largest = std::max(largest, internal::magnitudeBits(values[std::size_t(j)]));
        const float expected = internal::floatOf(std::uint32_t(largest));
        const float quotient = internal::normalized(values[std::size_t(i)], internal::blockReciprocal(expected));
        wrong += absmax[std::size_t(i / kBlock)] != expected;
        wrong += internal::codeAt(packed.data(), i) != internal::encodeFourBit(type, quotient);
      }
      BOOST_TEST(wrong == 0, row.name << ": " << wrong << " differ");
    }
  }
  BOOST_TEST(rows >= 1);
}
