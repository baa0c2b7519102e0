// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE Threads
#include <boost/test/unit_test.hpp>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#define EIGENQ_TEST_FORK
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <eigen_q/Core>
#include <src/cpu/parallel.h>

using namespace EigenQ;
using Eigen::MatrixXf;

namespace {

/** A thread for each call. */
class CountingPool : public ThreadPool {
 public:
  void run(Index count, void (*task)(void*, Index), void* context) override {
    ++jobs;
    most = std::max<Index>(most, count);
    std::vector<std::thread> threads;
    for (Index i = 1; i < count; ++i) threads.emplace_back([=] { task(context, i); });
    task(context, 0);
    for (std::thread& thread : threads) thread.join();
  }

  std::atomic<int> jobs{0};
  std::atomic<Index> most{0};
};

struct Settings {
  Settings(ThreadPool* pool, int threads) {
    setThreadPool(pool);
    setMaxThreads(threads);
  }
  ~Settings() {
    setThreadPool(nullptr);
    setMaxThreads(0);
  }
};

/** Large enough for several threads. */
MatrixXf product() {
  const MatrixXf w = MatrixXf::NullaryExpr(256, 192, [](Index i, Index j) { return float((i * 7 + j * 3) % 23 - 11); });
  const MatrixXf x = MatrixXf::NullaryExpr(192, 40, [](Index i, Index j) { return float((i * 5 + j) % 17 - 8); });
  return NF4Matrix(w) * x;
}

template <typename F>
void parallelFor(Index count, F f) {
  internal::parallelFor(
      count, [](void* context, Index i) { (*static_cast<F*>(context))(i); }, &f);
}

}  // namespace

BOOST_AUTO_TEST_CASE(kernelsRunOnThePoolThatIsGiven) {
  setMaxThreads(1);
  const MatrixXf alone = product();
  CountingPool pool;
  {
    const Settings settings(&pool, 3);
    BOOST_TEST((product().array() == alone.array()).all());
  }
  BOOST_TEST(pool.jobs > 0);
  BOOST_TEST(pool.most == 3);
  const int jobs = pool.jobs;
  BOOST_TEST((product().array() == alone.array()).all());
  BOOST_TEST(pool.jobs == jobs);  // back on the library's own
}

BOOST_AUTO_TEST_CASE(everyIndexIsCalledOnce) {
  CountingPool pool;
  for (ThreadPool* const given : {static_cast<ThreadPool*>(nullptr), static_cast<ThreadPool*>(&pool)}) {
    const Settings settings(given, 4);
    std::vector<std::atomic<int>> calls(100);
    parallelFor(100, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
    for (const auto& n : calls) BOOST_TEST(n == 1);
  }
}

BOOST_AUTO_TEST_CASE(threadsOfTheLibraryDoNotExceedCores) {
  const Settings settings(nullptr, 64);
  BOOST_TEST(maxThreads() == 64);
  std::mutex mutex;
  std::set<std::thread::id> ids;
  parallelFor(64, [&](Index) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // time for every worker to take part
    const std::lock_guard<std::mutex> lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  BOOST_TEST(ids.size() <= std::max(1u, std::thread::hardware_concurrency()));
}

#ifdef EIGENQ_TEST_FORK
/** With all that is done at a program's end; but LeakSanitizer takes what the parent's threads hold for leaked. */
[[noreturn]] void leaveChild(int status) {
#if defined(__SANITIZE_ADDRESS__)
  _exit(status);
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  _exit(status);
#endif
#endif
  std::exit(status);
}

// The parent's threads are not in the child, and one of them may have held the pool's mutex.
BOOST_AUTO_TEST_CASE(aForkedChildHasThreadsOfItsOwn) {
  const Settings settings(nullptr, 2);
  const MatrixXf expected = product();
  for (int n = 0; n < 30; ++n) {
    const pid_t child = fork();
    if (child == 0) {
      std::signal(SIGALRM, SIG_DFL);
      alarm(20);  // where it hangs, in a product or in the pool's destructor
      leaveChild(product() == expected && product() == expected ? 0 : 1);
    }
    BOOST_TEST_REQUIRE(child > 0);
    int status = 0;
    BOOST_TEST(waitpid(child, &status, 0) == child);
    BOOST_TEST_REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 0), "round " << n << ": status " << status);
    BOOST_TEST((product() == expected));
  }
}

