// SPDX-License-Identifier: MPL-2.0
#include "Interrupt.h"

#include <csignal>
#include <cstdlib>
#include <initializer_list>

namespace EigenQ {
namespace tools {
namespace {

volatile std::sig_atomic_t noted = 0;

void note(int signal) {
  noted = signal;
  std::signal(signal, SIG_DFL);
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
