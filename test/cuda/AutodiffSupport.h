// SPDX-License-Identifier: MPL-2.0
// The same statements on a tape of the host and on one of the device.
#ifndef EIGENQ_TEST_CUDA_AUTODIFF_SUPPORT_H
#define EIGENQ_TEST_CUDA_AUTODIFF_SUPPORT_H

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <unsupported/eigen_q/AutodiffCuda>

#include "Device.h"
#include "autodiff/Support.h"

namespace EigenQ {
namespace test {

using ad::Device;
using ad::Host;
using Eigen::Index;
using Eigen::MatrixXf;
using Eigen::VectorXi;

inline MatrixXf toHost(const Eigen::Map<MatrixXf>& m) { return m; }
inline MatrixXf toHost(const Eigen::Map<const MatrixXf>& m) { return m; }
inline const MatrixXf& toHost(const MatrixXf& m) { return m; }
template <typename Derived>
MatrixXf toHost(const gpu::DeviceBase<Derived>& m) {
  return m.derived().toHost();
}

/** |found - expected| ≤ tolerance·max(1, largest |expected|) in every entry: the sums of one matrix have terms of one
 * size, and their cancellation is no error. */
inline void expectNear(const std::string& what, const MatrixXf& found, const MatrixXf& expected, double tolerance) {
  BOOST_TEST_REQUIRE(found.rows() == expected.rows(), what << ": rows");
  BOOST_TEST_REQUIRE(found.cols() == expected.cols(), what << ": cols");
  if (expected.size() == 0) return;
  BOOST_TEST(expected.allFinite(), what << ": the host's own result is not finite");
  Index i = 0, j = 0;
  const Eigen::ArrayXXf difference = (found - expected).array().abs();
  const double worst =
      found.allFinite() ? static_cast<double>(difference.maxCoeff(&i, &j)) : std::numeric_limits<double>::infinity();
  const double bound = tolerance * std::max(1.0, static_cast<double>(expected.cwiseAbs().maxCoeff()));
  BOOST_TEST(worst <= bound, what << ": entry (" << i << ", " << j << ") of " << found.rows() << "x" << found.cols()
                                  << ": found " << found(i, j) << ", expected " << expected(i, j) << ", bound "
                                  << bound);
}

/** 4·γ₁₂₈ with γₙ = n·2⁻²⁴: an entry is a sum of at most 128 terms, scaled and added to few others, and the
 * exponentials of both sides differ by an ulp or two. */
constexpr double kOpTolerance = 4 * 128 / 16777216.0;

struct Outcome {
  MatrixXf value;
  std::vector<MatrixXf> once, twice;  // gradients after one backward() and after a second
};

template <typename Place, typename Fn>
Outcome outcomeOn(const Fn& fn, const std::vector<MatrixXf>& inputs) {
  ad::Tape<float, Place> tape(7);
  std::vector<ad::Var<float, Place>> vars;
  for (const MatrixXf& input : inputs) vars.push_back(tape.variable(input));
  const ad::Var<float, Place> y = fn(tape, std::as_const(vars));
  Outcome outcome{toHost(y.value()), {}, {}};
  if (!y.requiresGrad()) return outcome;
  const MatrixXf seed = randomMatrix<float>(y.rows(), y.cols(), 99);
  for (auto* gradients : {&outcome.once, &outcome.twice}) {
    tape.backward(y, seed);
    for (const auto& v : vars) gradients->push_back(toHost(v.grad()));
  }
  return outcome;
}

/** fn(tape, vars) has on the device the value and the gradients that it has on the host. */
template <typename Fn>
void agrees(const std::string& what, const Fn& fn, const std::vector<MatrixXf>& inputs,
            double tolerance = kOpTolerance) {
  const Outcome expected = outcomeOn<Host>(fn, inputs), found = outcomeOn<Device>(fn, inputs);
  expectNear(what + ": value", found.value, expected.value, tolerance);
  BOOST_TEST_REQUIRE(found.once.size() == expected.once.size());
  for (std::size_t i = 0; i < found.once.size(); ++i) {
    const std::string at = what + ": gradient " + std::to_string(i);
    expectNear(at, found.once[i], expected.once[i], tolerance);
    expectNear(at + ", added to", found.twice[i], expected.twice[i], tolerance);
  }
}

/** Random matrices of these shapes. */
inline std::vector<MatrixXf> random(std::initializer_list<std::pair<Index, Index>> shapes) {
  std::vector<MatrixXf> inputs;
  for (const auto& shape : shapes) inputs.push_back(randomMatrix<float>(shape.first, shape.second, inputs.size() + 1));
  return inputs;
}

/** An object of the host and its copy on the device; a tape picks its own. */
template <typename OnHost, typename OnDevice>
struct Both {
  OnHost host;
  OnDevice device;

  OnHost& at(const ad::Tape<float>&) { return host; }
  OnDevice& at(const ad::Tape<float, Device>&) { return device; }
};
inline Both<Int8Matrix, gpu::Int8Matrix> both(const Int8Matrix& w) { return {w, gpu::Int8Matrix::fromHost(w)}; }
template <FourBitType kType>
Both<FourBitMatrix<kType>, gpu::FourBitMatrix<kType>> both(const FourBitMatrix<kType>& w) {
  return {w, gpu::FourBitMatrix<kType>::fromHost(w)};
}

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_AUTODIFF_SUPPORT_H
