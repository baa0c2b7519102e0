// SPDX-License-Identifier: MPL-2.0
// What kernels' host code sees of a context.
#ifndef EIGENQ_CUDA_CONTEXT_STATE_H
#define EIGENQ_CUDA_CONTEXT_STATE_H

#include <eigen_q/src/gpu/Context.h>
#include <eigen_q/src/gpu/DeviceMemory.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "check.h"

namespace EigenQ {
namespace gpu {
namespace internal {

class PlanCache;

/** Makes a device current for a scope. */
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    EIGENQ_CUDA_CHECK(cudaGetDevice(&m_previous));
    if (device != m_previous) EIGENQ_CUDA_CHECK(cudaSetDevice(device));
    m_changed = device != m_previous;
  }
  ~DeviceGuard() {
    if (m_changed) (void)cudaSetDevice(m_previous);  // was current a moment ago; a destructor cannot report
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int m_previous = 0;
  bool m_changed = false;
};

/** An event of the current device; without times if nothing else is said. */
class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming) {
    EIGENQ_CUDA_CHECK(cudaEventCreateWithFlags(&m_event, flags));
  }
  ~Event() { (void)cudaEventDestroy(m_event); }  // a destructor cannot report
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return m_event; }

 private:
  cudaEvent_t m_event = nullptr;
};

class StreamHandle;

/** By what others wait for a stream's work without keeping the stream. */
class StreamTail {
 public:
  explicit StreamTail(const StreamHandle& stream) : m_stream(&stream) {}
  StreamTail(const StreamTail&) = delete;
  StreamTail& operator=(const StreamTail&) = delete;

  /** As StreamHandle's; 0 where the stream is gone. */
  std::uint64_t captureId() const;
  /** As StreamHandle's; where the stream is gone, behind all that it ever held. Null if there was nothing to record. */
  std::shared_ptr<const Event> eventFor(std::uint64_t capture) const;
  /** Whether the stream is gone and its work is done: nobody has to wait for it again. Never waits. */
  bool isOver() const;
  /** Called while the stream can still be used for the last time. */
  void cut() noexcept;

 private:
  mutable std::mutex m_mutex;
  const StreamHandle* m_stream;  // null once it is gone
  std::shared_ptr<const Event> m_last;
};

/** A stream, owned or borrowed. Memory that was last written on it keeps it alive; who has only read leaves a tail. */
class StreamHandle {
 public:
  StreamHandle(int device, cudaStream_t borrowed) : m_device(device), m_stream(borrowed), m_owned(false) {}
  explicit StreamHandle(int device);
  ~StreamHandle();
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;

  int device() const { return m_device; }
  cudaStream_t get() const { return m_stream; }
  bool isCapturing() const { return captureId() != 0; }
  std::uint64_t captureId() const;
  /** Begins to record this thread's work on the stream in a graph. */
  void beginCapture();
  /** Work queued on this stream from now on runs after what \a other holds by now, or held when beginCapture() began a
   * capture that is still going on: an event of a captured stream would draw this one into the capture. Nothing where
   * they are the same. Throws std::logic_error where somebody else is capturing \a other. */
  void waitFor(const StreamHandle& other) const;
  void waitFor(const StreamTail& other) const;
  /** Behind what this stream holds, for one that is in \a capture, or in none if that is 0. Throws as waitFor(). */
  std::shared_ptr<const Event> eventFor(std::uint64_t capture) const;
  const std::shared_ptr<StreamTail>& tail() const { return m_tail; }

  /** Gives memory back behind what this stream and \a readers hold. A graph frees nothing but what it has allocated
   * itself: during a capture other memory is put off until returnPutOff().
   * \param allocatedIn  the capture in which it was allocated, or 0 */
  void release(void* memory, std::uint64_t allocatedIn,
               const std::vector<std::shared_ptr<StreamTail>>& readers) noexcept;
  /** Gives back what was put off; nothing while a capture is going on. */
  void returnPutOff() noexcept;

