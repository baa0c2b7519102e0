// SPDX-License-Identifier: MPL-2.0
#include "plan_cache.h"

#include <eigen_q/src/Int8Product.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "context_state.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
constexpr int kMostCandidates = 8;

std::size_t sizeOf(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_8I:
      return 1;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    default:
      return 4;
  }
}

bool isInt8(const Gemm& g) { return g.factors == CUDA_R_8I; }

/** The largest power of two up to 16 that divides the address: no kernel of cuBLASLt asks for more. */
std::uint32_t alignmentOf(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer) | 16;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

/** Rows and columns of A as stored; B likewise. */
Index storedRowsA(const Gemm& g) { return g.transposeA ? g.k : g.m; }
Index storedColsA(const Gemm& g) { return g.transposeA ? g.m : g.k; }
Index storedRowsB(const Gemm& g) { return g.transposeB ? g.n : g.k; }
Index storedColsB(const Gemm& g) { return g.transposeB ? g.k : g.n; }

bool isInPlace(const Gemm& g) { return g.c == g.d; }

/** cuBLASLt wants a C where it reads none. */
const void* addend(const Gemm& g) { return g.c ? g.c : g.d; }
Index addendStride(const Gemm& g) { return g.c ? g.ldc : g.ldd; }

/** All that an algorithm may depend on: types and operations, sizes, leading dimensions, alignments, the addend. */
using Key = std::tuple<int, int, bool, bool, Index, Index, Index, Index, Index, Index, Index, std::uint32_t,
                       std::uint32_t, std::uint32_t, std::uint32_t, bool, bool>;

Key keyOf(const Gemm& g) {
  return {g.factors,
          g.result,
          g.transposeA,
          g.transposeB,
          g.m,
          g.n,
          g.k,
          g.lda,
          g.ldb,
          addendStride(g),
          g.ldd,
          alignmentOf(g.a),
          alignmentOf(g.b),
          alignmentOf(addend(g)),
          alignmentOf(g.d),
          g.c != nullptr,
          isInPlace(g)};
}

std::string describe(const Gemm& g) {
  return "D " + std::to_string(g.m) + "x" + std::to_string(g.n) + ", k = " + std::to_string(g.k) +
         ", factors of cudaDataType " + std::to_string(g.factors);
}

/** cuBLASLt's descriptions of a product; plain data, without its pointers and its alpha. */
struct Problem {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, c, d;

  explicit Problem(const Gemm& g) {
    const cublasComputeType_t compute = isInt8(g) ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
    EIGENQ_CUDA_CHECK(cublasLtMatmulDescInit(&operation, compute, isInt8(g) ? CUDA_R_32I : CUDA_R_32F));
    setTranspose(CUBLASLT_MATMUL_DESC_TRANSA, g.transposeA);
    setTranspose(CUBLASLT_MATMUL_DESC_TRANSB, g.transposeB);
    setLayout(&a, g.factors, storedRowsA(g), storedColsA(g), g.lda);
    setLayout(&b, g.factors, storedRowsB(g), storedColsB(g), g.ldb);
    setLayout(&c, g.result, g.m, g.n, addendStride(g));
    setLayout(&d, g.result, g.m, g.n, g.ldd);
  }

 private:
  void setTranspose(cublasLtMatmulDescAttributes_t which, bool transpose) {
    const cublasOperation_t op = transpose ? CUBLAS_OP_T : CUBLAS_OP_N;
    EIGENQ_CUDA_CHECK(cublasLtMatmulDescSetAttribute(&operation, which, &op, sizeof op));
  }
  static void setLayout(cublasLtMatrixLayoutOpaque_t* layout, cudaDataType_t type, Index rows, Index cols, Index ld) {
    EIGENQ_CUDA_CHECK(
        cublasLtMatrixLayoutInit(layout, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(cols), ld));
  }
};

struct Plan {
  Problem problem;
  cublasLtMatmulAlgo_t algorithm;
  std::size_t workspaceBytes;
};

/** alpha or beta in the type that the product is scaled in. */
union ScaleFactor {
  float asFloat;
  std::int32_t asInt;
};

ScaleFactor scaleFactor(const Gemm& g, float value) {
  ScaleFactor s;
  if (isInt8(g)) {
    s.asInt = static_cast<std::int32_t>(value);
  } else {
    s.asFloat = value;
  }
  return s;
}

cublasStatus_t queue(const Gemm& g, Problem& p, const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                     std::size_t workspaceBytes, ContextState& state) {
  const ScaleFactor alpha = scaleFactor(g, g.alpha), beta = scaleFactor(g, g.c ? g.beta : 0.0f);
  return cublasLtMatmul(state.cublasLt(), &p.operation, &alpha, g.a, &p.a, g.b, &p.b, &beta, addend(g), &p.c, g.d, &p.d,
                        &algorithm, workspace, workspaceBytes, state.stream->get());
}

