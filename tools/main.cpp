// SPDX-License-Identifier: MPL-2.0
// eigenq: language models in the folders of Hugging Face, from the command line. doc/eigenq.md is its manual.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include <eigen_q/src/Version.h>

#include "Command.h"
#include "Interrupt.h"

namespace {

using namespace EigenQ::tools;

enum ExitStatus { kSuccess = 0, kFailure = 1, kUsage = 2 };

constexpr const char* kDescription =
    "Looks at, quantises, runs, judges, fine-tunes and merges language models of the Llama family in the folders\n"
    "that Hugging Face's transformers, PEFT and bitsandbytes read and write.";
constexpr const char* kFooter =
    "eigenq SUBCOMMAND --help has examples. Results go to standard output, progress and errors to standard error.\n"
    "Exit status: 0 success, 1 failure, 2 a command line that makes no sense.";

/** "eigenq generate", or "eigenq" where no subcommand was recognised. */
std::string nameOf(const CLI::App& program) {
  const auto commands = program.get_subcommands();
  return program.get_name() + (commands.empty() ? "" : " " + commands.front()->get_name());
}

/** One line, whatever the message has. */
void printError(const std::string& name, std::string message) {
  while (!message.empty() && message.back() == '\n') message.pop_back();
  for (char& c : message)
    if (c == '\n') c = ' ';
  std::fflush(stdout);
  std::fprintf(stderr, "%s: %s\n", name.c_str(), message.c_str());
}

/** What was printed must have arrived. */
void flushOutput() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw std::runtime_error(std::string("standard output: ") + std::strerror(errno));
}

int run(CLI::App& program, const Job& job) {
  catchInterrupts();
  try {
    job();
    flushOutput();
    return kSuccess;
  } catch (const Interrupted& interrupt) {
    printError(nameOf(program), "interrupted");
    dieOf(interrupt);
  } catch (const std::bad_alloc&) {
    printError(nameOf(program), "out of memory");
    return kFailure;
  } catch (const std::exception& e) {
    printError(nameOf(program), e.what());
    return kFailure;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program(kDescription, "eigenq");
  program.footer(kFooter);
  program.set_version_flag("--version", "eigenq " EIGENQ_VERSION_STRING);
  program.require_subcommand(0, 1);  // none is an error below: here it would hide what else is wrong
  program.option_defaults()->always_capture_default();
  Job job;
  for (const auto add : {addInfo, addQuantize, addGenerate, addEval, addFinetune, addMerge}) add(program, job);
  try {
    program.parse(argc, argv);
    requireUsage(static_cast<bool>(job), "a subcommand is required");
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return program.exit(e);  // --help, --version
    printError(nameOf(program), std::string(e.what()) + " (" + nameOf(program) + " --help says more)");
    return kUsage;
  }
  return run(program, job);
}
