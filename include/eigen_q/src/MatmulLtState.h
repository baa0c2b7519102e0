// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_MATMULLTSTATE_H
#define EIGENQ_MATMULLTSTATE_H

#include <cstdint>
#include <limits>

#include "OutlierPooler.h"
#include "Quantize.h"
#include "TileLayout.h"

namespace EigenQ {

/** Where the matrices of a MatmulLtState lie; EigenQ::gpu has the same for a device. */
struct HostInt8Storage {
  using Codes = Int8Codes;
  using Tiles = TiledBuffer<std::int8_t>;
  using Stats = Eigen::VectorXf;
  using Columns = IndexVector;
};

/** What an int8 linear layer keeps between calls: the codes of its weight, n×k, and how it multiplies. The original's
 * names stand behind each field. */
template <typename Storage>
struct BasicMatmulLtState {
  typename Storage::Codes codes;             // CB: n×k, row-major
  typename Storage::Tiles tiledCodes;        // CxB, SB: the same in a tiled order; used where there are no codes
  typename Storage::Stats rowStats;          // SCB: absmax of each of the n rows
  typename Storage::Codes transposedCodes;   // CBt: k×n, the codes of Wᵀ by its own rows
  typename Storage::Stats transposedStats;   // SCBt: their absmax, k
  typename Storage::Columns outlierColumns;  // idx: what the last forward pass multiplied in full precision, ascending

  float threshold = 0;  // magnitude from which on a feature is an outlier; 0: none is
  bool isTraining = true;
  /** The weight is also there in float, is trained, and its codes follow it. */
  bool hasFp16Weights = true;
  /** The weight's gradient is being accumulated over several passes: its codes are still right. */
  bool hasAccumulatedGradients = false;
  /** No integer product: activations stay as they are, the weight is dequantised. (0.50: MatMul8bitFp.) */
  bool forceNoIgemmlt = false;
  /** Of the activations' gradient: G times the dequantised weight. If false, a float weight is also quantised by
   * columns and G by rows, for an integer product, as 0.43 does. 0.50 knows the first only, hence the default. */
  bool memoryEfficientBackward = true;
  /** Outliers are shared with the layers of the same width through a pool. */
  bool usePool = false;
  GlobalOutlierPooler* outlierPool = nullptr;  // null: GlobalOutlierPooler::instance()
  /** formatB: the order in which a float weight's codes are kept: kRow in codes, any other in tiledCodes. */
  TileOrder layout = TileOrder::kRow;

  /** Which value of its Parameter the codes are of; the tape keeps count. */
  std::uint64_t weightVersion = std::numeric_limits<std::uint64_t>::max();

  bool hasCodes() const { return rowStats.size() > 0 || codes.size() > 0 || tiledCodes.buffer.size() > 0; }

  /** Drops all codes and statistics; the next forward pass makes them again. Options stay. */
  void resetGrads() {
    codes.resize(0, 0);
    tiledCodes = typename Storage::Tiles();
    rowStats.resize(0, 1);
    transposedCodes.resize(0, 0);
    transposedStats.resize(0, 1);
  }
};

using MatmulLtState = BasicMatmulLtState<HostInt8Storage>;

}  // namespace EigenQ

#endif  // EIGENQ_MATMULLTSTATE_H
