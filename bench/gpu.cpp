// SPDX-License-Identifier: MPL-2.0
// eigenq_bench_gpu: the products and quantisers of EigenQ::Cuda with cold weights, in CUDA graphs, against what the
// device can do at best. bench/rivals.py times others on the same work, bench/compare.py sets both side by side.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "Case.h"
#include "DeviceData.h"
#include "Options.h"
#include "ReplayTimer.h"

namespace EigenQ {
namespace bench {

namespace {

using Kind = KernelSpec::Kind;
using Format = KernelSpec::Format;
using nlohmann::ordered_json;

constexpr float kPlain = KernelSpec::kNoThreshold;
constexpr Index kMostEagerRows = 32;  // beyond, the device is the slower of the two
constexpr Index kAdapterRows = 4096;  // four sequences of a thousand tokens, whatever --m says

//                                 name, kind, format, backward, threshold, eager, quick
constexpr KernelSpec kKernels[] = {
    {"dense", Kind::kProduct, Format::kDense, false, kPlain, false, true},
    {"dense-backward", Kind::kProduct, Format::kDense, true, kPlain, false, false},
    {"nf4", Kind::kProduct, Format::kNF4, false, kPlain, false, true},
    {"nf4-nested", Kind::kProduct, Format::kNF4Nested, false, kPlain, false, true},
    {"nf4-backward", Kind::kProduct, Format::kNF4, true, kPlain, false, true},
    {"int8", Kind::kProduct, Format::kInt8, false, kPlain, false, false},
    {"int8-backward", Kind::kProduct, Format::kInt8, true, kPlain, false, false},
    {"llm-int8", Kind::kProduct, Format::kInt8, false, 0.0f, false, true},
    {"llm-int8-outliers", Kind::kProduct, Format::kInt8, false, 6.0f, false, false},
    {"llm-int8-outliers-eager", Kind::kProduct, Format::kInt8, false, 6.0f, true, true},
    {"qlora", Kind::kAdapter, Format::kNF4, false, kPlain, false, false},
    {"lora-dense", Kind::kAdapter, Format::kDense, false, kPlain, false, false},
    {"quantize-nf4", Kind::kQuantize, Format::kNF4, false, kPlain, false, true},
    {"quantize-nf4-nested", Kind::kQuantize, Format::kNF4Nested, false, kPlain, false, false},
    {"quantize-int8", Kind::kQuantize, Format::kInt8, false, kPlain, false, true},
    {"dequantize-nf4", Kind::kDequantize, Format::kNF4, false, kPlain, false, true},
    {"dequantize-nf4-nested", Kind::kDequantize, Format::kNF4Nested, false, kPlain, false, false},
};

/** The kernel that the library chooses while this lives. */
class KernelName {
 public:
  KernelName() { internal::setLoweringObserver(&KernelName::note, this); }
  ~KernelName() { internal::setLoweringObserver(nullptr, nullptr); }
  KernelName(const KernelName&) = delete;
  KernelName& operator=(const KernelName&) = delete;

  /** Quantisers are not chosen from a table. */
  const char* name() const { return m_name ? m_name : "-"; }

 private:
  static void note(const internal::LoweringEvent& event, void* self) {
    static_cast<KernelName*>(self)->m_name = event.kernel;
  }