/** What cuBLASLt may choose from. */
class Preference {
 public:
  explicit Preference(const Gemm& g) {
    EIGENQ_CUDA_CHECK(cublasLtMatmulPreferenceInit(&m_preference));
    const std::uint64_t workspace = kWorkspaceBytes;
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    // A split sum stays in float until the end: the other schemes round its parts to the type of D.
    const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignmentOf(g.a));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignmentOf(g.b));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignmentOf(addend(g)));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignmentOf(g.d));
  }
  cublasLtMatmulPreference_t get() { return &m_preference; }

 private:
  template <typename T>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    EIGENQ_CUDA_CHECK(cublasLtMatmulPreferenceSetAttribute(&m_preference, attribute, &value, sizeof value));
  }
  cublasLtMatmulPreferenceOpaque_t m_preference;
};

/** The heuristics' answers, the most promising first; at least one. */
std::vector<cublasLtMatmulHeuristicResult_t> candidatesFor(const Gemm& g, Problem& p, int atMost, ContextState& state) {
  Preference preference(g);
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(atMost));
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(state.cublasLt(), &p.operation, &p.a, &p.b, &p.d, &p.d,
                                                               preference.get(), atMost, results.data(), &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) EIGENQ_CUDA_CHECK(status);
  results.resize(static_cast<std::size_t>(found));
  results.erase(
      std::remove_if(results.begin(), results.end(), [](const auto& r) { return r.state != CUBLAS_STATUS_SUCCESS; }),
      results.end());
  if (results.empty())
    throwCublasError(CUBLAS_STATUS_NOT_SUPPORTED, ("cublasLtMatmulAlgoGetHeuristic for " + describe(g)).c_str(),
                     __FILE__, __LINE__);
  return results;
}

/** Memory in the order of the stream, for the time of a measurement. */
class TemporaryMemory {
 public:
  TemporaryMemory(const StreamHandle& stream, std::size_t bytes) : m_stream(stream), m_data(allocate(stream, bytes)) {}
  ~TemporaryMemory() { release(m_stream, m_data); }
  TemporaryMemory(const TemporaryMemory&) = delete;
  TemporaryMemory& operator=(const TemporaryMemory&) = delete;
  void* get() const { return m_data; }

 private:
  const StreamHandle& m_stream;
  void* m_data;
};

/** Times candidates of one product on its own operands. */
class Stopwatch {
 public:
  Stopwatch(const Gemm& g, Problem& p, ContextState& state)
      : m_gemm(g), m_problem(p), m_state(state), m_workspace(*state.stream, kWorkspaceBytes) {}

  /** Milliseconds of one run; infinite where the candidate cannot run after all. */
  float time(const cublasLtMatmulHeuristicResult_t& candidate) {
    EIGENQ_CUDA_CHECK(cudaEventRecord(m_begin.get(), m_state.stream->get()));
    const cublasStatus_t status =
        queue(m_gemm, m_problem, candidate.algo, m_workspace.get(), candidate.workspaceSize, m_state);
    if (status != CUBLAS_STATUS_SUCCESS) return std::numeric_limits<float>::infinity();
    EIGENQ_CUDA_CHECK(cudaEventRecord(m_end.get(), m_state.stream->get()));
    EIGENQ_CUDA_CHECK(cudaEventSynchronize(m_end.get()));
    float milliseconds = 0;
    EIGENQ_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, m_begin.get(), m_end.get()));
    return milliseconds;
  }

 private:
  const Gemm& m_gemm;
  Problem& m_problem;
  ContextState& m_state;
  TemporaryMemory m_workspace;
  Event m_begin{cudaEventDefault}, m_end{cudaEventDefault};
};

/** The best of \a candidates. The first run of each loads its kernel and does not count; who is then a quarter slower
 * than the best so far gets no further run. A later candidate must win by 2 %, so that noise does not choose. */
std::size_t fastestOf(const std::vector<cublasLtMatmulHeuristicResult_t>& candidates, Stopwatch& watch) {
  std::size_t best = 0;
  float bestTime = std::numeric_limits<float>::infinity();
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    (void)watch.time(candidates[c]);
    float time = watch.time(candidates[c]);
    for (int repeat = 0; repeat < 2 && time < 1.25f * bestTime; ++repeat)
      time = std::min(time, watch.time(candidates[c]));
    if (time < 0.98f * bestTime) {
      best = c;
      bestTime = time;
    }
  }
  return best;
}

/** A product can be timed on D itself, which it is about to overwrite. One that adds to D is timed on memory that takes
 * D's place; where there is none to be had, the first candidate is taken. */
std::size_t chooseByTime(const Gemm& g, Problem& p, const std::vector<cublasLtMatmulHeuristicResult_t>& candidates,
                         ContextState& state) {
  try {
    if (!isInPlace(g)) {
      Stopwatch watch(g, p, state);
      return fastestOf(candidates, watch);
    }
    const std::size_t size = sizeOf(g.result), shift = reinterpret_cast<std::uintptr_t>(g.d) % 16;
    const TemporaryMemory d(*state.stream, shift + static_cast<std::size_t>(g.ldd * (g.n - 1) + g.m) * size);
    Gemm onCopy = g;
    onCopy.c = onCopy.d = static_cast<char*>(d.get()) + shift;  // of D's alignment
    Stopwatch watch(onCopy, p, state);
    return fastestOf(candidates, watch);
  } catch (const CudaOutOfMemory&) {
    return 0;
  }
}

