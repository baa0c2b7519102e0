// SPDX-License-Identifier: MPL-2.0
// Whose threads kernels run on, and how many. Without Eigen.
#ifndef EIGENQ_THREADS_H
#define EIGENQ_THREADS_H

#include "Views.h"

namespace EigenQ {

/** Most threads a kernel may use, the caller's included. Results do not depend on it. At first: EIGENQ_NUM_THREADS; or
 * as many as Eigen uses, where the program is compiled so that Eigen has threads (Eigen::setNbThreads, OpenMP); or the
 * number of cores. Kernels on the library's own threads use no more than there are cores; a child of fork() has its
 * own. Throws std::invalid_argument where EIGENQ_NUM_THREADS is no number. */
int maxThreads();

/** \a threads < 1 restores the initial choice. */
void setMaxThreads(int threads);

/** Threads of the program's own for kernels to run on: see setThreadPool(). */
class ThreadPool {
 public:
  virtual ~ThreadPool() = default;

  /** Calls task(context, i) for every i in [0, count), each exactly once, on any threads, the caller's included, and
   * returns when all are done. Where fewer threads than \a count are free, calls may run one after another. \a count is
   * at most maxThreads(); \a task does not throw. Kernels of several threads may call at once; never from inside a
   * task.
   */
  virtual void run(Index count, void (*task)(void* context, Index i), void* context) = 0;
};

/** Kernels run on \a pool, which outlives all use of it; null: on threads of the library's own, as at first. Not while
 * a kernel runs. */
void setThreadPool(ThreadPool* pool);

namespace internal {
/** What Eigen::nbThreads() is where Eigen has threads. */
void followThreads(int threads);
}  // namespace internal

}  // namespace EigenQ

#endif  // EIGENQ_THREADS_H
