// SPDX-License-Identifier: MPL-2.0
// A random product with quantised weights, on the device and as the host library computes it from the same data.
//
// Every other one is of small integers whose sums are exact in any order and on any hardware, and so are weights that
// are rounded to X's scalar: there both sides have to agree to the last bit, and a term too many or too few shows. The
// others are of normal numbers and held to the bound of the arithmetic of both sides.
#ifndef EIGENQ_TEST_CUDA_RANDOMPRODUCT_H
#define EIGENQ_TEST_CUDA_RANDOMPRODUCT_H

#include <src/cuda/device_lowering.h>

#include <cstdlib>
#include <sstream>

#include "Device.h"
#include "Operand.h"

namespace EigenQ {
namespace test {

using gpu::internal::deviceLowerings;
using internal::DenseView;
using internal::QuantizedProduct;
using internal::WeightFormat;
using internal::WeightView;
using Row = gpu::internal::DeviceLowering<QuantizedProduct>;

/** Choices that depend on the seed alone, whatever the standard library. */
class Dice {
 public:
  explicit Dice(unsigned seed) : m_engine(seed) {}
  std::uint32_t word() { return static_cast<std::uint32_t>(m_engine()); }
  /** 0 … count - 1. */
  Index below(Index count) { return static_cast<Index>(word() % static_cast<std::uint32_t>(count)); }
  bool once(Index in) { return below(in) == 0; }
  template <typename T, std::size_t kCount>
  const T& of(const T (&choices)[kCount]) {
    return choices[below(static_cast<Index>(kCount))];
  }

 private:
  std::mt19937 m_engine;
};

struct Problem {
  unsigned seed = 0;
  bool exact = false;
  Index m = 0, n = 0, k = 0;
  bool transposed = true;
  ScalarType scalar = ScalarType::kFloat;
  Place x, y, other;
  EpilogueCase epilogue;
  Index outlierColumns = 0;  // of X, with a magnitude of 8

  WeightFormat format = WeightFormat::kInt8;
  bool int8Activations = false;
  float threshold = 0;
  FourBitType type = FourBitType::kNF4;
  int blockShift = 6;
  bool nested = false;
  Index row = 0, col = 0, rowsBelow = 0, colsBehind = 0;  // of the window in the whole matrix

