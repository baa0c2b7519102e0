// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_CONTEXT_H
#define EIGENQ_GPU_CONTEXT_H

#include <cstddef>
#include <cstdint>
#include <memory>

#include "../DeviceSupport.h"
#include "CudaError.h"

// As CUDA's own header declares them, so that ours need none of CUDA's.
struct CUstream_st;
typedef struct CUstream_st* cudaStream_t;

namespace EigenQ {
namespace gpu {

namespace internal {
struct ContextState;
class StreamHandle;
}  // namespace internal

/** Number of CUDA devices; 0 without a driver. Never throws. */
int deviceCount() noexcept;

/** Why this process has no device to run on, in words; null where it has one. */
const char* whyNoDevice() noexcept;

/** A stream of one device with what kernels need beside it: cuBLASLt's handle, a cache of chosen algorithms, scratch
 * memory and a stream-ordered memory pool (shared by the contexts of a device).
 *
 * Work is queued on the stream in the order of the calls; no call waits for the device but synchronize(), toHost() and
 * those that say so. A context belongs to one thread at a time. It outlives the graphs captured from its stream.
 *
 * Memory: the pool keeps what it once had from the driver until the last context of the device is gone. Scratch memory
 * grows to what the largest operation has needed. Both grow outside graph capture; an operation that needs more inside
 * one takes it as a node of the graph. */
class Context {
 public:
  /** Owns a new stream of \a device. Throws NoCudaDevice. */
  explicit Context(int device = 0);
  /** Borrows \a stream of the calling thread's current device; the caller keeps it alive for as long as this context
   * and all memory made with it. Throws NoCudaDevice. */
  explicit Context(cudaStream_t stream);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  /** What operations without a context of their own use: the one set by setCurrent() on this thread, or else one of
   * the thread's own on device 0, made at its first use. */
  static Context& current();
  /** null restores the thread's own. \returns what was set before, or null. */
  static Context* setCurrent(Context* context) noexcept;

  int device() const;
  cudaStream_t stream() const;
  /** Compute capability and name. */
  const DeviceProperties& properties() const;
  int multiprocessors() const;
  /** Whether the stream is being captured in a graph: what is queued then runs at every replay, and not now. */
  bool isCapturing() const { return captureId() != 0; }
  /** The number of that capture, which no other of the process has; 0 outside of captures. */
  std::uint64_t captureId() const;

  /** Waits until everything queued has run. Throws CudaError where a kernel has failed. */
  void synchronize();
  /** What this context queues from now on runs after all that \a other has queued so far, or had queued when a
   * gpu::Graph began that another thread is recording there. Throws std::logic_error where somebody else captures the
   * stream of \a other. */
  void waitFor(const Context& other);

  internal::ContextState& state() { return *m_state; }
  const internal::ContextState& state() const { return *m_state; }

 private:
  std::unique_ptr<internal::ContextState> m_state;
};

/** Makes a context the thread's current one for a scope. */
class ContextGuard {
 public:
  explicit ContextGuard(Context& context) : m_previous(Context::setCurrent(&context)) {}
  ~ContextGuard() { (void)Context::setCurrent(m_previous); }
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

 private:
  Context* m_previous;
};

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_CONTEXT_H
