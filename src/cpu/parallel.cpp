// SPDX-License-Identifier: MPL-2.0
#include "parallel.h"

#include <eigen_q/src/Threads.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace EigenQ {
namespace {

int parseThreads(const char* text) {
  int threads = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, threads);
  if (error == std::errc() && stop == end && threads >= 0) return threads;
  throw std::invalid_argument("EIGENQ_NUM_THREADS: expected a number of threads, found " + std::string(text));
}

/** What the environment asks for; 0: nothing. Throws std::invalid_argument where it is no number. */
int threadsOfEnvironment() {
  static const int threads = [] {
    const char* text = std::getenv("EIGENQ_NUM_THREADS");
    return text && *text ? parseThreads(text) : 0;
  }();
  return threads;
}

std::atomic<int> g_threads{0};   // what setMaxThreads() asked for; 0: nothing
std::atomic<int> g_followed{0};  // Eigen's
std::atomic<ThreadPool*> g_pool{nullptr};
thread_local bool t_insideTask = false;  // of somebody else's pool

int cores() {
  static const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return count;
}

void pauseThread() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/** Waits awake for \a done, for a while; false when that was too short. Products come in rows: whoever sleeps between
 * them is late for the next, by 50 us on a virtual machine, and by milliseconds where the system wakes it on the
 * caller's own core. */
template <typename Done>
bool spinUntil(const Done& done) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kPatience = std::chrono::microseconds(200);
  for (const Clock::time_point start = Clock::now(); Clock::now() - start < kPatience;) {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pauseThread();
    }
  }
  return false;
}

/** Tasks that several threads work through. Each begins with a share of its own, since neighbours among tasks are
 * neighbours in memory, and what the hardware follows is one stream a core: a row of X and 4096×4096 4-bit weights take
 * two threads 0.29 ms from memory, and 0.50, as long as one, where they take turns at the next task of all. Whoever is
 * done takes a share that nobody has begun, and when all have begun, helps with them. */
class Job {
 public:
  Job(Index count, int threads, void (*task)(void*, Index), void* context)
      : m_shareCount(std::min(threads, kMaxShares)), m_task(task), m_context(context) {
    for (int s = 0; s < m_shareCount; ++s) {
      m_shares[s].next = count * s / m_shareCount;
      m_shares[s].end = count * (s + 1) / m_shareCount;
    }
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void takeTasks() {
    try {
      for (int own = m_begun++; own < m_shareCount; own = m_begun++) takeShare(m_shares[own]);
      for (int other = 0; other < m_shareCount; ++other) takeShare(m_shares[other]);
    } catch (...) {
      for (int s = 0; s < m_shareCount; ++s) m_shares[s].next = m_shares[s].end;
      const std::lock_guard<std::mutex> lock(m_mutex);
      if (!m_failure) m_failure = std::current_exception();
    }
  }

  /** Rethrows the first exception of a task; when nobody takes tasks any more. */
  void rethrow() const {
    if (m_failure) std::rethrow_exception(m_failure);
  }

 private:
  static constexpr int kMaxShares = 64;  // threads beyond help from the start

  struct alignas(64) Share {  // a line of its own: its thread is not to wait for another's counter
    std::atomic<Index> next{0};
    Index end = 0;
  };

  void takeShare(Share& share) const {
    for (Index i = share.next++; i < share.end; i = share.next++) m_task(m_context, i);
  }

  const int m_shareCount;
  void (*const m_task)(void*, Index);
  void* const m_context;
  std::atomic<int> m_begun{0};  // shares
  Share m_shares[kMaxShares];
  std::mutex m_mutex;  // guards m_failure
  std::exception_ptr m_failure;
};

/** One job at a time, which workers and the caller work through. */
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(m_mutex);
      m_stop = true;
    }
    m_wake.notify_all();
    for (std::thread& worker : m_workers) worker.join();
  }

  /** False when the pool is busy; nothing has been run then. */
  bool tryRun(Job& job, int threads) {
    // More threads than cores wait awake for each other: asked for 1000, two cores took 49 ms for what takes 4 to 11.
    threads = std::min(threads, cores());
    std::unique_lock<std::mutex> owner(m_owner, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    {
      const std::lock_guard<std::mutex> lock(m_mutex);
      hire(threads - 1);
      m_job = &job;
      m_seats = threads - 1;
      ++m_jobs;
    }
    m_wake.notify_all();
    job.takeTasks();
    {
      const std::lock_guard<std::mutex> lock(m_mutex);
      m_seats = 0;  // a worker that has not woken yet has nothing left to do
    }
    spinUntil([this] { return m_active == 0; });
    std::unique_lock<std::mutex> lock(m_mutex);
    m_idle.wait(lock, [this] { return m_active == 0; });
    return true;
  }

 private:
  /** As many workers as there are to be, or as the system gives. The caller does what they do not, all if need be. */
  void hire(int workers) {
    try {
      while (static_cast<int>(m_workers.size()) < workers) m_workers.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
    }
  }

  void work() {
    std::unique_lock<std::mutex> lock(m_mutex);
    for (unsigned long seen = 0;;) {
      if (!m_stop && m_jobs == seen) {
        lock.unlock();
        spinUntil([&] { return m_jobs != seen; });
        lock.lock();
      }
      m_wake.wait(lock, [&] { return m_stop || m_jobs != seen; });
      if (m_stop) return;
      seen = m_jobs;
      if (m_seats == 0) continue;  // too late: to wait awake is to be in time for the next
      --m_seats;
      ++m_active;
      Job& job = *m_job;
      lock.unlock();
      job.takeTasks();
      lock.lock();
      if (--m_active == 0) m_idle.notify_one();
    }
  }

  std::mutex m_owner;  // held by the caller whose job runs
  std::mutex m_mutex;  // guards everything below
  std::condition_variable m_wake, m_idle;
  std::vector<std::thread> m_workers;
  Job* m_job = nullptr;
  std::atomic<unsigned long> m_jobs{0};  // begun; written under the mutex, as m_active is
  int m_seats = 0;
  std::atomic<int> m_active{0};
  bool m_stop = false;
};

