// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_PARALLEL_H
#define EIGENQ_FINETUNE_PARALLEL_H

#include <algorithm>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

#include <eigen_q/Core>

namespace finetune {

/** Limits the kernels' threads while it lives. */
class KernelThreads {
 public:
  explicit KernelThreads(int threads) : m_before(EigenQ::maxThreads()) { EigenQ::setMaxThreads(threads); }
  ~KernelThreads() { EigenQ::setMaxThreads(m_before); }
  KernelThreads(const KernelThreads&) = delete;
  KernelThreads& operator=(const KernelThreads&) = delete;

 private:
  int m_before;
};

/** Calls f(i, member) for i in [0, count) on a team of up to \a threads threads; member, below \a threads, names the
 * one that calls, for memory of its own. What f computes depends on i alone, so results do not depend on \a threads.
 * The kernels' threads are shared out among the team. Rethrows the first exception, by i, after all are done. */
template <typename F>
void parallelFor(std::size_t count, int threads, const F& f) {
  const std::size_t team = std::max<std::size_t>(1, std::min(count, static_cast<std::size_t>(threads)));
  const KernelThreads share(std::max(1, threads / static_cast<int>(team)));
  std::vector<std::exception_ptr> failures(count);
  const auto work = [&](std::size_t member) {
    for (std::size_t i = member; i < count; i += team) try {
        f(i, member);
      } catch (...) {
        failures[i] = std::current_exception();
      }
  };
  std::vector<std::thread> others;
  for (std::size_t member = 1; member < team; ++member) others.emplace_back(work, member);
  work(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PARALLEL_H
