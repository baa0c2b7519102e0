// SPDX-License-Identifier: MPL-2.0
#include "Interrupt.h"

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <initializer_list>

namespace EigenQ {
namespace tools {
namespace {

volatile std::sig_atomic_t noted = 0;
volatile std::time_t notedAt = 0;

/** timeout(1) and others send a signal twice at once: only a later one is somebody who has lost patience. */
void note(int signal) {
  const std::time_t now = std::time(nullptr);
  if (noted == 0) {
    notedAt = now;
    noted = signal;
  } else if (now - notedAt > 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void catchInterrupts() {
  for (const int signal : {SIGINT, SIGTERM})
    if (std::signal(signal, note) == SIG_IGN) std::signal(signal, SIG_IGN);  // started with nohup or in the background
}

bool interrupted() { return noted != 0; }

void throwIfInterrupted() {
  if (noted != 0) throw Interrupted{noted};
}

void dieOf(const Interrupted& interrupt) {
  std::signal(interrupt.signal, SIG_DFL);
  std::raise(interrupt.signal);
  std::abort();  // the signal is blocked
}

}  // namespace tools
}  // namespace EigenQ
