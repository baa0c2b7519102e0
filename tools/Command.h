// SPDX-License-Identifier: MPL-2.0
// The subcommands of eigenq, one file each.
#ifndef EIGENQ_TOOLS_COMMAND_H
#define EIGENQ_TOOLS_COMMAND_H

#include <cmath>
#include <functional>
#include <string>

#include <CLI/CLI.hpp>

namespace EigenQ {
namespace tools {

/** What a command line asks for, once it is parsed. Throws what goes wrong. */
using Job = std::function<void()>;

// Each adds its subcommand to \a program. Where a command line names it, parsing sets \a job, after it has thrown
// CLI::ParseError for values that make no sense, alone or together.
void addInfo(CLI::App& program, Job& job);
void addQuantize(CLI::App& program, Job& job);
void addGenerate(CLI::App& program, Job& job);
void addEval(CLI::App& program, Job& job);
void addFinetune(CLI::App& program, Job& job);
void addMerge(CLI::App& program, Job& job);

/** Throws CLI::ValidationError(\a message) unless \a valid. */
inline void requireUsage(bool valid, const std::string& message) {
  if (!valid) throw CLI::ValidationError(message);
}

/** The check, without its name beside the option in the help. */
inline CLI::Validator unnamed(CLI::Validator check) {
  check.description("");
  return check;
}

/** Says to whom llama.cpp's files have to go first. To be checked before whether a path is a folder. */
inline CLI::Validator notGguf() {
  return CLI::Validator(
      [](std::string& path) {
        const std::string suffix = ".gguf";
        const bool matches =
            path.size() >= suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
        return matches ? path + ": is a GGUF file; scripts/from_gguf.py makes a folder of it" : std::string();
      },
      "");
}

/** Refuses numbers that are not \a valid. What is no number is left to the option's own type. */
inline CLI::Validator checkedNumber(bool (*valid)(double), const std::string& expected, const std::string& type) {
  return CLI::Validator(
      [valid, expected](std::string& text) {
        double value = 0;
        const bool good = !CLI::detail::lexical_cast(text, value) || valid(value);
        return good ? std::string() : "expected " + expected + ", found " + text;
      },
      type);
}

/** Infinities and NaN are numbers to CLI11, and NaN lies in each of its ranges. To be checked before them. */
inline CLI::Validator finite() {
  return checkedNumber([](double x) { return std::isfinite(x); }, "a finite number", "");
}

// As CLI::PositiveNumber and CLI::NonNegativeNumber, whose messages have the 300 digits of the largest double.
inline CLI::Validator positive() {
  return checkedNumber([](double x) { return x > 0; }, "a number above 0", "POSITIVE");
}
inline CLI::Validator nonNegative() {
  return checkedNumber([](double x) { return x >= 0; }, "0 or more", "NONNEGATIVE");
}

}  // namespace tools
}  // namespace EigenQ

#endif  // EIGENQ_TOOLS_COMMAND_H