  Index windowRows() const { return transposed ? n : k; }
  Index windowCols() const { return transposed ? k : n; }
  Index wholeRows() const { return row + windowRows() + rowsBelow; }
  Index wholeCols() const { return col + windowCols() + colsBehind; }
};

inline std::string describe(const Problem& p) {
  std::ostringstream s;
  s << "seed " << p.seed << (p.exact ? ", integers" : "") << ": m " << p.m << ", n " << p.n << ", k " << p.k
    << (p.transposed ? ", transposed" : ", as it is") << ", scalar " << int(p.scalar) << ", places " << int(p.x.layout)
    << p.x.flipped << ' ' << int(p.y.layout) << p.y.flipped << ' ' << int(p.other.layout) << p.other.flipped
    << ", epilogue \"" << p.epilogue.name << "\", ";
  if (p.format == WeightFormat::kInt8) {
    s << (p.int8Activations ? "LLM.int8() threshold " + std::to_string(p.threshold) : "int8") << ", outliers "
      << p.outlierColumns;
  } else {
    s << (p.type == FourBitType::kNF4 ? "NF4" : "FP4") << (p.nested ? " nested" : "") << " by " << (1 << p.blockShift);
  }
  s << ", window at " << p.row << ' ' << p.col << " of " << p.wholeRows() << 'x' << p.wholeCols();
  return s.str();
}

/** 1 to \a most; two of three lie at the edges of blocks and tiles. */
inline Index awkwardSize(Dice& dice, Index most) {
  const Index steps[] = {4, 8, 16, 32, 64, 128, 256};
  if (dice.once(8)) return std::min<Index>(most, 1 + dice.below(4));
  if (dice.once(3)) return 1 + dice.below(most);
  const Index step = std::min(dice.of(steps), most),
              multiple = step * (1 + dice.below(std::max<Index>(most / step, 1)));
  const Index around[] = {0, 0, 0, -1, 1};  // aligned sizes are the ones that fast kernels take
  return std::clamp<Index>(multiple + dice.of(around), 1, most);
}

inline void chooseSizes(Dice& dice, Problem& p) {
  const bool large = dice.once(40);
  p.m = dice.once(2) ? 1 + dice.below(17) : awkwardSize(dice, 600);
  p.n = awkwardSize(dice, 2000);
  p.k = awkwardSize(dice, 2000);
  const double most = large ? 4e8 : 3e7;  // multiplications
  const auto work = [&] { return static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k); };
  while (work() > most && p.m > 20) p.m = (p.m + 1) / 2;
  while (work() > most) p.n = (p.n + 1) / 2;
}

inline void chooseWeights(Dice& dice, Problem& p) {
  p.format = dice.once(2) ? WeightFormat::kInt8 : WeightFormat::kFourBit;
  p.transposed = !dice.once(3);
  if (p.format == WeightFormat::kInt8) {
    p.int8Activations = !p.exact && p.transposed && !dice.once(3);
    p.threshold = p.int8Activations && !dice.once(2) ? 6.0f : 0.0f;
    p.outlierColumns = p.exact || dice.once(3) ? 0 : dice.below(std::min<Index>(p.k, 9));
  } else {
    p.type = dice.once(2) ? FourBitType::kFP4 : FourBitType::kNF4;
    p.blockShift = static_cast<int>(5 + dice.below(8));
    p.nested = dice.once(2);
  }
  const Index offsets[] = {0, 0, 1, 2, 7, 16, 64, 128};
  if (dice.once(2)) return;  // a whole matrix
  p.row = dice.of(offsets);
  p.col = dice.of(offsets);
  p.rowsBelow = dice.of(offsets);
  p.colsBehind = dice.once(2) ? (64 - (p.col + p.windowCols()) % 64) % 64 : dice.of(offsets);
}

inline Problem problemOf(unsigned seed) {
  Dice dice(seed);
  Problem p;
  p.seed = seed;
  p.exact = seed % 2 == 0;
  chooseSizes(dice, p);
  chooseWeights(dice, p);
  p.scalar = dice.of(kScalars);
  p.x = dice.once(2) ? kPlaces[0] : dice.of(kPlaces);
  p.y = dice.once(2) ? kPlaces[dice.below(2)] : dice.of(kPlaces);
  p.other = dice.of(kPlaces);
  // The first eight have no activation but relu: exact where their operands are.
  const std::vector<EpilogueCase> epilogues = epilogueCases();
  p.epilogue = epilogues[static_cast<std::size_t>(dice.below(p.exact ? 8 : static_cast<Index>(epilogues.size())))];
  return p;
}

/** A quantised matrix of random codes and statistics, in host memory. */
class RandomWeights {
 public:
  RandomWeights(const Problem& p, Dice& dice) : m_rows(p.wholeRows()), m_cols(p.wholeCols()) {
    if (p.format == WeightFormat::kInt8) {
      makeInt8(p, dice);
    } else {
      makeFourBit(p, dice);
    }
  }
  RandomWeights(const RandomWeights&) = delete;
  RandomWeights& operator=(const RandomWeights&) = delete;
  const WeightView& view() const { return m_view; }

 private:
  static std::vector<std::uint8_t> randomBytes(Index count, Dice& dice) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
    for (auto& b : bytes) b = static_cast<std::uint8_t>(dice.word() >> 13);
    return bytes;
  }

  void makeInt8(const Problem& p, Dice& dice) {
    m_codes = randomBytes(m_rows * m_cols, dice);
    for (auto& c : m_codes) c = c == 0x80 ? 0 : c;  // codes are -127 … 127
    m_absmax.resize(static_cast<std::size_t>(m_rows));
    // decodeInt8(code, 127) is the code.
    for (float& a : m_absmax) a = p.exact ? 127.0f : 0.01f * static_cast<float>(1 + dice.below(64));
    m_view =
        WeightView::int8(reinterpret_cast<const std::int8_t*>(m_codes.data()), m_rows, m_cols, m_cols, m_absmax.data());
  }

  void makeFourBit(const Problem& p, Dice& dice) {
    const Index blocks = internal::blockCount(m_rows * m_cols, Index{1} << p.blockShift);
    m_codes = randomBytes(internal::packedSize(m_rows * m_cols), dice);
    m_table.assign(internal::fourBitTable(p.type), internal::fourBitTable(p.type) + internal::kFourBitLevels);
    for (std::size_t i = 0; p.exact && i < m_table.size(); ++i) m_table[i] = static_cast<float>(i) - 8;
    internal::AbsmaxView absmax;
    if (p.nested) {
      makeNested(p, blocks, dice, absmax);
    } else {
      m_absmax.resize(static_cast<std::size_t>(blocks));
      for (float& a : m_absmax)
        a = p.exact ? static_cast<float>(1 << dice.below(3)) : 0.01f * static_cast<float>(1 + dice.below(64));
      absmax.plain = m_absmax.data();
    }
    m_view = WeightView::fourBit(m_codes.data(), m_rows, m_cols, m_table.data(), absmax, p.blockShift);
  }

