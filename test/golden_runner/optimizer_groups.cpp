// SPDX-License-Identifier: MPL-2.0
// optimizer_groups.cpp: adamw8bit, some steps of the 8-bit AdamW on a vector.
#include <functional>
#include <memory>

#include <unsupported/eigen_q/Autodiff>

#include "Groups.h"

namespace EigenQ {
namespace golden {
namespace {

ad::AdamWOptions optionsOf(const Case& c) {
  const auto betas = c.parameter<std::vector<double>>("betas");
  if (betas.size() != 2) throw FormatError(c.name(), "betas", "expected 2, found " + std::to_string(betas.size()));
  ad::AdamWOptions o;
  o.learningRate = c.parameter<double>("lr");
  o.beta1 = betas[0];
  o.beta2 = betas[1];
  o.eps = c.parameter<double>("eps");
  o.weightDecay = c.parameter<double>("weight_decay");
  return o;
}

/** How far the original's parameters may lie from ours, in the unit of the parameters.
 *
 * Moments agree to the bit, so steps differ by CUDA's approximate functions alone, whose errors its programming guide
 * states: division 2 ulp, square root 3 ulp, and a power that is exp2(t·log2 β), log2 within 2^-21.6, exp2 within a few
 * ulps of a result below 1. Each side then rounds the sum and the decayed value. */
class ParameterBound {
 public:
  ParameterBound(const ad::AdamWOptions& o, Index size) : m_options(o), m_bound(Eigen::VectorXd::Zero(size)) {}

  void addStep(int t, const Eigen::VectorXf& before, const Eigen::VectorXf& after) {
    constexpr double ulp = 0x1p-23;
    const double relative = powerError(m_options.beta1, t) + powerError(m_options.beta2, t) / 2 + 12 * ulp;
    const double keep = 1 - m_options.learningRate * m_options.weightDecay;
    const auto size = before.cast<double>().cwiseAbs().cwiseMax(after.cast<double>().cwiseAbs() / keep).array();
    const auto step = (after.cast<double>() / keep - before.cast<double>()).array().abs() + ulp * size;
    m_bound.array() += relative * step + 2 * ulp * size;  // two roundings on each side, half an ulp each
  }
  const Eigen::VectorXd& value() const { return m_bound; }

 private:
  /** Of 1 - βᵗ, relative. */
  static double powerError(double beta, int t) {
    const double power = std::pow(beta, t);
    return power * (t * 0x1p-21 + 4 * 0x1p-23) / (1 - power);
  }

