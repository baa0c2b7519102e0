// SPDX-License-Identifier: MPL-2.0
#include "fourbit_int8.h"
#include "kernels.h"

namespace EigenQ {
namespace internal {

void runFourBitInt8NeonDot(const QuantizedProduct& p) { FourBitInt8<FourBitInt8NeonDot>::run(p); }

}  // namespace internal
}  // namespace EigenQ