  void makeNested(const Problem& p, Index blocks, Dice& dice, internal::AbsmaxView& absmax) {
    m_nestedCodes = randomBytes(blocks, dice);
    m_absmax2.resize(static_cast<std::size_t>(internal::blockCount(blocks, 256)));
    m_nestedTable.assign(internal::signedDynamicMap().begin(), internal::signedDynamicMap().end());
    for (std::size_t i = 0; p.exact && i < m_nestedTable.size(); ++i) m_nestedTable[i] = static_cast<float>(i % 4);
    for (float& a : m_absmax2) a = p.exact ? 1.0f : 0.01f * static_cast<float>(1 + dice.below(16));
    absmax.codes = m_nestedCodes.data();
    absmax.codeTable = m_nestedTable.data();
    absmax.absmax2 = m_absmax2.data();
    absmax.nestedBlockShift = 8;
    absmax.offset = p.exact ? 1.0f : 0.3125f;
  }

  Index m_rows, m_cols;
  std::vector<std::uint8_t> m_codes, m_nestedCodes;
  std::vector<float> m_table, m_absmax, m_absmax2, m_nestedTable;
  WeightView m_view;
};

inline Prepare valuesOf(const Problem& p) {
  if (!p.exact) return nullptr;
  return [](Frame& frame) {  // -2 … 2
    for (Index i = 0; i < frame.rows(); ++i) {
      for (Index j = 0; j < frame.cols(); ++j)
        frame.set(i, j, std::clamp(std::nearbyint(1.2 * frame.at(i, j)), -2.0, 2.0));
    }
  };
}

/** Normal numbers, and an 8 in some columns: LLM.int8()'s outliers. */
inline Prepare activationsOf(const Problem& p) {
  if (p.outlierColumns == 0) return valuesOf(p);
  return [p](Frame& frame) {
    Dice dice(p.seed + 77);
    for (Index o = 0; o < p.outlierColumns; ++o) {
      const Index i = dice.below(p.m), k = dice.below(p.k);
      frame.set(p.x.flipped ? k : i, p.x.flipped ? i : k, o % 2 ? -8 : 8);
    }
  };
}

template <typename ValueAt>
Eigen::MatrixXf magnitudes(Index rows, Index cols, const ValueAt& valueAt) {
  return Eigen::MatrixXf::NullaryExpr(rows, cols,
                                      [&](Index i, Index j) { return std::fabs(static_cast<float>(valueAt(i, j))); });
}

/** One random problem with its operands on both sides. */
class Trial {
 public:
  Trial(const Problem& p, gpu::Context& context)
      : m_problem(p),
        m_context(context),
        m_dice(p.seed + 1),
        m_weights(p, m_dice),
        m_deviceWeights(m_weights.view(), context, /*offsetOnDevice=*/p.seed % 4 < 2),
        m_x(p.m, p.k, p.x, p.scalar, p.seed, context, activationsOf(p)),
        m_result(p.m, p.n, p.y, p.other, p.scalar, context, valuesOf(p)) {}

  /** Empty where both sides agree. \param row  receives the name of the row that ran, or its refusal \param only  the
   * row to run; null: as the table chooses */
  std::string run(std::string& row, const Row* only = nullptr) {
    Frame expected = m_result.y.frame();
    const DenseView hostY = m_result.y.hostAt(expected);
    internal::lower(product(constant(m_x.host()), m_weights.view(), hostY, m_result.onHost(hostY, m_problem.epilogue)));
    const std::vector<unsigned char>& start = m_result.y.frame().bytes();
    const DeviceBytes deviceY(start.data(), start.size(), m_context);
    row = runOnDevice(m_result.y.deviceAt(deviceY), only);
    const Frame found = m_result.y.frame().with(deviceY.toHost());
    if (!found.sameOutside(m_result.y.frame())) return "something is written outside of the result";
    return compare(expected, found, row);
  }

  /** Root mean square of how far \a row's results are from exact sums of the decoded weights, in units of that of
   * these. */
  double relativeErrorOf(const Row& row) {
    const Problem& p = m_problem;
    const WeightView w = m_weights.view().window(p.row, p.col, p.windowRows(), p.windowCols());
    const Eigen::MatrixXd x = Eigen::MatrixXd::NullaryExpr(p.m, p.k, [&](Index i, Index k) { return m_x.at(i, k); });
    const Eigen::MatrixXd decoded = Eigen::MatrixXd::NullaryExpr(
        p.k, p.n, [&](Index k, Index j) { return static_cast<double>(p.transposed ? w.coeff(j, k) : w.coeff(k, j)); });
    const Eigen::MatrixXd exact = x * decoded;
    const std::vector<unsigned char>& start = m_result.y.frame().bytes();
    const DeviceBytes deviceY(start.data(), start.size(), m_context);
    const std::string ran = runOnDevice(m_result.y.deviceAt(deviceY), &row);
    if (ran != row.name) throw std::runtime_error(ran);
    const Frame found = m_result.y.frame().with(deviceY.toHost());
    const Eigen::MatrixXd y =
        Eigen::MatrixXd::NullaryExpr(p.m, p.n, [&](Index i, Index j) { return m_result.y.at(found, i, j); });
    return (y - exact).norm() / exact.norm();
  }

