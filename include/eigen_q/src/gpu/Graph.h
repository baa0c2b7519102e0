// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_GRAPH_H
#define EIGENQ_GPU_GRAPH_H

#include <utility>

#include "Context.h"

struct CUgraphExec_st;

namespace EigenQ {
namespace gpu {

/** What a function queues on a context's stream, recorded once to be launched many times: one call for the host instead
 * of one a kernel. Addresses and sizes are those of the recording, contents those of the launch; memory that the work
 * touches outlives the graph. What may be recorded: doc/cuda.md, "Contexts, streams, memory". */
class Graph {
 public:
  /** None: false in a condition. */
  Graph() = default;
  /** Records \a queue(), which queues on \a context alone and does not run now. Exceptions of queue() end the recording
   * and pass on; throws CudaError where the work cannot be recorded. \a context outlives the graph. */
  template <typename Queue>
  Graph(Context& context, const Queue& queue) {
    begin(context);
    try {
      queue();
    } catch (...) {
      abandon(context);
      throw;
    }
    end(context);
  }
  ~Graph();
  Graph(Graph&& other) noexcept { swap(other); }
  Graph& operator=(Graph&& other) noexcept {
    swap(other);
    return *this;
  }

  explicit operator bool() const { return m_executable != nullptr; }

  /** Queues the recorded work on the context's stream. */
  void launch();

 private:
  static void begin(Context& context);
  static void abandon(Context& context) noexcept;
  void end(Context& context);
  void swap(Graph& other) noexcept {
    std::swap(m_context, other.m_context);
    std::swap(m_executable, other.m_executable);
  }

  Context* m_context = nullptr;
  CUgraphExec_st* m_executable = nullptr;
};

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_GRAPH_H
