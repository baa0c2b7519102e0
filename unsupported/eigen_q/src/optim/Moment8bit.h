// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPTIM_MOMENT_8BIT_H
#define EIGENQ_OPTIM_MOMENT_8BIT_H

#include <stdexcept>
#include <string>
#include <vector>

#include <eigen_q/src/OptimizerKernels.h>
#include <eigen_q/src/Quantize.h>

#include "Optimizer.h"

namespace EigenQ {
namespace ad {

/** Below this many elements a parameter's moments stay float, as in bitsandbytes: they take no memory to speak of. */
constexpr Eigen::Index kMin8bitSize = 4096;

/** A moment of one parameter, value by value as the parameter lies in memory (column-major): codes into a dynamic map
 * with one absmax for each block of 256, or floats for a small parameter.
 * Source: Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861. */
template <typename Place>
struct Moment8bitOn;
template <>
struct Moment8bitOn<Host> {
  ByteVector codes;        // size of the parameter; empty where it is small
  Eigen::VectorXf absmax;  // ⌈size/256⌉; empty where it is small
  Eigen::VectorXf values;  // size of the parameter; empty where it is not small

  Eigen::Index sizeInBytes() const {
    return codes.size() + (absmax.size() + values.size()) * Eigen::Index(sizeof(float));
  }

  /** \param small  in float */
  static Moment8bitOn zeros(Eigen::Index size, bool small) {
    Moment8bitOn moment;
    if (small) {
      moment.values.setZero(size);
    } else {
      moment.codes.setZero(size);
      moment.absmax.setZero(EigenQ::internal::blockCount(size, EigenQ::internal::kOptimizerBlockSize));
    }
    return moment;
  }
  /** For the kernels of a step, which write all of it. */
  EigenQ::internal::MomentView view() {
    if (codes.size() == 0) return {nullptr, nullptr, values.data()};
    return {codes.data(), absmax.data(), nullptr};
  }
  /** On the host already. */
  const Moment8bitOn& toHost() const { return *this; }
};
using Moment8bit = Moment8bitOn<Host>;

namespace internal {

/** One moment of zeros for each parameter; those of fewer than \a min8bitSize elements in float. */
template <typename Place>
std::vector<Moment8bitOn<Place>> zeroMoments(const std::vector<Parameter<float, Place>*>& parameters,
                                             Eigen::Index min8bitSize) {
  std::vector<Moment8bitOn<Place>> moments;
  moments.reserve(parameters.size());
  for (const Parameter<float, Place>* p : parameters)
    moments.push_back(Moment8bitOn<Place>::zeros(p->size(), p->size() < min8bitSize));
  return moments;
}

/** The kernels of 8-bit steps. */
template <typename Place>
struct Rules8bit;
template <>
struct Rules8bit<Host> {
  static const float* reading(const Eigen::MatrixXf& gradient) { return gradient.data(); }
  static float* writing(Eigen::Map<Eigen::MatrixXf> value) { return value.data(); }
  static void run(const EigenQ::internal::AdamStep& step, OptimizerReplay<Host>&, std::size_t) {
    EigenQ::internal::runAdam(step);
  }
  static void run(const EigenQ::internal::LionStep& step, OptimizerReplay<Host>&, std::size_t) {
    EigenQ::internal::runLion(step);
  }
};

inline void checkMomentSize(const std::string& where, const char* what, Eigen::Index found, Eigen::Index expected) {
  if (found != expected)
    throw std::invalid_argument(where + what + ": expected " + std::to_string(expected) + " values, found " +
                                std::to_string(found));
}

inline void checkFinite(const std::string& where, const char* what, const Eigen::VectorXf& values) {
  for (Eigen::Index i = 0; i < values.size(); ++i)
    if (!EigenQ::internal::isFinite(values[i]))
      throw std::invalid_argument(where + what + ": entry " + std::to_string(i) + " is not finite");
}

/** Throws std::invalid_argument where stored moments have not the sizes of \a current or hold what is not finite. */
template <typename Place>
void checkMoments(const char* what, const std::vector<Moment8bitOn<Place>>& stored,
                  const std::vector<Moment8bitOn<Place>>& current,
                  const std::vector<Parameter<float, Place>*>& parameters) {
  if (stored.size() != current.size())
    throw std::invalid_argument(std::string(what) + ": expected state of " + std::to_string(current.size()) +
                                " parameters, found " + std::to_string(stored.size()));
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const std::string where =
        std::string(what) + ": parameter " + std::to_string(i) + " '" + parameters[i]->name() + "': ";
    checkMomentSize(where, "codes", stored[i].codes.size(), current[i].codes.size());
    checkMomentSize(where, "absmax", stored[i].absmax.size(), current[i].absmax.size());
    checkMomentSize(where, "values", stored[i].values.size(), current[i].values.size());
    const Moment8bit& found = stored[i].toHost();
    checkFinite(where, "absmax", found.absmax);
    checkFinite(where, "values", found.values);
  }
}

/** Bytes of all moments. */
template <typename Place>
Eigen::Index sizeInBytes(const std::vector<Moment8bitOn<Place>>& moments) {
  Eigen::Index bytes = 0;
  for (const Moment8bitOn<Place>& moment : moments) bytes += moment.sizeInBytes();
  return bytes;
}

}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_MOMENT_8BIT_H
