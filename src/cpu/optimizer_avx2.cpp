// SPDX-License-Identifier: MPL-2.0
#include "kernels.h"
#include "optimizer_kernels.h"

namespace EigenQ {
namespace internal {

void runAdamAvx2(const AdamStep& step) { adamStep(step); }
void runLionAvx2(const LionStep& step) { lionStep(step); }

}  // namespace internal
}  // namespace EigenQ