  const char* m_name = nullptr;
};

/** Bytes a second. */
struct Bandwidth {
  double read;
  double copy;  // bytes read and bytes written
};

Bandwidth measureBandwidth(gpu::Context& context, double budget) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  constexpr int kCopies = 2;  // one is many times the cache
  gpu::internal::MemoryBlock from(kCopies * kBytes, context), to(kCopies * kBytes, context), sink(256, context);
  fillNormal(from.data(), ScalarType::kFloat, kCopies * kBytes / sizeof(float), 1, 1, context.stream());
  const auto half = [](const gpu::internal::MemoryBlock& block, int copy) {
    return static_cast<char*>(block.data()) + static_cast<std::size_t>(copy) * kBytes;
  };
  ReplayTimer read(
      context, kCopies,
      [&](int copy) { readAll(half(from, copy), kBytes, static_cast<std::uint32_t*>(sink.data()), context.stream()); },
      budget);
  ReplayTimer copies(
      context, kCopies, [&](int copy) { copyAll(half(to, copy), half(from, copy), kBytes, context.stream()); }, budget);
  const double bytes = static_cast<double>(kBytes);
  return {bytes / read.measure().median, 2 * bytes / copies.measure().median};
}

class Benchmark {
 public:
  Benchmark(const Options& options, gpu::Context& context)
      : m_options(options), m_context(context), m_bandwidth(measureBandwidth(context, options.budget)) {
    std::printf(
        "%s: reads %.2f TB/s, copies %.2f TB/s; assumed %.0f TFLOP/s bf16, %.0f TOP/s int8, %.0f TFLOP/s float\n",
        context.properties().name.c_str(), 1e-12 * m_bandwidth.read, 1e-12 * m_bandwidth.copy,
        1e-12 * options.bfloat16Rate, 1e-12 * options.int8Rate, 1e-12 * options.floatRate);
  }

  /** \returns whether every cell was measured and right. */
  bool run() {
    try {
      for (const Shape& shape : m_options.shapes) {
        for (const KernelSpec& spec : kKernels) {
          if (isWanted(spec)) runKernel(spec, shape);
        }
      }
    } catch (const std::exception& e) {  // after a fault of a kernel the device refuses all else
      std::fprintf(stderr, "stopped: %s\n", e.what());
      m_failures++;
    }
    return m_failures == 0;
  }

  ordered_json json() const {
    return {{"program", "eigenq"},
            {"device", m_context.properties().name},
            {"scalar", m_options.scalar == ScalarType::kBFloat16 ? "bf16"
                       : m_options.scalar == ScalarType::kHalf   ? "half"
                                                                 : "float"},
            {"read_tbs", 1e-12 * m_bandwidth.read},
            {"copy_tbs", 1e-12 * m_bandwidth.copy},
            {"bf16_tflops", 1e-12 * m_options.bfloat16Rate},
            {"int8_tops", 1e-12 * m_options.int8Rate},
            {"cells", m_cells}};
  }

 private:
  bool isWanted(const KernelSpec& spec) const {
    const auto& names = m_options.kernels;
    if (names.empty()) return spec.quick || !m_options.quick;
    return std::find(names.begin(), names.end(), spec.name) != names.end();
  }

  void runKernel(const KernelSpec& spec, const Shape& shape) {
    const auto make = spec.kind == Kind::kProduct   ? makeProductCase
                      : spec.kind == Kind::kAdapter ? makeAdapterCase
                                                    : makeQuantizerCase;
    const std::unique_ptr<Case> test = make(spec, shape, m_options.scalar, m_context);
    if (spec.kind == Kind::kAdapter) return runCell(spec, shape, kAdapterRows, *test);
    if (spec.kind != Kind::kProduct) return runCell(spec, shape, 0, *test);
    for (const Index m : m_options.rows) {
      if (spec.eager && m > kMostEagerRows) continue;
      if (m_options.lowerings.empty()) runCell(spec, shape, m, *test);
      for (const std::string& name : m_options.lowerings) {
        test->setLowering(name);
        runCell(spec, shape, m, *test, name.c_str());
      }
    }
  }

  /** \param lowering  the row that computes the product; null: as the table chooses */
  void runCell(const KernelSpec& spec, const Shape& shape, Index m, Case& test, const char* lowering = nullptr) {
    ordered_json cell = {{"kernel", spec.name}, {"n", shape.n}, {"k", shape.k}, {"m", m}};
    std::printf("%-23s %5td x %5td  m %4td ", spec.name, shape.n, shape.k, m);
    std::fflush(stdout);
    try {
      measure(spec, m, test, lowering, cell);
    } catch (const CudaOutOfMemory& e) {
      fail(e.what(), cell);
    } catch (const CudaError& e) {
      fail(e.what(), cell);
      m_cells.push_back(cell);
      throw;
    }
    m_cells.push_back(cell);
  }

