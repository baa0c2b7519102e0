// SPDX-License-Identifier: MPL-2.0
// eigenq generate: continues prompts.
#include "Generate.h"

#include <memory>
#include <sstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "Command.h"
#include "OnDevice.h"

namespace EigenQ {
namespace tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq generate SmolLM2-135M --prompt 'Once upon a time'\n"
    "  eigenq generate SmolLM2-135M --prompt 'Dear Sir' --temperature 0.8 --top-p 0.95 --seed 7 --quantize nf4\n"
    "  eigenq generate SmolLM2-135M --adapter letters --batch prompts.txt --max-tokens 40 > answers.jsonl\n"
    "  eigenq generate SmolLM2-135M --prompt 'Q: Why?' --stop Q: --stop $'\\n\\n' --repetition-penalty 1.1\n"
    "Temperature 0 takes the likeliest token. The same seed gives the same text.";

double rate(std::size_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

void addOptions(CLI::App& command, GenerateOptions& options) {
  addModelOptions(command, options.model);
  addAdapterOption(command, options.model);
  CLI::Option* prompt = command.add_option("--prompt", options.prompt, "Text to continue");
  CLI::Option* batch =
      command.add_option("--batch", options.batch, "File of prompts, one a line; prints a line of JSON for each")
          ->type_name("FILE")
          ->check(unnamed(CLI::ExistingFile))
          ->excludes(prompt);
  command.add_option("--batch-size", options.batchSize, "Prompts at a time")->check(positive())->needs(batch);
  command.add_option("--max-tokens", options.how.maxNewTokens, "Most new tokens of a prompt")->check(positive());
  llm::SamplingOptions& sampling = options.how.sampling;
  command.add_option("--temperature", sampling.temperature, "Of sampling; 0: the likeliest token")
      ->check(finite())
      ->check(nonNegative());
  command.add_option("--top-k", sampling.topK, "Choose among the k likeliest; 0: among all")->check(nonNegative());
  command.add_option("--top-p", sampling.topP, "Choose among the likeliest that reach this probability")
      ->check(finite())
      ->check(CLI::Range(1e-9, 1.0));
  command.add_option("--min-p", sampling.minP, "Choose among those at least this fraction as likely as the likeliest")
      ->check(finite())
      ->check(CLI::Range(0.0, 1.0));
  command
      .add_option("--repetition-penalty", sampling.repetitionPenalty,
                  "Divides the scores of tokens that prompt or text have already; 1: off")
      ->check(finite())
      ->check(positive());
  command.add_option("--seed", sampling.seed, "Of sampling; the n-th prompt of a batch has seed + n")
      ->check(nonNegative());
  command.add_option("--stop", options.stop, "End a text before this; may be given more than once")
      ->type_name("TEXT")
      ->default_str("")
      ->allow_extra_args(false)
      ->check(unnamed(CLI::Validator([](std::string& text) { return text.empty() ? "expected a text" : ""; }, "")));
  command.add_flag("--ignore-eos", options.ignoreEos, "Go on behind tokens that end a text");
  command.add_flag("--no-echo", options.noEcho, "Print only what is new")->excludes(batch);
}

}  // namespace

void Speed::print() const {
  std::fprintf(stderr, "prompt: %zu tokens, %.1f tokens/s; decode: %zu tokens, %.1f tokens/s\n", m_promptTokens,
               rate(m_promptTokens, m_promptSeconds), m_newTokens, rate(m_newTokens, m_decodeSeconds));
}

std::vector<std::string> readPrompts(const std::string& path) {
  std::istringstream lines(readText(path));
  std::vector<std::string> prompts;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty()) throw std::runtime_error(path + ": expected a prompt a line, found none");
  return prompts;
}

void printJsonLine(const std::string& prompt, const std::string& text, std::size_t tokens) {
  const nlohmann::ordered_json line = {{"prompt", prompt}, {"text", text}, {"tokens", tokens}};
  printNow(line.dump() + "\n");
}

std::vector<int> encodePrompt(const llm::Tokenizer& tokenizer, const std::string& prompt, Index most) {
  std::vector<int> ids = tokenizer.encode(prompt);
  if (ids.empty()) throw std::runtime_error("the prompt has no tokens");
  if (static_cast<Index>(ids.size()) > most)
    throw std::runtime_error("the prompt has " + std::to_string(ids.size()) + " tokens, the model takes " +
                             std::to_string(most));
  return ids;
}

std::string readPrompt(llm::StreamDecoder& decoder, const std::vector<int>& prompt,
                       const std::vector<std::string>& stop) {
  std::string text;
  for (const int id : prompt) text += decoder.push(id);
  decoder.stopAt(stop);
  return text;
}

void addGenerate(CLI::App& program, Job& job) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* command = program.add_subcommand("generate", "Continue a prompt");
  command->footer(kFooter);
  addOptions(*command, *options);
  command->callback([=, &job] {
    checkModelOptions(*command, options->model);
    requireUsage(command->count("--prompt") + command->count("--batch") > 0, "--prompt or --batch is required");
    for (const char* name : {"--top-k", "--top-p", "--min-p"})
      requireUsage(command->count(name) == 0 || options->how.sampling.temperature > 0,
                   std::string(name) + " needs a --temperature above 0, or there is nothing to choose");
    job = [options] {
      if (options->model.device == "cuda") return generateOnDevice(*options);
      generate<llm::Llama<>>(*options);
    };
  });
}

}  // namespace tools
}  // namespace EigenQ
