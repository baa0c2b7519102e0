// SPDX-License-Identifier: MPL-2.0
#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "architectures.h"
#include "context_state.h"
#include "plan_cache.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** The pools of the devices, one each for all contexts. The driver's default pool would be shared with other libraries,
 * whose settings are not ours to change. */
class Pools {
 public:
  static Pools& instance() {
    static Pools* const pools = new Pools;  // never destroyed: static matrices may be freed after it
    return *pools;
  }
  cudaMemPool_t of(int device) {
    const std::lock_guard<std::mutex> lock(m_mutex);
    if (m_pools.size() <= static_cast<std::size_t>(device)) m_pools.resize(static_cast<std::size_t>(device) + 1);
    cudaMemPool_t& pool = m_pools[static_cast<std::size_t>(device)];
    if (!pool) pool = make(device);
    return pool;
  }
  /** Gives the driver what nothing holds. */
  void trim(int device) noexcept {
    const std::lock_guard<std::mutex> lock(m_mutex);
    if (m_pools.size() <= static_cast<std::size_t>(device)) return;
    if (const cudaMemPool_t pool = m_pools[static_cast<std::size_t>(device)]) (void)cudaMemPoolTrimTo(pool, 0);
  }

 private:
  static cudaMemPool_t make(int device) {
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    cudaMemPool_t pool = nullptr;
    EIGENQ_CUDA_CHECK(cudaMemPoolCreate(&pool, &properties));
    std::uint64_t keepAll = ~std::uint64_t{0};  // steady state asks the driver for nothing
    EIGENQ_CUDA_CHECK(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keepAll));
    return pool;
  }

  std::mutex m_mutex;
  std::vector<cudaMemPool_t> m_pools;
};

thread_local Context* t_current = nullptr;

}  // namespace

std::uint64_t StreamTail::captureId() const {
  const std::lock_guard<std::mutex> lock(m_mutex);
  return m_stream ? m_stream->captureId() : 0;
}

std::shared_ptr<const Event> StreamTail::eventFor(std::uint64_t capture) const {
  const std::lock_guard<std::mutex> lock(m_mutex);
  return m_stream ? m_stream->eventFor(capture) : m_last;
}

bool StreamTail::isOver() const {
  const std::lock_guard<std::mutex> lock(m_mutex);
  if (m_stream || !m_last) return !m_stream;
  // A query breaks the captures of other streams, by this thread or by anyone who asked for it, unless it is relaxed.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  EIGENQ_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
  const cudaError_t status = cudaEventQuery(m_last->get());
  EIGENQ_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
  if (status == cudaErrorNotReady) return false;
  EIGENQ_CUDA_CHECK(status);
  return true;
}

void StreamTail::cut() noexcept {
  const std::lock_guard<std::mutex> lock(m_mutex);
  try {
    m_last = m_stream->eventFor(0);
  } catch (const CudaError&) {  // no event to be had
    (void)cudaStreamSynchronize(m_stream->get());
  } catch (const std::exception&) {
    // Somebody else is capturing the stream, and orders its work himself.
  }
  m_stream = nullptr;
}

StreamHandle::StreamHandle(int device) : m_device(device) {
  const DeviceGuard guard(device);
  EIGENQ_CUDA_CHECK(cudaStreamCreateWithFlags(&m_stream, cudaStreamNonBlocking));
}

StreamHandle::~StreamHandle() {
  returnPutOff();
  m_tail->cut();
  if (m_owned) (void)cudaStreamDestroy(m_stream);  // queued work still runs; a destructor cannot report
}

std::uint64_t StreamHandle::captureId() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long id = 0;
  EIGENQ_CUDA_CHECK(cudaStreamGetCaptureInfo(m_stream, &status, &id));
  return status == cudaStreamCaptureStatusNone ? 0 : id;
}

void StreamHandle::beginCapture() {
  const DeviceGuard guard(m_device);
  const std::lock_guard<std::mutex> lock(m_mutex);
  if (!isCapturing()) {
    if (!m_beforeCapture) m_beforeCapture = std::make_shared<Event>();
    EIGENQ_CUDA_CHECK(cudaEventRecord(m_beforeCapture->get(), m_stream));
  }
  EIGENQ_CUDA_CHECK(cudaStreamBeginCapture(m_stream, cudaStreamCaptureModeThreadLocal));
  m_capture = captureId();
}

void StreamHandle::waitFor(const Event& event) const {
  const DeviceGuard guard(m_device);
  EIGENQ_CUDA_CHECK(cudaStreamWaitEvent(m_stream, event.get(), 0));
}

