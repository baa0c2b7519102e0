// SPDX-License-Identifier: MPL-2.0
// graph.cpp: recording a stream's work.
#include <cuda_runtime_api.h>

#include <stdexcept>

#include <eigen_q/src/gpu/Graph.h>

#include "check.h"
#include "context_state.h"

namespace EigenQ {
namespace gpu {

void Graph::begin(Context& context) { context.state().stream->beginCapture(); }

void Graph::abandon(Context& context) noexcept {
  cudaGraph_t graph = nullptr;
  (void)cudaStreamEndCapture(context.stream(), &graph);  // an exception is on its way that says more
  if (graph) (void)cudaGraphDestroy(graph);
  (void)cudaGetLastError();  // an invalidated capture is no error of the next call
  context.state().stream->returnPutOff();
}

void Graph::end(Context& context) {
  const internal::DeviceGuard guard(context.device());
  cudaGraph_t graph = nullptr;
  EIGENQ_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
  context.state().stream->returnPutOff();
  const cudaError_t status = cudaGraphInstantiate(&m_executable, graph, 0);
  (void)cudaGraphDestroy(graph);
  EIGENQ_CUDA_CHECK(status);
  m_context = &context;
}

Graph::~Graph() {
  if (m_executable) (void)cudaGraphExecDestroy(m_executable);  // a destructor cannot report
}

void Graph::launch() {
  if (!m_executable) throw std::logic_error("Graph: nothing has been recorded");
  const internal::DeviceGuard guard(m_context->device());
  const internal::StreamHandle& stream = *m_context->state().stream;
  EIGENQ_CUDA_CHECK(internal::tryTwice(stream, [&] { return cudaGraphLaunch(m_executable, stream.get()); }));
}

}  // namespace gpu
}  // namespace EigenQ
