// SPDX-License-Identifier: MPL-2.0
// --device cuda, in builds with EigenQ::Cuda: the same job over matrices in device memory.
#include <unsupported/eigen_q/AutodiffCuda>

#include "Job.h"
#include "OnDevice.h"

namespace finetune {

using EigenQ::ad::Device;
namespace gpu = EigenQ::gpu;

/** A batch where kernels find the next one too: all that are assigned to it have one shape. */
class DeviceBatch {
 public:
  /** As Batch. */
  struct View {
    gpu::DeviceView<const int> tokens, targets, positions, offsets;
  };

  DeviceBatch& operator=(const Batch& batch) {
    m_tokens = batch.tokens.size();
    Eigen::VectorXi words(3 * m_tokens + batch.offsets.size());
    words << batch.tokens, batch.targets, batch.positions, batch.offsets;
    m_words.resize(words.size(), 1);
    m_words.view().copyFromHost(words);
    return *this;
  }

  View view() const {
    const gpu::DeviceView<const int> words = m_words.view();
    const auto part = [&](Index i) { return words.middleRows(i * m_tokens, m_tokens); };
    return {part(0), part(1), part(2), words.bottomRows(m_words.rows() - 3 * m_tokens)};
  }

 private:
  gpu::DeviceMatrix<int> m_words;
  Index m_tokens = 0;
};

/** Queues the work a few times, until memory, plans and kernels are there, and then repeats it as a graph: a step has
 * some thousand kernels, whose launches one by one take longer than they do. */
class GraphReplays {
 public:
  template <typename Work, typename PrepareReplay>
  void operator()(const Work& work, const PrepareReplay& prepareReplay) {
    if (m_eager > 0) {
      --m_eager;
      return work();
    }
    if (!m_graph) m_graph = gpu::Graph(gpu::Context::current(), work);
    prepareReplay();
    m_graph.launch();
  }

 private:
  int m_eager = 3;
  gpu::Graph m_graph;
};

template <>
struct PlaceTraits<Device> {
  using Int8Matrix = gpu::Int8Matrix;
  using NF4Matrix = gpu::NF4Matrix;
  using StepBatch = DeviceBatch;
  using Repeated = GraphReplays;

  static constexpr bool kReplicas = false;    // one stream: gradients of shards simply add up
  static constexpr Index kStepsPerLook = 40;  // a look waits for all that is queued
  static constexpr bool kPadPrompts = true;   // cuBLASLt's plans are made once for each shape

  static DeviceBatch::View view(const DeviceBatch& batch) { return batch.view(); }

  template <typename OnDevice>
  static auto toHost(const OnDevice& x) {
    return x.toHost();
  }
};

int runOnDevice(Options options) {
  gpu::Context::current();  // throws here, before any text is read, where there is no device
  options.threads = 1;      // one queues all of the device's work
  return run<Device>(options);
}

}  // namespace finetune