 private:
  QuantizedProduct product(const internal::ConstDenseView& x, const WeightView& whole, const DenseView& y,
                           const internal::Epilogue& epilogue) const {
    const Problem& p = m_problem;
    QuantizedProduct q;
    q.x = x;
    q.w = whole.window(p.row, p.col, p.windowRows(), p.windowCols());
    q.w.int8Activations = p.int8Activations;
    q.w.outlierThreshold = p.threshold;
    q.transposed = p.transposed;
    q.y = y;
    q.epilogue = epilogue;
    return q;
  }

  const char* runOnDevice(const DenseView& y, const Row* only) {
    const QuantizedProduct p =
        product(constant(m_x.device()), m_deviceWeights.view(), y, m_result.on(y, m_problem.epilogue));
    if (only) {
      if (const char* const why = only->refuse(p, m_context)) return why;
      only->run(p, m_context);
      return only->name;
    }
    gpu::internal::lower(p, m_context);
    for (const auto& row : deviceLowerings()) {
      if (!row.refuse(p, m_context)) return row.name;
    }
    return "none";
  }

  /** Σ|x||w|, a little above. */
  Eigen::MatrixXf termSizes() const {
    const Problem& p = m_problem;
    const WeightView w = m_weights.view().window(p.row, p.col, p.windowRows(), p.windowCols());
    const Eigen::MatrixXf x = magnitudes(p.m, p.k, [&](Index i, Index k) { return m_x.at(i, k); });
    const Eigen::MatrixXf values =
        magnitudes(p.k, p.n, [&](Index k, Index j) { return p.transposed ? w.coeff(j, k) : w.coeff(k, j); });
    return 1.001f * (x * values);
  }

  std::string compare(const Frame& expected, const Frame& found, const std::string& row) const {
    const Problem& p = m_problem;
    const Eigen::MatrixXf size = p.exact ? Eigen::MatrixXf(Eigen::MatrixXf::Zero(p.m, p.n)) : termSizes();
    const double alpha = std::abs(static_cast<double>(p.epilogue.epilogue.alpha)), u = roundoffOf(p.scalar);
    const double sums = gammaFloat(p.k + 32) + relativeError(row, p.scalar, p.k);  // of both sides
    Index wrong = 0;
    std::ostringstream first;
    for (Index i = 0; i < p.m; ++i) {
      for (Index j = 0; j < p.n; ++j) {
        const double e = m_result.y.at(expected, i, j), f = m_result.y.at(found, i, j);
        if (e == f) continue;
        // As in ResultOperands::compare, for two sides: slopes of at most 1.13, bias and residuals below 16, and a
        // rounding to Y's scalar each.
        const double terms = static_cast<double>(size(i, j));
        const double before = 1.2 * alpha * sums * terms + 32 * unitRoundoff<float>() * (alpha * terms + 16);
        const double bound = before + u * (2 * std::abs(e) + before) + 0x1p-24;
        if (!p.exact && std::abs(f - e) <= bound) continue;
        if (wrong++ == 0) {
          first << '(' << i << ", " << j << "): host " << e << ", device " << f;
          if (!p.exact) first << ", bound " << bound;
        }
      }
    }
    return wrong == 0 ? "" : std::to_string(wrong) + " entries are wrong, the first is " + first.str();
  }

  Problem m_problem;
  gpu::Context& m_context;
  Dice m_dice;
  RandomWeights m_weights;
  DeviceWeights m_deviceWeights;
  Operand m_x;
  ResultOperands m_result;
};

/** Whether there are warpgroup products: in this build, for this device. */
inline bool hasWgmma(const gpu::Context& context) {
  const bool has = EIGENQ_TEST_HAVE_SM90A && context.properties().major == 9 && context.properties().minor == 0;
  if (!has) BOOST_TEST_MESSAGE("needs a device of compute capability 9.0 and a build for it");
  return has;
}

inline unsigned fromEnvironment(const char* name, unsigned otherwise) {
  const char* const text = std::getenv(name);
  return text ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_RANDOMPRODUCT_H