/** The pool of this process, and those of the processes it was forked from: their threads are not here, maybe a mutex
 * is held by one of them, and nobody is left to be joined. They stay as they are. */
struct Pools {
  Pool pool;
  Pools* ofParent = nullptr;
};
Pools* g_pools = nullptr;

class PoolsOfProcess {
 public:
  PoolsOfProcess() {
    g_pools = new Pools;
#if defined(__unix__) || defined(__APPLE__)
    if (pthread_atfork(nullptr, nullptr, [] { g_pools = new Pools{{}, g_pools}; }) != 0) throw std::bad_alloc();
#endif
  }
  ~PoolsOfProcess() { delete std::exchange(g_pools, nullptr); }
  PoolsOfProcess(const PoolsOfProcess&) = delete;
  PoolsOfProcess& operator=(const PoolsOfProcess&) = delete;
};

Pool& pool() {
  static const PoolsOfProcess pools;
  return g_pools->pool;
}

/** Runs a job on somebody else's pool. */
void runOn(ThreadPool& pool, Job& job, int threads) {
  const auto takeTasks = [](void* context, Index) {
    const bool before = std::exchange(t_insideTask, true);
    static_cast<Job*>(context)->takeTasks();
    t_insideTask = before;
  };
  pool.run(threads, takeTasks, &job);
}

/** On whichever pool there is; false where the caller is to work alone. */
bool tryRun(Job& job, int threads) {
  ThreadPool* const theirs = g_pool;
  if (!theirs) return pool().tryRun(job, threads);
  if (t_insideTask) return false;
  runOn(*theirs, job, threads);
  return true;
}

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
};

}  // namespace

int maxThreads() {
  if (const int threads = g_threads.load(std::memory_order_relaxed)) return threads;
  if (const int threads = threadsOfEnvironment()) return threads;
  if (const int threads = g_followed.load(std::memory_order_relaxed)) return threads;
  return cores();
}

void setMaxThreads(int threads) { g_threads = std::max(0, threads); }
void setThreadPool(ThreadPool* pool) { g_pool = pool; }

namespace internal {

void followThreads(int threads) { g_followed = std::max(0, threads); }

void parallelFor(Index count, void (*task)(void*, Index), void* context) {
  const int threads = static_cast<int>(std::min<Index>(maxThreads(), count));
  if (threads > 1) {
    Job job(count, threads, task, context);
    if (tryRun(job, threads)) return job.rethrow();
  }
  for (Index i = 0; i < count; ++i) task(context, i);
}

float* scratch(Scratch slot, Index count) {
  struct Buffer {
    std::unique_ptr<float, AlignedDelete> data;
    Index size = 0;
  };
  thread_local Buffer buffers[3];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.size < count) {
    buffer.data.reset();  // before the new one is asked for: never hold both
    buffer.size = 0;
    buffer.data.reset(
        static_cast<float*>(::operator new(sizeof(float) * static_cast<std::size_t>(count), std::align_val_t(64))));
    buffer.size = count;
  }
  return buffer.data.get();
}

}  // namespace internal
}  // namespace EigenQ