  ad::AdamWOptions m_options;
  Eigen::VectorXd m_bound;
};

/** Fails beyond the bound; notes the rest, in ulps of the largest value that the parameter took. */
void compareParameters(const std::vector<float>& expected, const Eigen::VectorXf& found, const Eigen::VectorXd& bound,
                       const Eigen::VectorXf& largest, CaseReport& report) {
  if (!report.sameCount("final", expected.size(), static_cast<std::size_t>(found.size()))) return;
  int different = 0, beyond = 0;
  double worst = 0, share = 0;
  for (Index i = 0; i < found.size(); ++i) {
    const double error = std::fabs(double(expected[static_cast<std::size_t>(i)]) - double(found[i]));
    if (error == 0) continue;
    ++different;
    beyond += !(error <= bound[i]);
    worst = std::max(worst, error / std::ldexp(1.0, std::ilogb(largest[i]) - 23));
    share = std::max(share, error / bound[i]);
  }
  if (different == 0) return;
  char text[200];
  std::snprintf(text, sizeof text,
                "final: %d of %td differ, by up to %g ulp of the largest value the parameter took; at most %.2f of the "
                "bound, %d beyond it",
                different, found.size(), worst, share, beyond);
  if (beyond > 0) return report.fail(text);
  report.note(text, worst);
}

struct Moment {
  ByteVector codes;
  Eigen::VectorXf absmax;
  internal::MomentView view() { return {codes.data(), absmax.data(), nullptr}; }
};

/** A vector that 8-bit AdamW trains. */
struct Trained {
  Eigen::VectorXf value;
  Moment m, v;
};
using StepFunction = std::function<void(const Eigen::VectorXf& gradient, int t, Trained& trained)>;

/** By the tape's optimiser. */
StepFunction stepOnTape(const Eigen::VectorXf& initial, const ad::AdamWOptions& options) {
  const auto p = std::make_shared<ad::Parameter<float>>(initial);
  const auto optimizer = std::make_shared<ad::AdamW8bit>(std::vector<ad::Parameter<float>*>{p.get()}, options);
  return [p, optimizer](const Eigen::VectorXf& gradient, int, Trained& trained) {
    ad::Tape<float> tape;
    optimizer->zeroGrad();
    tape.backward(tape.parameter(*p), gradient);
    optimizer->step();
    const auto &m = optimizer->state().firstMoment[0], &v = optimizer->state().secondMoment[0];
    trained = {p->value(), {m.codes, m.absmax}, {v.codes, v.absmax}};
  };
}

/** By a kernel alone. The scalars of a step are bitsandbytes', in float as it computes them. */
StepFunction stepOn(const Backend& backend, const ad::AdamWOptions& o) {
  return [&backend, o](const Eigen::VectorXf& gradient, int t, Trained& trained) {
    const auto rate = static_cast<float>(o.learningRate), decay = static_cast<float>(o.weightDecay);
    internal::AdamStep s;
    s.beta1 = static_cast<float>(o.beta1);
    s.beta2 = static_cast<float>(o.beta2);
    const float unbias1 = 1 - static_cast<float>(std::pow(static_cast<double>(s.beta1), t));
    const float unbias2 = std::sqrt(1 - static_cast<float>(std::pow(static_cast<double>(s.beta2), t)));
    s.rate = rate * unbias2 / unbias1;
    s.eps = static_cast<float>(o.eps) * unbias2;
    s.keep = std::fma(-rate, decay, 1.0f);
    s.size = trained.value.size();
    s.parameter = trained.value.data();
    s.gradient = gradient.data();
    s.m = trained.m.view();
    s.v = trained.v.view();
    backend.runAdam(s);
  };
}

Trained untrained(const Eigen::VectorXf& initial) {
  const Index blocks = internal::blockCount(initial.size(), internal::kOptimizerBlockSize);
  const Moment zero = {ByteVector::Zero(initial.size()), Eigen::VectorXf::Zero(blocks)};
  return {initial, zero, zero};
}

}  // namespace

void checkAdamW8bit(const Case& c, CaseReport& report) {
  const test::Tensor& gradients = c.tensor("grads");
  const auto steps = c.parameter<int>("steps");
  const Eigen::VectorXf initial = toEigen(c.tensor("initial").floats());
  if (!report.sameCount("grads", gradients.floats().size(), std::size_t(steps) * std::size_t(initial.size()))) return;
  report.compareFloats("qmap1", c.tensor("qmap1").floats(), toVector(Eigen::VectorXf(dynamicMap(true))));
  report.compareFloats("qmap2", c.tensor("qmap2").floats(), toVector(Eigen::VectorXf(dynamicMap(false))));

  const std::vector<float> values = gradients.floats();
  const MatrixMap<float> grads(values.data(), steps, initial.size());
  const ad::AdamWOptions options = optionsOf(c);
  const StepFunction step = c.backend().isHost() ? stepOnTape(initial, options) : stepOn(c.backend(), options);
  Trained trained = untrained(initial);
  ParameterBound bound(options, initial.size());
  Eigen::VectorXf largest = initial.cwiseAbs();
  for (int t = 1; t <= steps; ++t) {
    const Eigen::VectorXf before = trained.value;
    step(grads.row(t - 1).transpose(), t, trained);
    bound.addStep(t, before, trained.value);
    largest = largest.cwiseMax(trained.value.cwiseAbs());
  }
  report.compareFloats("absmax1", c.tensor("absmax1").floats(), toVector(trained.m.absmax));
  report.compareFloats("absmax2", c.tensor("absmax2").floats(), toVector(trained.v.absmax));
  report.compareIntegers("state1", c.tensor("state1").bytesU8(), toVector(trained.m.codes));
  report.compareIntegers("state2", c.tensor("state2").bytesU8(), toVector(trained.v.codes));
  compareParameters(c.tensor("final").floats(), trained.value, bound.value(), largest, report);
}

}  // namespace golden
}  // namespace EigenQ
