// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_PROGRESS_H
#define EIGENQ_FINETUNE_PROGRESS_H

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ostream>
#include <string>
#include <utility>

namespace finetune {

/** "1.5k", "12k", "3.4M": three figures are enough for a rate. */
inline std::string shortNumber(double x) {
  const char* unit = x >= 1e6 ? "M" : x >= 1e3 ? "k" : "";
  const double value = x >= 1e6 ? x / 1e6 : x >= 1e3 ? x / 1e3 : x;
  char text[32];
  std::snprintf(text, sizeof text, value < 10 ? "%.1f%s" : "%.0f%s", value, unit);
  return text;
}

/** Shows how far a loop is, its rate, the loss and the time left: a bar that redraws itself on a terminal, one line for
 * every tenth of the way elsewhere. */
class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  /** \param terminal  whether \a out understands a carriage return and shows a bar.
   *  \param begun     steps that others have taken.
   *  \param start     when the first of ours began. */
  Progress(std::ostream& out, bool terminal, std::string label, long total, long begun = 0,
           Clock::time_point start = Clock::now())
      : m_out(out),
        m_terminal(terminal),
        m_label(std::move(label)),
        m_total(total),
        m_begun(begun),
        m_done(begun),
        m_start(start) {}

  /** \param done  steps so far, more than at the last call; \a tokens in them. \param skipped  of them, shown if any */
  void update(long done, long tokens, double loss, long skipped = 0) {
    const Clock::time_point now = Clock::now();
    const bool last = done >= m_total;
    const long before = std::exchange(m_done, done);
    if (!isDue(done, before, now, last)) return;
    m_shown = now;
    const double elapsed = std::chrono::duration<double>(now - m_start).count();
    const double eta = elapsed * static_cast<double>(m_total - done) / static_cast<double>(done - m_begun);
    const std::string rate = elapsed > 0 ? shortNumber(static_cast<double>(tokens) / elapsed) : "-";
    char text[160];
    const std::string notMade = skipped > 0 ? "  skipped " + std::to_string(skipped) : "";
    std::snprintf(text, sizeof text, "step %ld/%ld  loss %.3f%s  %s tokens/s  %s %.0f s", done, m_total, loss,
                  notMade.c_str(), rate.c_str(), last ? "took" : "ETA", last ? elapsed : eta);
    if (m_terminal)  // \033[K clears what a longer line before left behind
      m_out << '\r' << m_label << ' ' << bar(done) << ' ' << text << "\033[K" << (last ? "\n" : "") << std::flush;
    else
      m_out << m_label << ": " << text << std::endl;
  }

 private:
  bool isDue(long done, long before, Clock::time_point now, bool last) const {
    if (last) return true;
    if (m_terminal) return now - m_shown >= std::chrono::milliseconds(100);
    return done * 10 / m_total != before * 10 / m_total;
  }

  std::string bar(long done) const {
    constexpr long kWidth = 12;  // the line has to fit 80 columns
    const long filled = done * kWidth / m_total;
    std::string cells;
    for (long i = 0; i < kWidth; ++i) cells += i < filled ? "█" : "░";
    return cells;
  }

  std::ostream& m_out;
  bool m_terminal;
  std::string m_label;
  long m_total;
  long m_begun;
  long m_done;
  Clock::time_point m_start;
  Clock::time_point m_shown = {};
};

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_PROGRESS_H
