// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_TOOLS_INTERRUPT_H
#define EIGENQ_TOOLS_INTERRUPT_H

namespace EigenQ {
namespace tools {

/** Thrown between two steps of a job that was told to stop; no std::exception, so that nobody handles it as an error.
 */
struct Interrupted {
  int signal;
};

/** From now on the first SIGINT or SIGTERM is noted, so that destructors can remove what is unfinished; one that comes
 * two seconds later or more kills as usual. */
void catchInterrupts();

/** Whether there was one. */
bool interrupted();

/** Throws Interrupted if there was one. */
void throwIfInterrupted();

/** Ends the process by the signal that interrupted it, as shells expect of a program that was stopped. */
[[noreturn]] void dieOf(const Interrupted& interrupt);

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_INTERRUPT_H