#ifdef __GLIBC__
// In a child, whose pool has no threads yet.
BOOST_AUTO_TEST_CASE(whereThereAreNoThreadsTheCallerDoesItAlone) {
  const Settings settings(nullptr, 2);
  const MatrixXf expected = product();
  const pid_t child = fork();
  if (child == 0) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, std::size_t{1} << 47);  // all that a process can address
    pthread_setattr_default_np(&attributes);
    bool same = false;
    try {
      same = product() == expected;
    } catch (const std::exception&) {
    }
    leaveChild(same ? 0 : 1);
  }
  BOOST_TEST_REQUIRE(child > 0);
  int status = 0;
  BOOST_TEST(waitpid(child, &status, 0) == child);
  BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 0), "status " << status);
}
#endif
#endif

BOOST_AUTO_TEST_CASE(everyThreadBeginsWithAShareOfItsOwn) {
  CountingPool pool;
  const Settings settings(&pool, 4);
  std::atomic<int> begun{0};
  std::vector<std::atomic<int>> begins(100);
  parallelFor(100, [&](Index i) {
    if (begun == 4) return;
    ++begins[static_cast<std::size_t>(i)];
    ++begun;
    while (begun < 4) std::this_thread::yield();  // nobody is done while another has not begun
  });
  for (std::size_t i = 0; i < begins.size(); ++i) BOOST_TEST(begins[i] == (i % 25 == 0 ? 1 : 0));
}

/** One call after the other, as a pool may whose threads are busy. */
class SerialPool : public ThreadPool {
 public:
  void run(Index count, void (*task)(void*, Index), void* context) override {
    for (Index i = 0; i < count; ++i) task(context, i);
  }
};

BOOST_AUTO_TEST_CASE(whoeverComesFirstMayDoItAll) {
  SerialPool pool;
  for (const int threads : {2, 7, 100}) {
    const Settings settings(&pool, threads);
    std::vector<int> calls(101);
    parallelFor(101, [&](Index i) { ++calls[static_cast<std::size_t>(i)]; });
    BOOST_TEST((calls == std::vector<int>(101, 1)));
  }
}

BOOST_AUTO_TEST_CASE(tasksMayStartTasks) {
  CountingPool pool;
  const Settings settings(&pool, 4);
  std::atomic<int> calls{0};
  parallelFor(5, [&](Index) { parallelFor(6, [&](Index) { ++calls; }); });
  BOOST_TEST(calls == 30);
  BOOST_TEST(pool.jobs == 1);
}

BOOST_AUTO_TEST_CASE(theFirstExceptionComesBack) {
  CountingPool pool;
  for (ThreadPool* const given : {static_cast<ThreadPool*>(nullptr), static_cast<ThreadPool*>(&pool)}) {
    const Settings settings(given, 3);
    const auto fail = [](Index i) {
      if (i == 7) throw std::runtime_error("seven");
    };
    BOOST_CHECK_THROW(parallelFor(50, fail), std::runtime_error);
    std::atomic<int> calls{0};
    parallelFor(9, [&](Index) { ++calls; });
    BOOST_TEST(calls == 9);
  }
}

BOOST_AUTO_TEST_CASE(nothingOfAnExceptionIsKept) {
  CountingPool pool;
  for (ThreadPool* const given : {static_cast<ThreadPool*>(nullptr), static_cast<ThreadPool*>(&pool)}) {
    const Settings settings(given, 3);
    const auto payload = std::make_shared<int>(0);
    BOOST_CHECK_THROW(parallelFor(50, [payload](Index) { throw payload; }), std::shared_ptr<int>);
    BOOST_TEST(payload.use_count() == 1);
  }
}

#if defined(EIGEN_HAS_OPENMP)
BOOST_AUTO_TEST_CASE(eigensSettingIsFollowed) {
  if (std::getenv("EIGENQ_NUM_THREADS")) {
    BOOST_TEST_MESSAGE("skipped: EIGENQ_NUM_THREADS is set");
    return;
  }
  const int before = Eigen::nbThreads(), ofOpenMp = omp_get_max_threads();
  omp_set_num_threads(3);  // Eigen 5 grants no more than OpenMP has
  Eigen::setNbThreads(3);
  product();
  BOOST_TEST(maxThreads() == 3);
  Eigen::setNbThreads(1);
  product();
  BOOST_TEST(maxThreads() == 1);
  setMaxThreads(2);  // who asks for a number gets it
  product();
  BOOST_TEST(maxThreads() == 2);
  setMaxThreads(0);
  omp_set_num_threads(ofOpenMp);
  Eigen::setNbThreads(before);
}
#else
BOOST_AUTO_TEST_CASE(eigensSettingIsFollowed) { BOOST_TEST_MESSAGE("skipped: Eigen has no threads without OpenMP"); }
#endif