void StreamHandle::waitFor(const StreamHandle& other) const {
  if (m_stream == other.m_stream && m_device == other.m_device) return;
  waitFor(*other.eventFor(captureId()));
}

void StreamHandle::waitFor(const StreamTail& other) const {
  if (const auto event = other.eventFor(captureId())) waitFor(*event);
}

std::shared_ptr<const Event> StreamHandle::eventFor(std::uint64_t capture) const {
  const std::lock_guard<std::mutex> lock(m_mutex);
  const std::uint64_t own = captureId();
  if (own != 0 && own != capture) {
    if (own == m_capture) return m_beforeCapture;
    throw std::logic_error(
        "EigenQ::gpu: a stream has to wait for one that is being captured in a graph: record with gpu::Graph, which "
        "keeps what the stream held before, or wait until the capture is over");
  }
  const DeviceGuard guard(m_device);
  auto event = std::make_shared<const Event>();
  EIGENQ_CUDA_CHECK(cudaEventRecord(event->get(), m_stream));
  return event;
}

// Both are called by destructors, which cannot report. After a fault or at the end of the process nothing can be given
// back; nor can memory that a stream has read which somebody else is capturing.
void StreamHandle::release(void* memory, std::uint64_t allocatedIn,
                           const std::vector<std::shared_ptr<StreamTail>>& readers) noexcept {
  try {
    Released released{memory, {}};
    for (const auto& reader : readers)
      if (auto event = reader->eventFor(allocatedIn)) released.readers.push_back(std::move(event));
    const std::lock_guard<std::mutex> lock(m_mutex);
    const std::uint64_t capture = captureId();
    if (capture != 0 && capture != allocatedIn)
      m_putOff.push_back(std::move(released));
    else
      free(released);
  } catch (const std::exception&) {
  }
}

void StreamHandle::returnPutOff() noexcept {
  try {
    const std::lock_guard<std::mutex> lock(m_mutex);
    if (m_putOff.empty() || isCapturing()) return;
    for (const Released& released : std::exchange(m_putOff, {})) free(released);
  } catch (const std::exception&) {
  }
}

void StreamHandle::free(const Released& released) const {
  const DeviceGuard guard(m_device);  // a borrowed stream 0 is the current device's
  for (const auto& reader : released.readers) waitFor(*reader);
  EIGENQ_CUDA_CHECK(cudaFreeAsync(released.memory, m_stream));
}

cudaError_t allowSharedMemory(const void* kernel, int device, std::size_t bytes) {
  static std::mutex mutex;
  static auto* const allowed = new std::map<std::pair<const void*, int>, std::size_t>;  // never destroyed, as Pools
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t& most = (*allowed)[{kernel, device}];
  if (bytes <= most) return cudaSuccess;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (status == cudaSuccess) most = bytes;
  return status;
}

void giveBackUnused(const StreamHandle& stream) noexcept {
  (void)cudaStreamSynchronize(stream.get());  // what was freed behind its work counts as held until then
  Pools::instance().trim(stream.device());
}

void* allocate(const StreamHandle& stream, std::size_t bytes) {
  const DeviceGuard guard(stream.device());
  const cudaMemPool_t pool = Pools::instance().of(stream.device());
  void* memory = nullptr;
  EIGENQ_CUDA_CHECK(tryTwice(
      stream, [&] { return cudaMallocFromPoolAsync(&memory, std::max<std::size_t>(bytes, 1), pool, stream.get()); }));
  return memory;
}

void release(const StreamHandle& stream, void* memory) noexcept {
  if (!memory) return;
  try {
    const DeviceGuard guard(stream.device());  // a borrowed stream 0 is the current device's
    (void)cudaFreeAsync(memory, stream.get());
  } catch (const CudaError&) {
    // From destructors, which cannot report. After a fault or at the end of the process nothing can be given back.
  }
}

ContextState::ContextState(std::shared_ptr<StreamHandle> handle) : stream(std::move(handle)) {
  cudaDeviceProp p;
  EIGENQ_CUDA_CHECK(cudaGetDeviceProperties(&p, stream->device()));
  properties = {p.major, p.minor, p.name};
  requireCode(properties, stream->device(), __FILE__, __LINE__);
  multiprocessors = p.multiProcessorCount;
  sharedMemoryPerBlock = p.sharedMemPerBlockOptin;
}

ContextState::~ContextState() {
  for (char* block : scratch.retired) release(*stream, block);
  release(*stream, scratch.data);
  m_plans.reset();
  if (m_cublasLt) (void)cublasLtDestroy(m_cublasLt);
}

