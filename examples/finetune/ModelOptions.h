// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_FINETUNE_MODEL_OPTIONS_H
#define EIGENQ_FINETUNE_MODEL_OPTIONS_H

#include <cstddef>

namespace finetune {

using Index = std::ptrdiff_t;  // Eigen's, without Eigen

/** heads divides hidden into even parts; kvHeads divides heads. hidden and ffn, the inner dimensions of the
 * projections, are best multiples of the NF4 block size, so that no block spans two rows. */
struct ModelOptions {
  Index vocabulary = 256;
  Index hidden = 128;
  Index layers = 4;
  Index heads = 4;
  Index kvHeads = 2;
  Index ffn = 384;
  Index context = 128;

  Index headDim() const { return hidden / heads; }
};

struct AdapterOptions {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0.05;
};

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_MODEL_OPTIONS_H
