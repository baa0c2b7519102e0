// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/gpu/DeviceMemory.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "context_state.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** Half of it fills while the other half is on its way; 8 MiB keep the bus busy. */
constexpr std::size_t kStagingHalf = std::size_t{8} << 20;

/** A graph cannot wait for what another stream does outside of it, once and never again. */
template <typename Other>
void waitForStream(const StreamHandle& stream, const Other& other) {
  if (stream.isCapturing() && other.captureId() != stream.captureId())
    throw std::logic_error(
        "EigenQ::gpu: a matrix that another stream used last was met for the first time inside a graph capture: use it "
        "once in this context before the capture, or make it there");
  stream.waitFor(other);
}

}  // namespace

struct MemoryBlock::Users {
  std::mutex mutex;
  std::shared_ptr<StreamHandle> writer;
  std::vector<std::shared_ptr<StreamTail>> readers;  // on other streams than the writer's, since its last write
  std::uint64_t allocatedIn = 0;                     // a capture; 0: in none
};

MemoryBlock::MemoryBlock(std::size_t bytes, Context& context) : m_bytes(bytes), m_users(std::make_unique<Users>()) {
  m_users->writer = context.state().stream;
  m_users->writer->returnPutOff();  // of a capture that was none of gpu::Graph's
  m_users->allocatedIn = m_users->writer->captureId();
  m_data = allocate(*m_users->writer, bytes);
}

MemoryBlock::~MemoryBlock() { m_users->writer->release(m_data, m_users->allocatedIn, m_users->readers); }

int MemoryBlock::device() const { return m_users->writer->device(); }

void MemoryBlock::requireSameDevice(const Context& context) const {
  if (context.device() == device()) return;
  throw std::logic_error("EigenQ::gpu: a matrix in the memory of device " + std::to_string(device()) +
                         " was used by a context of device " + std::to_string(context.device()) +
                         ": name a context of its own device, or copy it with clone(context)");
}

void MemoryBlock::beginRead(Context& context) {
  requireSameDevice(context);
  waitForWriter(context);
}

void MemoryBlock::waitForWriter(Context& context) {
  const std::shared_ptr<StreamHandle>& stream = context.state().stream;
  const std::lock_guard<std::mutex> lock(m_users->mutex);
  if (stream == m_users->writer) return;
  auto& readers = m_users->readers;
  const bool hasRead = std::find(readers.begin(), readers.end(), stream->tail()) != readers.end();
  // Who has read since the last write has waited for it, and a graph could not wait for it again. Outside of a capture
  // the wait is repeated: the writer's graphs may have been launched since, which write without a word here.
  if (hasRead && stream->isCapturing()) return;
  waitForStream(*stream, *m_users->writer);
  if (hasRead) return;
  // A weight is never written again: what a context a request leaves here must not pile up.
  readers.erase(std::remove_if(readers.begin(), readers.end(), [](const auto& reader) { return reader->isOver(); }),
                readers.end());
  readers.push_back(stream->tail());
}

void MemoryBlock::beginWrite(Context& context) {
  requireSameDevice(context);
  const std::shared_ptr<StreamHandle>& stream = context.state().stream;
  const std::lock_guard<std::mutex> lock(m_users->mutex);
  for (const auto& reader : m_users->readers)
    if (reader != stream->tail()) waitForStream(*stream, *reader);
  const bool wroteLast = stream == m_users->writer;
  if (!wroteLast) waitForStream(*stream, *m_users->writer);
  m_users->readers.clear();  // now that nothing can throw
  if (!wroteLast) m_users->writer = stream;
}

void MemoryBlock::copyTo(void* to, std::size_t bytes, Context& context) {
  if (bytes == 0) return;
  waitForWriter(context);
  const DeviceGuard guard(context.device());
  if (context.device() == device())
    EIGENQ_CUDA_CHECK(cudaMemcpyAsync(to, m_data, bytes, cudaMemcpyDeviceToDevice, context.stream()));
  else  // the pools of other devices are not mapped: a kernel could not read this memory, the copy engine can
    EIGENQ_CUDA_CHECK(cudaMemcpyPeerAsync(to, context.device(), m_data, device(), bytes, context.stream()));
}

void refuseCapture(const Context& context, const char* what) {
  if (context.isCapturing())
    throw std::logic_error(std::string(what) +
                           " inside a graph capture: a replay would not repeat it. Copy before, or " +
                           "with copyAsync from memory that lives as long as the graph");
}

void upload(void* device, const void* host, std::size_t bytes, Context& context) {
  refuseCapture(context, "EigenQ::gpu: upload");
  ContextState& state = context.state();
  const DeviceGuard guard(context.device());
  Staging& staging = state.staging(2 * kStagingHalf);
  for (std::size_t done = 0; done < bytes; done += kStagingHalf) {
    const std::size_t count = std::min(kStagingHalf, bytes - done);
    Staging::Half& half = staging.next();
    EIGENQ_CUDA_CHECK(cudaEventSynchronize(half.copied.get()));
    std::memcpy(half.data, static_cast<const char*>(host) + done, count);
    EIGENQ_CUDA_CHECK(
        cudaMemcpyAsync(static_cast<char*>(device) + done, half.data, count, cudaMemcpyHostToDevice, context.stream()));
    EIGENQ_CUDA_CHECK(cudaEventRecord(half.copied.get(), context.stream()));
  }
}

void download(void* host, const void* device, std::size_t bytes, Context& context) {
  refuseCapture(context, "EigenQ::gpu: download");
  const DeviceGuard guard(context.device());
  if (bytes > 0) EIGENQ_CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, context.stream()));
  context.synchronize();
}

void copyAsync(void* to, const void* from, std::size_t bytes, Context& context) {
  if (bytes == 0) return;
  const DeviceGuard guard(context.device());
  EIGENQ_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, context.stream()));
}

void fillZero(void* device, std::size_t bytes, Context& context) {
  if (bytes == 0) return;
  const DeviceGuard guard(context.device());
  EIGENQ_CUDA_CHECK(cudaMemsetAsync(device, 0, bytes, context.stream()));
}

PinnedMemory::PinnedMemory(std::size_t bytes) {
  EIGENQ_CUDA_CHECK(cudaMallocHost(&m_data, std::max<std::size_t>(bytes, 1)));
}
PinnedMemory::~PinnedMemory() {
  if (m_data) (void)cudaFreeHost(m_data);  // a destructor cannot report
}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(m_data, other.m_data);
  return *this;
}

StreamMark::StreamMark(Context& context) {
  const DeviceGuard guard(context.device());
  cudaEvent_t event = nullptr;
  EIGENQ_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  m_event = event;
  EIGENQ_CUDA_CHECK(cudaEventRecord(event, context.stream()));
}
StreamMark::~StreamMark() {
  if (m_event) (void)cudaEventDestroy(static_cast<cudaEvent_t>(m_event));  // a destructor cannot report
}
StreamMark& StreamMark::operator=(StreamMark&& other) noexcept {
  std::swap(m_event, other.m_event);
  return *this;
}
bool StreamMark::reached() const {
  const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(m_event));
  if (status == cudaErrorNotReady) return false;
  EIGENQ_CUDA_CHECK(status);
  return true;
}
void StreamMark::waitQuietly() const noexcept { (void)cudaEventSynchronize(static_cast<cudaEvent_t>(m_event)); }
void StreamMark::wait() const { EIGENQ_CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(m_event))); }

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
