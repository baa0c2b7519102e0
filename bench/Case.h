// SPDX-License-Identifier: MPL-2.0
// What is measured: one kernel of the library over one shape of W, for any number of rows of X.
#ifndef EIGENQ_BENCH_CASE_H
#define EIGENQ_BENCH_CASE_H

#include <memory>
#include <stdexcept>
#include <string>

#include <eigen_q/Cuda>

namespace EigenQ {
namespace bench {

enum class Rate { kNone, kFloat, kBFloat16, kInt8 };  // of the arithmetic; half runs at bfloat16's

/** What a call cannot do without. */
struct Work {
  double bytesRead = 0;
  double bytesWritten = 0;
  double operations = 0;
  Rate rate = Rate::kNone;
};

struct KernelSpec {
  enum class Kind { kProduct, kAdapter, kQuantize, kDequantize };
  enum class Format { kDense, kNF4, kNF4Nested, kInt8 };
  static constexpr float kNoThreshold = -1;

  const char* name;
  Kind kind;
  Format format;
  bool backward = false;           // dY·W, instead of X·Wᵀ
  float threshold = kNoThreshold;  // from 0 on: LLM.int8()
  bool eager = false;              // calls as a user makes them, the host's time included
  bool quick = false;              // part of --quick
};

/** W is n×k. */
struct Shape {
  Index n;
  Index k;
};

class Case {
 public:
  virtual ~Case() = default;
  /** The operands of calls with \a m rows of X; quantisers have none. */
  virtual void setRows(Index m) = 0;
  /** Quantised products: that row of the device's table computes them from here on, though another were faster.
   * Throws std::invalid_argument for what is no row. */
  virtual void setLowering(const std::string& name) {
    throw std::invalid_argument(name + " is for quantised products");
  }
  /** Why the row of setLowering() does not take the product; null where it does. */
  virtual const char* refusal() { return nullptr; }
  virtual int copies() const = 0;
  virtual void call(int copy) = 0;
  virtual Work work() const = 0;
  /** Spoils what call(0) writes. */
  virtual void spoilResult() = 0;
  /** A sample of what call(0) wrote against the host: empty, or what is wrong. */
  virtual std::string checkResult() = 0;
};

std::unique_ptr<Case> makeProductCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                      gpu::Context& context);
/** A layer with a LoRA adapter, forward and backward. */
std::unique_ptr<Case> makeAdapterCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                      gpu::Context& context);
std::unique_ptr<Case> makeQuantizerCase(const KernelSpec& spec, const Shape& shape, ScalarType scalar,
                                        gpu::Context& context);

// What the kinds of case share.

/** \returns f(Scalar()), for the C++ type of \a scalar. */
template <typename F>
std::unique_ptr<Case> forScalar(ScalarType scalar, const F& f) {
  switch (scalar) {
    case ScalarType::kHalf:
      return f(Eigen::half());
    case ScalarType::kBFloat16:
      return f(Eigen::bfloat16());
    case ScalarType::kFloat:
    case ScalarType::kDouble:
      break;
  }
  return f(0.0f);
}

/** How many operands of so many bytes are cold when they are used in turn: four at least. */
int coldCopies(double bytes);

/** W in memory: codes and statistics. */
double weightBytes(const KernelSpec& spec, const Shape& shape, ScalarType scalar);

constexpr float kWeightDeviation = 0.02f;

/** "(3, 5): expected 1.5, found nan" */
std::string mismatch(Index i, Index j, double expected, double found);

/** Rows or columns that a check looks at: both ends and some between. */
constexpr int kSampledRows = 4;
constexpr int kSampledCols = 8;
inline Index sampled(int index, int samples, Index size) { return index * (size - 1) / (samples - 1); }

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_BENCH_CASE_H