 private:
  struct Released {
    void* memory;
    std::vector<std::shared_ptr<const Event>> readers;  // behind their work
  };
  void waitFor(const Event& event) const;
  void free(const Released& released) const;

  int m_device;
  cudaStream_t m_stream = nullptr;
  bool m_owned = true;
  mutable std::mutex m_mutex;  // held while a capture begins, and while others ask whether one is going on
  std::shared_ptr<Event> m_beforeCapture;
  std::uint64_t m_capture = 0;  // the one that m_beforeCapture precedes
  std::vector<Released> m_putOff;
  std::shared_ptr<StreamTail> m_tail = std::make_shared<StreamTail>(*this);
};

/** Lets \a kernel have so much dynamic shared memory on a device, which is current. What was once allowed stays so:
 * another thread may be about to launch it with more. */
cudaError_t allowSharedMemory(const void* kernel, int device, std::size_t bytes);

/** The device's pool keeps what was freed, but for what somebody else needs: gives the driver what nothing holds any
 * more when the stream's work is done, and waits for that. */
void giveBackUnused(const StreamHandle& stream) noexcept;

/** The status of \a attempt, or, where that finds too little memory, of another one behind giveBackUnused(): graphs
 * have memory of their own, and an attempt that failed has left what it got in the pool. */
template <typename Attempt>
cudaError_t tryTwice(const StreamHandle& stream, const Attempt& attempt) {
  cudaError_t status = attempt();
  for (int i = 0; i < 2 && status == cudaErrorMemoryAllocation && !stream.isCapturing(); ++i) {
    (void)cudaGetLastError();
    giveBackUnused(stream);
    if (i == 0) status = attempt();
  }
  return status;
}

/** Stream-ordered memory from the device's pool. Throws CudaOutOfMemory. */
void* allocate(const StreamHandle& stream, std::size_t bytes);
void release(const StreamHandle& stream, void* memory) noexcept;

/** Pinned memory in two halves, through which pageable host memory reaches the device. */
class Staging {
 public:
  struct Half {
    void* data = nullptr;
    Event copied;  // the last copy out of this half
  };
  explicit Staging(std::size_t bytes);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  Half& next() { return m_halves[m_turn ^= 1]; }

 private:
  PinnedMemory m_memory;
  Half m_halves[2];
  int m_turn = 0;
};

struct ContextState {
  explicit ContextState(std::shared_ptr<StreamHandle> handle);
  ~ContextState();

  std::shared_ptr<StreamHandle> stream;
  DeviceProperties properties;
  int multiprocessors = 0;
  std::size_t sharedMemoryPerBlock = 0;  // with the opt-in

  /** Made at their first use. */
  cublasLtHandle_t cublasLt();
  PlanCache& plans();
  Staging& staging(std::size_t bytes);

  /** One block that every operation uses anew, and the frames on it. */
  struct ScratchBlock {
    char* data = nullptr;
    std::size_t bytes = 0;
    std::size_t used = 0;
    std::size_t wanted = 0;  // high-water mark
    int depth = 0;
    bool seenByGraph = false;
    std::vector<char*> retired;  // blocks that a captured graph may still use
  } scratch;

 private:
  cublasLtHandle_t m_cublasLt = nullptr;
  std::unique_ptr<PlanCache> m_plans;
  std::unique_ptr<Staging> m_staging;
};

/** Device memory for the time of one operation. Frames nest like scopes. In a captured graph, what does not fit in the
 * context's block becomes an allocation node of that graph. */
class Scratch {
 public:
  explicit Scratch(Context& context);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  static constexpr std::size_t kAlignment = 256;

  void* bytes(std::size_t count);
  /** Room for \a count elements, aligned to kAlignment, uninitialised. Throws CudaOutOfMemory. */
  template <typename T>
  T* array(std::ptrdiff_t count) {
    return static_cast<T*>(bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  ContextState& m_state;
  std::size_t m_mark;
  std::vector<void*> m_extra;
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_CONTEXT_STATE_H