cublasLtHandle_t ContextState::cublasLt() {
  if (!m_cublasLt) {
    const DeviceGuard guard(stream->device());
    EIGENQ_CUDA_CHECK(cublasLtCreate(&m_cublasLt));
  }
  return m_cublasLt;
}

PlanCache& ContextState::plans() {
  if (!m_plans) m_plans = std::make_unique<PlanCache>();
  return *m_plans;
}

Staging& ContextState::staging(std::size_t bytes) {
  if (!m_staging) m_staging = std::make_unique<Staging>(bytes);
  return *m_staging;
}

Staging::Staging(std::size_t bytes) : m_memory(bytes) {
  m_halves[0].data = m_memory.data();
  m_halves[1].data = static_cast<char*>(m_memory.data()) + bytes / 2;
}

Staging::~Staging() {
  for (const Half& half : m_halves) (void)cudaEventSynchronize(half.copied.get());  // a destructor cannot report
}

Scratch::Scratch(Context& context) : m_state(context.state()), m_mark(m_state.scratch.used) {
  ContextState::ScratchBlock& block = m_state.scratch;
  const bool capturing = m_state.stream->isCapturing();
  // Between operations the block may grow: what the stream still holds of the old one runs before it is freed.
  if (block.depth == 0 && block.wanted > block.bytes && !capturing) {
    char* const grown = static_cast<char*>(allocate(*m_state.stream, block.wanted));
    if (block.seenByGraph) {
      block.retired.push_back(block.data);
    } else {
      release(*m_state.stream, block.data);
    }
    block.data = grown;
    block.bytes = block.wanted;
    block.seenByGraph = false;
  }
  block.seenByGraph = block.seenByGraph || capturing;
  ++block.depth;
}

Scratch::~Scratch() {
  for (void* memory : m_extra) release(*m_state.stream, memory);
  m_state.scratch.used = m_mark;
  --m_state.scratch.depth;
}

void* Scratch::bytes(std::size_t count) {
  ContextState::ScratchBlock& block = m_state.scratch;
  const std::size_t size = (count + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t begin = block.used;
  block.used += size;
  block.wanted = std::max(block.wanted, block.used);
  if (block.used <= block.bytes) return block.data + begin;
  m_extra.reserve(m_extra.size() + 1);
  m_extra.push_back(allocate(*m_state.stream, size));
  return m_extra.back();
}

}  // namespace internal

int deviceCount() noexcept {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : (cudaGetLastError(), 0);
}

namespace {

/** Empty where Context::current() will find kernels, or where it will say better why not. */
std::string whyNoCodeForFirstDevice() {
  cudaDeviceProp p;
  if (cudaGetDeviceProperties(&p, 0) != cudaSuccess) return {};
  return internal::whyNoCode(internal::builtArchitectures(), {p.major, p.minor, p.name}, 0);
}

}  // namespace

const char* whyNoDevice() noexcept {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    return cudaGetErrorString(status);
  }
  if (count == 0) return "no CUDA device";
  static const std::string noCode = whyNoCodeForFirstDevice();
  return noCode.empty() ? nullptr : noCode.c_str();
}

namespace {

std::shared_ptr<internal::StreamHandle> borrow(cudaStream_t stream) {
  int device = 0;
  EIGENQ_CUDA_CHECK(cudaGetDevice(&device));
  return std::make_shared<internal::StreamHandle>(device, stream);
}

}  // namespace

Context::Context(int device)
    : m_state(std::make_unique<internal::ContextState>(std::make_shared<internal::StreamHandle>(device))) {}
Context::Context(cudaStream_t stream) : m_state(std::make_unique<internal::ContextState>(borrow(stream))) {}
Context::~Context() = default;

Context& Context::current() {
  if (internal::t_current) return *internal::t_current;
  static thread_local Context own(0);
  return own;
}

Context* Context::setCurrent(Context* context) noexcept {
  Context* const previous = internal::t_current;
  internal::t_current = context;
  return previous;
}

int Context::device() const { return m_state->stream->device(); }
cudaStream_t Context::stream() const { return m_state->stream->get(); }
const DeviceProperties& Context::properties() const { return m_state->properties; }
int Context::multiprocessors() const { return m_state->multiprocessors; }
std::uint64_t Context::captureId() const { return m_state->stream->captureId(); }

void Context::synchronize() {
  const internal::DeviceGuard guard(device());
  EIGENQ_CUDA_CHECK(cudaStreamSynchronize(stream()));
}
void Context::waitFor(const Context& other) { m_state->stream->waitFor(*other.m_state->stream); }

}  // namespace gpu
}  // namespace EigenQ