bool tuningWanted() {
  static const bool wanted = [] {
    const char* setting = std::getenv("EIGENQ_TUNE");
    return !setting || std::strcmp(setting, "0") != 0;
  }();
  return wanted;
}

Plan makePlan(const Gemm& g, bool tune, ContextState& state) {
  Problem problem(g);
  const auto candidates = candidatesFor(g, problem, tune ? kMostCandidates : 1, state);
  const std::size_t chosen = candidates.size() > 1 ? chooseByTime(g, problem, candidates, state) : 0;
  return {problem, candidates[chosen].algo, candidates[chosen].workspaceSize};
}

void run(const Gemm& g, Plan& plan, Context& context) {
  Scratch scratch(context);
  void* const workspace = plan.workspaceBytes > 0 ? scratch.bytes(plan.workspaceBytes) : nullptr;
  EIGENQ_CUDA_CHECK(queue(g, plan.problem, plan.algorithm, workspace, plan.workspaceBytes, context.state()));
}

/** D of an empty sum. */
void clear(const Gemm& g, Context& context) {
  const std::size_t size = sizeOf(g.result), width = static_cast<std::size_t>(g.m) * size;
  if (g.ldd == g.m || g.n == 1) {
    EIGENQ_CUDA_CHECK(cudaMemsetAsync(g.d, 0, width * static_cast<std::size_t>(g.n), context.stream()));
  } else {
    EIGENQ_CUDA_CHECK(cudaMemset2DAsync(g.d, static_cast<std::size_t>(g.ldd) * size, 0, width,
                                        static_cast<std::size_t>(g.n), context.stream()));
  }
}

const char* refuseTypes(const Gemm& g) {
  switch (g.factors) {
    case CUDA_R_8I:
      if (g.result != CUDA_R_32I) return "int8 factors give int32 sums";
      if (!g.transposeA || g.transposeB) return "int8: A is to be transposed and B is not";
      if (g.alpha != 1 || (g.c && g.beta != 1)) return "int8: sums are not scaled";
      if (g.k > EigenQ::internal::kInt8MaxDepth) return "int8: sums of more than 2^17 products may not fit in int32";
      return nullptr;
    case CUDA_R_32F:
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return g.result == g.factors || g.result == CUDA_R_32F ? nullptr : "D is of another type than its factors";
    default:
      return "factors are none of float, half, bfloat16, int8";
  }
}

const char* refuseSizes(const Gemm& g) {
  constexpr Index kMost = std::numeric_limits<std::int32_t>::max();
  for (const Index size : {g.m, g.n, g.k, g.lda, g.ldb, addendStride(g), g.ldd}) {
    if (size > kMost) return "a size or a leading dimension exceeds 2^31 - 1";
  }
  if (g.lda < std::max<Index>(storedRowsA(g), 1) || g.ldb < std::max<Index>(storedRowsB(g), 1) ||
      std::min(addendStride(g), g.ldd) < std::max<Index>(g.m, 1))
    return "a leading dimension is shorter than the columns it separates";
  return nullptr;
}

const char* refuseInt8Alignment(const Gemm& g) {
  if (g.m % 4 || g.k % 4) return "int8: m and k are no multiples of 4";
  if (g.lda % 4 || g.ldb % 4 || addendStride(g) % 4 || g.ldd % 4)
    return "int8: a leading dimension is no multiple of 4";
  if (alignmentOf(g.a) < 4 || alignmentOf(g.b) < 4) return "int8: a factor is not aligned to 4 bytes";
  return nullptr;
}

}  // namespace

struct PlanCache::Plans {
  std::map<Key, Plan> chosen;
};

PlanCache::PlanCache() : m_plans(std::make_unique<Plans>()) {}
PlanCache::~PlanCache() = default;

std::size_t PlanCache::size() const { return m_plans->chosen.size(); }

const char* refuseGemm(const Gemm& g) {
  if (const char* why = refuseTypes(g)) return why;
  if (g.k == 0 && g.c) return "an empty sum is added to C without a product";
  if (const char* why = refuseSizes(g)) return why;
  return isInt8(g) && g.k > 0 ? refuseInt8Alignment(g) : nullptr;
}

void runGemm(const Gemm& g, Context& context) {
  if (g.m == 0 || g.n == 0) return;
  const DeviceGuard guard(context.device());
  if (g.k == 0) return clear(g, context);
  ContextState& state = context.state();
  auto& chosen = state.plans().m_plans->chosen;
  const Key key = keyOf(g);
  auto plan = chosen.find(key);
  if (plan != chosen.end()) return run(g, plan->second, context);
  if (state.stream->isCapturing()) {
    Plan unmeasured = makePlan(g, false, state);
    return run(g, unmeasured, context);
  }
  plan = chosen.emplace(key, makePlan(g, tuningWanted(), state)).first;
  run(g, plan->second, context);
}

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