  void measure(const KernelSpec& spec, Index m, Case& test, const char* lowering, ordered_json& cell) {
    test.setRows(m);
    if (const char* const why = test.refusal()) return skip(lowering, why, cell);
    const KernelName chosen;
    const auto call = [&test](int copy) { test.call(copy); };
    Timing timing;
    if (spec.eager) {
      timing = measureEager(m_context, test.copies(), call, m_options.budget);
      test.spoilResult();
      test.call(0);
    } else {
      ReplayTimer timer(m_context, test.copies(), call, m_options.budget);
      timing = timer.measure();
      test.spoilResult();
      timer.replayOnce();
    }
    const std::string wrong = test.checkResult();
    const char* const kernel = lowering ? lowering : chosen.name();
    cell["path"] = kernel;
    if (wrong.empty()) return report(kernel, timing, test.work(), cell);
    fail((kernel + (": " + wrong)).c_str(), cell);
  }

  void report(const char* kernel, const Timing& t, const Work& work, ordered_json& cell) {
    const double limit = limitOf(work), bytes = work.bytesRead + work.bytesWritten;
    std::printf("%-22s | %9.2f us ± %-6.2f | %7.1f TFLOP/s | %5.2f TB/s | %3.0f %% of the limit\n", kernel,
                1e6 * t.median, 1e6 * t.spread, 1e-12 * work.operations / t.median, 1e-12 * bytes / t.median,
                100 * limit / t.median);
    std::fflush(stdout);
    cell["us"] = 1e6 * t.median;
    cell["spread_us"] = 1e6 * t.spread;
    cell["samples"] = t.samples;
    cell["limit_us"] = 1e6 * limit;
  }

  void skip(const char* lowering, const char* why, ordered_json& cell) {
    std::printf("%-22s | refused: %s\n", lowering, why);
    std::fflush(stdout);
    cell["path"] = lowering;
    cell["refused"] = why;
  }

  void fail(const char* why, ordered_json& cell) {
    std::printf("FAILED: %s\n", why);
    std::fflush(stdout);
    cell["error"] = why;
    m_failures++;
  }

  /** Products read more than they write, quantisers do both at once. */
  double limitOf(const Work& work) const {
    const double bandwidth = work.rate == Rate::kNone ? m_bandwidth.copy : m_bandwidth.read;
    return std::max((work.bytesRead + work.bytesWritten) / bandwidth, work.operations / m_options.rate(work.rate));
  }

  const Options& m_options;
  gpu::Context& m_context;
  const Bandwidth m_bandwidth;
  ordered_json m_cells = ordered_json::array();
  int m_failures = 0;
};

void checkNames(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto isIt = [&name](const KernelSpec& spec) { return spec.name == name; };
    if (std::any_of(std::begin(kKernels), std::end(kKernels), isIt)) continue;
    std::string known;
    for (const KernelSpec& spec : kKernels) known += std::string(" ") + spec.name;
    throw std::invalid_argument("unknown kernel " + name + ", expected one of" + known);
  }
}

bool write(const ordered_json& json, const std::string& file) {
  std::ofstream out(file);
  out << json.dump(1) << '\n';
  out.close();
  if (!out) std::fprintf(stderr, "cannot write %s\n", file.c_str());
  return static_cast<bool>(out);
}

int runAll(const Options& options) {
  gpu::Context context;
  const gpu::ContextGuard guard(context);
  Benchmark benchmark(options, context);
  const bool right = benchmark.run();
  const bool written = options.json.empty() || write(benchmark.json(), options.json);
  return right && written ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace bench
}  // namespace EigenQ

int main(int argc, char** argv) {
  using namespace EigenQ::bench;
  try {
    const Options options = parseOptions(argc, argv);
    checkNames(options.kernels);
    return runAll(options);
  } catch (const std::invalid_argument& e) {
    std::fprintf(stderr, "%s\n%s", e.what(), usage());
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
  }
  return EXIT_FAILURE;
}
