// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TEST_CUDA_GRAPH_H
#define EIGENQ_TEST_CUDA_GRAPH_H

#include <cuda_runtime_api.h>

#include <eigen_q/src/gpu/Context.h>

#include <src/cuda/check.h>

namespace EigenQ {
namespace test {

/** What \a queue puts on the stream of a context, as a graph. */
class Graph {
 public:
  template <typename Queue>
  Graph(gpu::Context& context, const Queue& queue) : m_context(context) {
    EIGENQ_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal));
    queue();
    EIGENQ_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &m_graph));
    EIGENQ_CUDA_CHECK(cudaGraphInstantiate(&m_executable, m_graph, 0));
  }
  ~Graph() {
    (void)cudaGraphExecDestroy(m_executable);
    (void)cudaGraphDestroy(m_graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay() { EIGENQ_CUDA_CHECK(cudaGraphLaunch(m_executable, m_context.stream())); }

 private:
  gpu::Context& m_context;
  cudaGraph_t m_graph = nullptr;
  cudaGraphExec_t m_executable = nullptr;
};

}  // namespace test
}  // namespace EigenQ

#endif  // EIGENQ_TEST_CUDA_GRAPH_H
