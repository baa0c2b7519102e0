// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_GPU_DEVICEMEMORY_H
#define EIGENQ_GPU_DEVICEMEMORY_H

#include <cstddef>
#include <memory>

#include "Context.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** Memory of a device's pool that knows which streams use it. Operations announce themselves with beginRead() or
 * beginWrite(); where they come from another stream than the last writer's, their stream is made to wait. On one
 * stream both cost nothing. Readers may come from several threads at a time. */
class MemoryBlock {
 public:
  /** Uninitialised. Throws CudaOutOfMemory. */
  MemoryBlock(std::size_t bytes, Context& context);
  ~MemoryBlock();
  MemoryBlock(const MemoryBlock&) = delete;
  MemoryBlock& operator=(const MemoryBlock&) = delete;

  void* data() const { return m_data; }
  std::size_t bytes() const { return m_bytes; }
  int device() const;

  /** Throw std::logic_error for a context of another device, whose kernels cannot reach this memory. */
  void beginRead(Context& context);
  void beginWrite(Context& context);

  /** Queues a copy of the first \a bytes into memory of the context's device, which may be another than this one's. */
  void copyTo(void* to, std::size_t bytes, Context& context);

 private:
  struct Users;
  void requireSameDevice(const Context& context) const;
  void waitForWriter(Context& context);

  void* m_data = nullptr;
  std::size_t m_bytes = 0;
  std::unique_ptr<Users> m_users;
};

/** Throws std::logic_error, naming \a what, inside a graph capture. */
void refuseCapture(const Context& context, const char* what);

/** Copies to the device through pinned staging memory of the context. The host memory is free when this returns; the
 * device has it once the stream gets there. Throws std::logic_error inside a graph capture, where the copy would replay
 * staging memory. */
void upload(void* device, const void* host, std::size_t bytes, Context& context);
/** Copies to the host and waits for it. Throws std::logic_error inside a graph capture. */
void download(void* host, const void* device, std::size_t bytes, Context& context);
/** Queues a copy; pinned host memory makes it asynchronous. */
void copyAsync(void* to, const void* from, std::size_t bytes, Context& context);
void fillZero(void* device, std::size_t bytes, Context& context);

/** Page-locked host memory, which the device reads and writes by itself. */
class PinnedMemory {
 public:
  PinnedMemory() = default;
  /** Throws CudaOutOfMemory where the system has no more pages to lock. */
  explicit PinnedMemory(std::size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept : m_data(other.m_data) { other.m_data = nullptr; }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  void* data() const { return m_data; }

 private:
  void* m_data = nullptr;
};

/** A point in a stream's work that the host can wait for. */
class StreamMark {
 public:
  explicit StreamMark(Context& context);
  ~StreamMark();
  StreamMark(StreamMark&& other) noexcept : m_event(other.m_event) { other.m_event = nullptr; }
  StreamMark& operator=(StreamMark&& other) noexcept;

  bool reached() const;
  void wait() const;
  /** For destructors: a failure is left to the program's next call, which reports it again. */
  void waitQuietly() const noexcept;

 private:
  void* m_event = nullptr;
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEMEMORY_H
