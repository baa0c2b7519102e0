// SPDX-License-Identifier: MPL-2.0
// Where the model lives: in host memory, or on a CUDA device (cuda.cpp).
#ifndef EIGENQ_FINETUNE_PLACE_H
#define EIGENQ_FINETUNE_PLACE_H

#include <eigen_q/Core>
#include <unsupported/eigen_q/Autodiff>

#include "Batch.h"

namespace finetune {

using EigenQ::ad::Host;

/** What the job knows of a place beside what the tape offers in all of them. */
template <typename Place>
struct PlaceTraits;

template <>
struct PlaceTraits<Host> {
  using Int8Matrix = EigenQ::Int8Matrix;
  using NF4Matrix = EigenQ::NF4Matrix;

  /** Shards run on threads of their own, and so on replicas of their own. */
  static constexpr bool kReplicas = true;
  /** Steps after which losses are looked at. */
  static constexpr Index kStepsPerLook = 1;
  /** Whether a new number of tokens costs more than computing some in vain. */
  static constexpr bool kPadPrompts = false;
  /** The batch that a step reads. */
  using StepBatch = Batch;
  static const Batch& view(const Batch& batch) { return batch; }

  /** Runs the same work again and again. */
  class Repeated {
   public:
    /** \param prepareReplay  called before what a place repeats without calling work() */
    template <typename Work, typename PrepareReplay>
    void operator()(const Work& work, const PrepareReplay& prepareReplay) {
      static_cast<void>(prepareReplay);
      work();
    }
  };

  template <typename Matrix>
  static const Matrix& toHost(const Matrix& m) {
    return m;
  }
};

template <typename Place>
using Parameter = EigenQ::ad::Parameter<float, Place>;
template <typename Place>
using Int8Matrix = typename PlaceTraits<Place>::Int8Matrix;
template <typename Place>
using NF4Matrix = typename PlaceTraits<Place>::NF4Matrix;

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PLACE_H
