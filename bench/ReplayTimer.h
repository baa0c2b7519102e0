// SPDX-License-Identifier: MPL-2.0
// How long one call takes when its operands come from memory, not from a cache:
//
//   copies    0  1  2 … c-1      together more than twice the second-level cache
//   graph     │ c-1 … 2 1 0 │ c-1 … 1 0 │ …      one call a copy, round and round, replayed as one graph
//   graphs    │ 4 3 2 1 0 │  │ 9 8 7 6 5 │ …       of fewer copies where calls are long, replayed in turn
//
// Replays are queued ahead, with an event between two of them, so that the host is in none of the times.
#ifndef EIGENQ_BENCH_REPLAYTIMER_H
#define EIGENQ_BENCH_REPLAYTIMER_H

#include <functional>
#include <vector>

#include <cuda_runtime_api.h>

#include <eigen_q/src/gpu/Context.h>

namespace EigenQ {
namespace bench {

/** Seconds a call. */
struct Timing {
  double median = 0;
  double spread = 0;  // half the distance between the quartiles
  int samples = 0;
};

/** Queues one call that works on a copy. */
using Call = std::function<void(int copy)>;

class ReplayTimer {
 public:
  /** Calls once, so that whatever is chosen or allocated at a first call is, then captures.
   * \param budget  seconds of device time for the samples */
  ReplayTimer(gpu::Context& context, int copies, Call call, double budget);
  ~ReplayTimer();
  ReplayTimer(const ReplayTimer&) = delete;
  ReplayTimer& operator=(const ReplayTimer&) = delete;

  Timing measure();
  /** One replay, whose last call works on copy 0. Waits for it. */
  void replayOnce();

 private:
  struct Graph {
    cudaGraphExec_t executable;
    int calls;
  };
  double roughDuration() const;
  Graph capture(int firstCopy, int calls) const;
  const Graph& launch(int replay) const;

  gpu::Context& m_context;
  int m_copies;
  Call m_call;
  int m_replays;
  std::vector<Graph> m_graphs;
};

/** As a user's loop calls it, without a graph: wall time of the host, with the wait at the end. */
Timing measureEager(gpu::Context& context, int copies, const Call& call, double budget);

}  // namespace bench
}  // namespace EigenQ

#endif  // EIGENQ_BENCH_REPLAYTIMER_H
