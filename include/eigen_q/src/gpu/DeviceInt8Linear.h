// SPDX-License-Identifier: MPL-2.0
// What the passes of Int8Linear.h are made of on a device, and the state between them.
#ifndef EIGENQ_GPU_DEVICEINT8LINEAR_H
#define EIGENQ_GPU_DEVICEINT8LINEAR_H

#include "../Int8Linear.h"
#include "DeviceTiles.h"
#include "Int8LinearKernels.h"

namespace EigenQ {
namespace gpu {

/** Columns that a product found to be outliers and multiplied in full precision, ascending. Which they are, and how
 * many, is known to the device only. Moved, not copied. */
class OutlierColumns {
 public:
  /** Waits for the stream. */
  IndexVector toHost(Context& context = Context::current()) const {
    if (m_list.size() == 0) return IndexVector();
    const Eigen::MatrixXi list = m_list.toHost(context);
    return list.col(0).segment(1, list(0, 0)).cast<Index>();
  }

  /** Room for the columns of a matrix of \a width, of which a kernel is yet to tell the outliers; of 0: none. */
  void resize(Index width, Context& context = Context::current()) {
    m_mask.resize(width, 1, context);
    m_list.resize(width > 0 ? width + 1 : 0, 1, context);
  }
  /** The count, and behind it the columns, of which so many are valid; 0×1 where there are none. */
  const DeviceMatrix<int>& list() const { return m_list; }

  /** For kernels on \a context that read it. */
  internal::OutlierList toRead(Context& context) const {
    if (m_list.size() == 0) return {};
    const int* const list = internal::toRead(m_list, context).data();
    return {list + 1, list};
  }
  /** For kernels on \a context that write it. */
  internal::OutlierMemory toWrite(Context& context) {
    if (m_list.size() == 0) return {};
    int* const list = internal::toWrite(m_list, context).data();
    return {internal::toWrite(m_mask, context).data(), list + 1, list};
  }

 private:
  DeviceMatrix<std::uint8_t> m_mask;
  DeviceMatrix<int> m_list;
};

namespace internal {

struct DeviceInt8Storage {
  using Codes = DeviceCodes;
  using Tiles = TiledBuffer<std::int8_t>;
  using Stats = DeviceMatrix<float>;
  using Columns = OutlierColumns;
};

}  // namespace internal

/** An EigenQ::MatmulLtState whose codes, statistics and outlier columns lie on a device. Moved, not copied. */
using MatmulLtState = BasicMatmulLtState<internal::DeviceInt8Storage>;

namespace internal {

/** EigenQ::internal::HostInt8Linear for a device. */
struct DeviceInt8Linear {
  using State = MatmulLtState;
  using Codes = DeviceCodes;

  Context& context = Context::current();

  void quantizeWeight(const ConstDenseView& w, DeviceCodes& codes, DeviceMatrix<float>& stats) const {
    codes.resize(w.rows, w.cols, context);
    stats.resize(w.rows, 1, context);
    internal::quantizeWeight(w, toWrite(codes, context).data(), toWrite(stats, context).data(), context);
  }
  WeightView weight(const DeviceCodes& codes, const DeviceMatrix<float>& stats) const {
    return WeightView::int8(toRead(codes, context).data(), codes.rows(), codes.cols(), codes.cols(),
                            toRead(stats, context).data());
  }
  TiledBuffer<std::int8_t> tiled(const DeviceCodes& codes, TileOrder order) const {
    const ContextGuard guard(context);
    return gpu::toTiles(codes, order);
  }
  DeviceCodes untiled(const TiledBuffer<std::int8_t>& codes) const {
    const ContextGuard guard(context);
    return gpu::fromTiles(codes);
  }

  class Activations {
   public:
    /** Without outliers. */
    Activations(const DeviceInt8Linear& ops, const ConstDenseView& x) : Activations(ops, x, 0, nullptr) {}
    /** \param outliers  receives the columns that hold a magnitude of \a threshold > 0 or more, and outlives this */
    Activations(const DeviceInt8Linear& ops, const ConstDenseView& x, float threshold, OutlierColumns* outliers)
        : m_context(ops.context),
          m_outliers(outliers),
          m_rows(x, threshold, outliers ? outliers->toWrite(ops.context) : OutlierMemory(), ops.context) {}

    /** Waits for the stream. */
    IndexVector outliers() const { return m_outliers ? m_outliers->toHost(m_context) : IndexVector(); }
    /** Uploads the columns. */
    void addOutliers(const IndexVector& columns) {
      if (columns.size() == 0) return;
      const auto added = DeviceMatrix<int>::fromHost(columns.cast<int>(), m_context);
      m_rows.addOutliers(added.data(), added.size());
    }
    void clearRows(const OutlierList& rows) { m_rows.clearRows(rows); }
    WeightView asWeight() const { return m_rows.asWeight(); }
    void multiply(const WeightView& w, const ConstDenseView& outlierWeights, const DenseView& y,
                  const Epilogue& epilogue) const {
      m_rows.multiply(w, outlierWeights, y, epilogue);
    }

   private:
    Context& m_context;
    OutlierColumns* m_outliers;
    QuantizedActivations m_rows;
  };
  Activations activations(const ConstDenseView& x, MatmulLtState& state) const {
    if (x.cols == 0 || !(state.threshold > 0 || state.usePool)) return {*this, x};
    state.outlierColumns.resize(x.cols, context);
    return {*this, x, state.threshold, &state.outlierColumns};
  }
  /** They are in the state already. */
  static void keepOutliers(const Activations&, const MatmulLtState&) {}

  void multiply(const QuantizedProduct& product) const { internal::multiply(product, context); }
};

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_GPU_DEVICEINT8LINEAR_H
