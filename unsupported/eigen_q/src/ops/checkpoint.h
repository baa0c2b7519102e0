// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_OPS_CHECKPOINT_H
#define EIGENQ_OPS_CHECKPOINT_H

#include <tuple>
#include <type_traits>
#include <utility>

#include "../Tape.h"

namespace EigenQ {
namespace ad {

namespace internal {
template <typename Fn, typename Tape, typename... Inputs>
constexpr bool kTakesTape = std::is_invocable_v<const Fn&, Tape&, const Inputs&...>;

template <typename Fn, typename Tape, typename... Inputs>
auto callWith(const Fn& fn, Tape& tape, const Inputs&... inputs) {
  if constexpr (kTakesTape<Fn, Tape, Inputs...>)
    return fn(tape, inputs...);
  else
    return fn(inputs...);
}
}  // namespace internal

/** y = fn(tape, inputs…) or fn(inputs…), of which the tape keeps y alone: what lies between is computed again by
 * backward(). A stack of L checkpointed layers holds L results and the values of one layer.
 * \param fn  takes Vars and returns a Var; kept by value, and called as const. Whatever it refers to outlives the
 *   tape's next clear(), and it does the same both times: parameters may not change in between (backward() throws),
 *   random ops draw the same numbers.
 * \param inputs  Vars of \a tape. Others that fn captures, and parameters that it uses, get their gradients too.
 * Gradients have the bits that they have without checkpoint(): the replay adds the same contributions in the same
 * order. Checkpoints nest. If fn throws, the tape is as it was before. Vars that fn makes end with it, and inside it
 * clear() and backward() throw std::logic_error; so does a fn that returns another shape the second time.
 * Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174. */
template <typename Scalar, typename Place, typename Fn, typename... Inputs>
Var<Scalar, Place> checkpoint(Tape<Scalar, Place>& tape, Fn fn, const Inputs&... inputs) {
  static_assert((std::is_same_v<Inputs, Var<Scalar, Place>> && ...), "EigenQ::ad: a checkpoint's inputs are Vars");
  static_assert(
      internal::kTakesTape<Fn, Tape<Scalar, Place>, Inputs...> || std::is_invocable_v<const Fn&, const Inputs&...>,
      "EigenQ::ad: a checkpoint's function is called as fn(tape, inputs...) or fn(inputs...), and is const");
  return tape.checkpoint([&tape, fn = std::move(fn), vars = std::make_tuple(inputs...)]() -> Var<Scalar, Place> {
    return std::apply([&](const Inputs&... x) { return internal::callWith(fn, tape, x...); }, vars);
  });
}

}  // namespace ad
}  // namespace EigenQ

#endif  // EIGENQ_OPS_CHECKPOINT_H
