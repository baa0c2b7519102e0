// SPDX-License-Identifier: MPL-2.0
// eigenq eval: negative log-likelihood and perplexity of a text.
#include "Eval.h"

#include <memory>

#include "Command.h"
#include "OnDevice.h"

namespace EigenQ {
namespace tools {
namespace {

constexpr const char* kFooter =
    "Examples:\n"
    "  eigenq eval SmolLM2-135M --text wiki.test.txt\n"
    "  eigenq eval SmolLM2-135M --text wiki.test.txt --length 1024 --stride 512 --quantize nf4\n"
    "Every token but the first is predicted once. With a stride below the length each has at least length - stride\n"
    "tokens of context, but for those of the first window.";

}  // namespace

std::vector<EvalWindow> evalWindows(std::size_t tokens, std::size_t length, std::size_t stride) {
  std::vector<EvalWindow> windows;
  const std::size_t targets = tokens - 1;
  std::size_t done = 0;
  for (std::size_t begin = 0; done < targets; begin += stride) {
    const std::size_t end = std::min(begin + length, targets);
    windows.push_back({begin, end - begin, end - done});
    done = end;
  }
  return windows;
}

llm::Batch evalBatch(const std::vector<int>& tokens, const EvalWindow* begin, const EvalWindow* end) {
  std::vector<std::vector<int>> inputs;
  for (const EvalWindow* w = begin; w != end; ++w)
    inputs.emplace_back(tokens.data() + w->begin, tokens.data() + w->begin + w->length);
  llm::Batch batch = llm::pack(inputs);
  batch.targets = Eigen::VectorXi::Constant(batch.size(), llm::kIgnoredTarget);
  for (Index s = 0; s < batch.sequences(); ++s) {
    const EvalWindow& w = begin[s];
    const auto fresh = static_cast<Index>(w.fresh);
    batch.targets.segment(batch.offsets(s + 1) - fresh, fresh) =
        Eigen::Map<const Eigen::VectorXi>(tokens.data() + w.begin + w.length - w.fresh + 1, fresh);
  }
  return batch;
}

void printEval(double nats, std::size_t targets, double seconds) {
  const double mean = nats / static_cast<double>(targets);
  std::printf("tokens      %zu\nnll         %.5f\nperplexity  %.4f\n", targets, mean, std::exp(mean));
  std::fprintf(stderr, "%.2f s, %.0f tokens/s\n", seconds, static_cast<double>(targets) / seconds);
}

void addEval(CLI::App& program, Job& job) {
  const auto options = std::make_shared<EvalOptions>();
  CLI::App* command = program.add_subcommand("eval", "Measure how well a model predicts a text");
  command->footer(kFooter);
  addModelOptions(*command, options->model);
  addAdapterOption(*command, options->model);
  command->add_option("--text", options->text, "Text to predict; - is standard input")->type_name("FILE")->required();
  command->add_option("--length", options->length, "Tokens of a window; 0: all that the model takes")
      ->check(nonNegative());
  command->add_option("--stride", options->stride, "Tokens from one window to the next; 0: its length")
      ->check(nonNegative());
  command->add_option("--batch", options->batch, "Windows at a time")->check(positive());
  command->callback([=, &job] {
    checkModelOptions(*command, options->model);
    requireUsage(options->stride == 0 || options->length == 0 || options->stride <= options->length,
                 "--stride is greater than --length: tokens would be left out");
    job = [options] {
      if (options->model.device == "cuda") return evalOnDevice(*options);
      eval<llm::Llama<>>(*options);
    };
  });
}

}  // namespace tools
}  // namespace EigenQ
