// SPDX-License-Identifier: MPL-2.0
#include "kernels.h"
#include "optimizer_kernels.h"

namespace EigenQ {
namespace internal {

void runAdamPortable(const AdamStep& step) { adamStep(step); }
void runLionPortable(const LionStep& step) { lionStep(step); }

}  // namespace internal
}  // namespace EigenQ
