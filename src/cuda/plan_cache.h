// SPDX-License-Identifier: MPL-2.0
// Dense products by cuBLASLt, with the algorithm chosen once for each shape. Asked with a workspace and timed,
// cuBLASLt's int8 product is up to twice as fast as its default choice (doc/perf.md).
#ifndef EIGENQ_CUDA_PLAN_CACHE_H
#define EIGENQ_CUDA_PLAN_CACHE_H

#include <eigen_q/src/Views.h>
#include <eigen_q/src/gpu/Context.h>

#include <cstddef>
#include <memory>

#include "check.h"

namespace EigenQ {
namespace gpu {
namespace internal {

/** D = alpha·op(A)·op(B) + beta·C in cuBLASLt's column-major terms: op(A) m×k, op(B) k×n, C and D m×n; leading
 * dimensions count elements. int8 factors give int32, transposed A and plain B, unscaled; others sum in float (no
 * TensorFloat-32), however the sum is split, and are rounded to D once; where a 16-bit C is added, some kernels of
 * cuBLASLt round the product too before they add. D overlaps neither A nor B. */
struct Gemm {
  cudaDataType_t factors = CUDA_R_32F;  // of A and B: CUDA_R_32F, CUDA_R_16F, CUDA_R_16BF, CUDA_R_8I
  cudaDataType_t result = CUDA_R_32F;   // of D: that of the factors, CUDA_R_32F or CUDA_R_32I
  bool transposeA = false;
  bool transposeB = false;
  Index m = 0;
  Index n = 0;
  Index k = 0;
  const void* a = nullptr;
  Index lda = 0;
  const void* b = nullptr;
  Index ldb = 0;
  void* d = nullptr;
  Index ldd = 0;
  const void* c = nullptr;  // of D's type: D itself, or apart from it; null: nothing is added
  Index ldc = 0;
  float alpha = 1;
  float beta = 1;
};

/** Why cuBLASLt cannot run it (types, alignment, sizes), in words; null where it can. */
const char* refuseGemm(const Gemm& gemm);

/** Queues it. The first call of a shape outside graph capture asks cuBLASLt's heuristics with a workspace, times up to
 * eight candidates and waits for the stream: about twenty times the product's own duration and some milliseconds. Later
 * calls wait for nothing. Inside a capture an unknown shape takes the first candidate, for this call alone.
 *
 * D is the same in every call that runs the same algorithm; another process may time another one the best and round
 * differently. EIGENQ_TUNE=0 in the environment takes the heuristics' first candidate always, untimed.
 * Throws CudaError. */
void runGemm(const Gemm& gemm, Context& context);

/** The chosen algorithms of a context. */
class PlanCache {
 public:
  PlanCache();
  ~PlanCache();
  PlanCache(const PlanCache&) = delete;
  PlanCache& operator=(const PlanCache&) = delete;

  /** Number of shapes with a chosen algorithm. */
  std::size_t size() const;

 private:
  friend void runGemm(const Gemm& gemm, Context& context);
  struct Plans;
  std::unique_ptr<Plans> m_plans;
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_PLAN_CACHE_H
