// SPDX-License-Identifier: MPL-2.0
// int8 by rows and columns on the device, with the host's codes and statistics, bit for bit, on Context::current().
// 4-bit codes are made by the constructor of FourBitMatrix, int8 ones for a weight by that of Int8Matrix.
#ifndef EIGENQ_GPU_DEVICEQUANTIZE_H
#define EIGENQ_GPU_DEVICEQUANTIZE_H

#include "DeviceInt8Linear.h"

namespace EigenQ {
namespace gpu {

/** An EigenQ::Int8Quantized in device memory. */
struct Int8Quantized {
  DeviceCodes codes;              // m×k, in [-127, 127]
  DeviceMatrix<float> rowStats;   // m×1
  OutlierColumns outlierColumns;  // none where there is no threshold
};

/** An EigenQ::Int8DoubleQuantized in device memory. */
struct Int8DoubleQuantized {
  DeviceCodes rowCodes;          // m×k, scaled by rowStats
  DeviceCodes colCodes;          // m×k, scaled by colStats
  DeviceMatrix<float> rowStats;  // m×1
  DeviceMatrix<float> colStats;  // k×1
  OutlierColumns outlierColumns;
};

/** As EigenQ::int8VectorwiseQuant. \param x  m×k of float, half or bfloat16, of any strides */
template <typename Derived>
Int8Quantized int8VectorwiseQuant(const DeviceBase<Derived>& x, float threshold = 0) {
  eigen_assert(threshold >= 0 && "int8VectorwiseQuant: the outlier threshold is negative");
  Context& context = Context::current();
  Int8Quantized q;
  q.codes.resize(x.rows(), x.cols(), context);
  q.rowStats.resize(x.rows(), 1, context);
  q.outlierColumns.resize(threshold > 0 ? x.cols() : 0, context);
  internal::quantizeRows(internal::toRead(x, context).dense(), threshold, internal::toWrite(q.codes, context).data(),
                         internal::toWrite(q.rowStats, context).data(), q.outlierColumns.toWrite(context), context);
  return q;
}

/** As EigenQ::int8DoubleQuant. */
template <typename Derived>
Int8DoubleQuantized int8DoubleQuant(const DeviceBase<Derived>& x, float threshold = 0) {
  Int8Quantized rows = int8VectorwiseQuant(x, threshold);
  Context& context = Context::current();
  Int8DoubleQuantized q;
  q.rowCodes = std::move(rows.codes);
  q.rowStats = std::move(rows.rowStats);
  q.colCodes.resize(x.rows(), x.cols(), context);
  q.colStats.resize(x.cols(), 1, context);
  q.outlierColumns.resize(threshold > 0 ? x.cols() : 0, context);
  internal::quantizeCols(internal::toRead(x, context).dense(), threshold, internal::toWrite(q.colCodes, context).data(),
                         internal::toWrite(q.colStats, context).data(), q.outlierColumns.toWrite(context), context);
  return q;
}

}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEQUANTIZE_H
