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
struct Moment8bit {
  ByteVector codes;        // size of the parameter; empty where it is small
  Eigen::VectorXf absmax;  // ⌈size/256⌉; empty where it is small
  Eigen::VectorXf values;  // size of the parameter; empty where it is not small

  Eigen::Index sizeInBytes() const {
    return codes.size() + (absmax.size() + values.size()) * Eigen::Index(sizeof(float));
  }
};

namespace internal {

/** One moment of zeros for each parameter; those of fewer than \a min8bitSize elements in float. */
inline std::vector<Moment8bit> zeroMoments(const std::vector<Parameter<float>*>& parameters, Eigen::Index min8bitSize) {
  std::vector<Moment8bit> moments(parameters.size());
  for (std::size_t i = 0; i < moments.size(); ++i) {
    const Eigen::Index size = parameters[i]->size();
    if (size < min8bitSize) {
      moments[i].values.setZero(size);
    } else {
      moments[i].codes.setZero(size);
      moments[i].absmax.setZero(EigenQ::internal::blockCount(size, EigenQ::internal::kOptimizerBlockSize));
    }
  }
  return moments;
}

inline EigenQ::internal::MomentView viewOf(Moment8bit& moment) {
  if (moment.codes.size() == 0) return {nullptr, nullptr, moment.values.data()};
  return {moment.codes.data(), moment.absmax.data(), nullptr};
}

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
inline void checkMoments(const char* what, const std::vector<Moment8bit>& stored,
                         const std::vector<Moment8bit>& current, const std::vector<Parameter<float>*>& parameters) {
  if (stored.size() != current.size())
    throw std::invalid_argument(std::string(what) + ": expected state of " + std::to_string(current.size()) +
                                " parameters, found " + std::to_string(stored.size()));
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const std::string where =
        std::string(what) + ": parameter " + std::to_string(i) + " '" + parameters[i]->name() + "': ";
    checkMomentSize(where, "codes", stored[i].codes.size(), current[i].codes.size());
    checkMomentSize(where, "absmax", stored[i].absmax.size(), current[i].absmax.size());
    checkMomentSize(where, "values", stored[i].values.size(), current[i].values.size());
    checkFinite(where, "absmax", stored[i].absmax);
    checkFinite(where, "values", stored[i].values);
  }
}

/** Bytes of all moments. */
inline Eigen::Index sizeInBytes(const std::vector<Moment8bit>& moments) {
  Eigen::Index bytes = 0;
  for (const Moment8bit& moment : moments) bytes += moment.sizeInBytes();
  return bytes;
}

}  // namespace internal

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPTIM_MOMENT_8BIT_H
