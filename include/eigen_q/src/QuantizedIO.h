// SPDX-License-Identifier: MPL-2.0
// What the quantised matrices share at their borders: checks of what comes in, and printing.
#ifndef EIGENQ_QUANTIZEDIO_H
#define EIGENQ_QUANTIZEDIO_H

#include "Quantize.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace EigenQ {
namespace internal {

/** Finds the first coefficient, row by row, that is not finite as a float. */
bool findNonFinite(const ConstDenseView& x, Index* row, Index* col);

inline void requireFinite(const char* type, const ConstDenseView& x) {
  Index row = 0, col = 0;
  if (!findNonFinite(x, &row, &col)) return;
  throw std::invalid_argument(std::string(type) + ": coefficient (" + std::to_string(row) + ", " + std::to_string(col) +
                              "): expected a value that is finite in float, found NaN or infinity");
}

inline void requireRowAbsmax(const std::string& where, const Eigen::VectorXf& rowAbsmax, Index rows) {
  if (rowAbsmax.size() != rows) {
    throw FormatError(where, "SCB",
                      "expected " + std::to_string(rows) + " rows, found " + std::to_string(rowAbsmax.size()));
  }
  for (Index i = 0; i < rows; ++i) {
    if (!(rowAbsmax[i] >= 0) || !std::isfinite(rowAbsmax[i])) {
      throw FormatError(
          where, "SCB",
          "expected finite values >= 0, found " + std::to_string(rowAbsmax[i]) + " in row " + std::to_string(i));
    }
  }
}

inline void requireFourBitMatrix(const std::string& where, const ByteVector& packed, const QuantState& state,
                                 FourBitType type) {
  if (state.type() != type) {
    throw FormatError(where, "quant_type",
                      std::string("expected ") + fourBitName(type) + ", found " + fourBitName(state.type()));
  }
  if (state.shape().size() != 2) {
    throw FormatError(where, "shape", "expected a matrix, found rank " + std::to_string(state.shape().size()));
  }
  if (packed.size() != packedSize(state.size())) {
    throw FormatError(where, "weight",
                      "expected " + std::to_string(packedSize(state.size())) + " bytes for " +
                          std::to_string(state.shape()[0]) + "x" + std::to_string(state.shape()[1]) + " codes, found " +
                          std::to_string(packed.size()));
  }
}

template <typename Matrix>
std::ostream& printQuantized(std::ostream& os, const Matrix& w, const char* type, const std::string& statistics) {
  constexpr Index kCorner = 6;
  const Index rows = std::min(w.rows(), kCorner), cols = std::min(w.cols(), kCorner);
  std::ostringstream facts;
  facts << type << ' ' << w.rows() << 'x' << w.cols() << ", " << statistics;
  if (w.size() > 0) {
    facts << ", " << std::fixed << std::setprecision(2)
          << 8.0 * static_cast<double>(w.sizeInBytes()) / static_cast<double>(w.size()) << " bits a weight";
  }
  os << facts.str();
  if (rows == 0 || cols == 0) return os;
  if (w.rows() > rows || w.cols() > cols) os << ", top left corner " << rows << 'x' << cols;
  return os << ":\n" << Eigen::MatrixXf(w.block(0, 0, rows, cols));
}

}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_QUANTIZEDIO_H
