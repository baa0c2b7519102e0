// SPDX-License-Identifier: MPL-2.0
// Decoding pieces of W into panels, panel[k][kPanel], for the products of panel_kernels.h. Internal linkage; see simd.h
// for the reason.
//
//   rows      outputs are rows of W (X·Wᵀ): one panel of kRowsDepth codes of kPanel rows
//   columns   outputs are columns of W (X·W): kPanels panels of kColumnsDepth rows, since a load holds the codes of
//   that
//             many columns
//
// A panel is about as large as half a first-level cache. 4-bit codes whose rows begin at multiples of 32 are decoded by
// FourBitDecoder, all others by RowReader.
#ifndef EIGENQ_CPU_PANEL_FILL_H
#define EIGENQ_CPU_PANEL_FILL_H

#include "fourbit_simd.h"
#include "row_reader.h"
#include "row_stream.h"
#include "tasks.h"
#include "tile_kernel.h"

namespace EigenQ {
namespace internal {
namespace {

template <typename Isa, WeightFormat Format>
struct PanelFill {
  using Vec = typename Isa::Vec;
  using Reader = RowReader<Isa, Format>;
  using Decoder = typename FourBitDecoder<Isa>::Type;
  static constexpr bool kHasDecoder = Format == WeightFormat::kFourBit && !std::is_void_v<Decoder>;
  static constexpr int kLanes = Isa::kLanes, kPanel = TileKernel<Isa>::kPanel, kPanels = 4;
  static constexpr Index kRowsDepth = 4096 / kPanel;
  static constexpr Index kStreamed = 4096;          // codes of a row that streamRows() should take at once
  static constexpr Index kAhead = 32;               // rows that columns() prefetches
  static constexpr Index kSlab = kPanels * kPanel;  // outputs of columns()
  // One panel, of as many KiB as that of rows(), comes from the second-level cache to the first at a time. With 64
  // rows, all in the first, 128 rows of X take 2 % longer (NF4, AVX2), and 32 rows 4 % (int8).
  static constexpr Index kColumnsDepth = 16384 / kSlab;
  static constexpr Index kGroup = 32;  // codes that share an absmax wherever rows begin at multiples of it

  /** Whether rows of \a w begin at multiples of \a group codes, and blocks hold no fewer. */
  static bool beginsRowsAt(const WeightView& w, Index group) {
    return w.offset % group == 0 && w.stride % group == 0 && (Index(1) << w.blockShift) >= group;
  }

  /** out[c] = w(row, col + c) for c < cols; zero up to \a padded. */
  static void decodeRow(const WeightView& w, Index row, Index col, Index cols, Index padded, float* out) {
    Reader reader(w, row, col);
    Index c = 0;
    for (; c + kLanes <= cols; c += kLanes) Isa::store(out + c, reader.next());
    for (; c < cols; ++c) out[c] = w.coeff(row, col + c);
    for (; c < padded; ++c) out[c] = 0.0f;
  }

  // ---- rows -----------------------------------------------------------------------------------------------------

  /** panel[k][lane] = w(output + lane, depth + k), k < count; lanes behind the last row hold anything finite. */
  static void rows(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    Index done = 0;
    if constexpr (kHasDecoder) {
      if (beginsRowsAt(w, kGroup)) done = decodeRows(w, output, depth, count, panel);
    }
    if (done < count) transposeRows(w, output, depth + done, count - done, panel + done * kPanel);
  }

  /** As far as whole groups reach; returns how far that is. */
  static Index decodeRows(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    if constexpr (kHasDecoder) {
      const Index group = beginsRowsAt(w, 2 * kGroup) ? 2 * kGroup : kGroup;  // of one absmax
      const auto table = Decoder::loadTable(w.codeTable);
      const std::uint8_t* bytes[kPanel];
      Index flat[kPanel];
      for (int r = 0; r < kPanel; ++r) {
        flat[r] = w.offset + least(output + r, w.rows - 1) * w.stride + depth;
        bytes[r] = static_cast<const std::uint8_t*>(w.codes) + flat[r] / 2;
      }
      const Index end = count / kGroup * kGroup;
      float scales[kPanel];
      for (Index k = 0; k < end; k += kGroup) {
        if (k % group == 0) {
          for (int r = 0; r < kPanel; ++r) scales[r] = w.absmax((flat[r] + k) >> w.blockShift);
        }
        Decoder::fillRows(bytes, k / 2, table, scales, panel + k * kPanel);
      }
      return end;
    }
    return 0;
  }

  /** The same for any alignment and format: rows are decoded one by one, and transposed as floats. */
  static void transposeRows(const WeightView& w, Index output, Index depth, Index count, float* panel) {
    for (int group = 0; group < kPanel; group += kLanes) {
      const Index row = output + group, rows = least(kLanes, w.rows - row);
      float* column = panel + group;
      Reader readers[kLanes];
      for (int r = 0; r < rows; ++r) readers[r] = Reader(w, row + r, depth);
      Index k = 0;
      for (; k + kLanes <= count; k += kLanes, column += kLanes * kPanel) {
        Vec v[kLanes];
        for (int r = 0; r < kLanes; ++r) v[r] = r < rows ? readers[r].next() : Isa::zero();
        Isa::transpose(v);
        for (int c = 0; c < kLanes; ++c) Isa::store(column + c * kPanel, v[c]);
      }
      for (; k < count; ++k, column += kPanel) {
        for (int r = 0; r < kLanes; ++r) column[r] = r < rows ? w.coeff(row + r, depth + k) : 0.0f;
      }
    }
  }

  // ---- columns --------------------------------------------------------------------------------------------------

  /** Whether columns() leaves the kSlab outputs from \a output on in the order of Decoder::columnOf. */
  static bool permutesColumns(const WeightView& w, Index output) {
    return kHasDecoder && beginsRowsAt(w, kGroup) && output + kSlab <= w.cols;
  }

  /** panels[p][k][lane] = w(depth + k, output + p·kPanel + lane), k < count, but for the order of columns; panels are
   * kColumnsDepth·kPanel floats apart. */
  static void columns(const WeightView& w, Index output, Index depth, Index count, float* panels) {
    if constexpr (kHasDecoder) {
      if (permutesColumns(w, output)) return decodeColumns(w, output, depth, count, panels);
    }
    if (output + kSlab <= w.cols) return decodeWholeColumns(w, output, depth, count, panels);
    float row[kSlab];
    for (Index k = 0; k < count; ++k) {
      decodeRow(w, depth + k, output, least(kSlab, w.cols - output), kSlab, row);
      for (int p = 0; p < kPanels; ++p) {
        std::memcpy(panels + (p * kColumnsDepth + k) * kPanel, row + p * kPanel, kPanel * sizeof(float));
      }
    }
  }

  /** For any alignment and format. */
  static void decodeWholeColumns(const WeightView& w, Index output, Index depth, Index count, float* panels) {
    constexpr Index kBits = Format == WeightFormat::kFourBit ? 4 : 8;
    for (Index k = 0; k < count; ++k, panels += kPanel) {
      const Index ahead = least(depth + k + kAhead, w.rows - 1);
      __builtin_prefetch(static_cast<const std::uint8_t*>(w.codes) +
                         (w.offset + ahead * w.stride + output) * kBits / 8);
      Reader reader(w, depth + k, output);
      for (int p = 0; p < kPanels; ++p) {
        for (int lane = 0; lane < kPanel; lane += kLanes) {
          Isa::store(panels + p * kColumnsDepth * kPanel + lane, reader.next());
        }
      }
    }
  }

  static void decodeColumns(const WeightView& w, Index output, Index depth, Index count, float* panels) {
    if constexpr (kHasDecoder) {
      constexpr int kGroups = static_cast<int>(kSlab / kGroup);
      const auto table = Decoder::loadTable(w.codeTable);
      for (Index k = 0; k < count; ++k) {
        const Index flat = w.offset + (depth + k) * w.stride + output;
        __builtin_prefetch(static_cast<const std::uint8_t*>(w.codes) + (flat + kAhead * w.stride) / 2);
        if (w.absmax.plain) __builtin_prefetch(w.absmax.plain + ((flat + kAhead * w.stride) >> w.blockShift));
        float scales[kGroups];
        for (int g = 0; g < kGroups; ++g) scales[g] = w.absmax((flat + g * kGroup) >> w.blockShift);
        Decoder::fillColumns(static_cast<const std::uint8_t*>(w.codes) + flat / 2, table, scales, panels + k * kPanel,
                             kColumnsDepth * kPanel);
      }
    }
  }

  /** natural[r][kSlab] = acc[p][r][kPanel] with columns where they belong, \a rows rows; panels of acc are
   * \a panelStride floats apart. */
  static void restoreColumns(const float* acc, Index panelStride, Index rows, float* natural) {
    if constexpr (kHasDecoder) {
      for (Index r = 0; r < rows; ++r, natural += kSlab, acc += kPanel) {
        for (int p = 0; p < kPanels; ++p) {
          for (int lane = 0; lane < kPanel; ++lane) natural[Decoder::columnOf(p, lane)] = acc[p * panelStride + lane];
        }
      }
    }
  }
};

}  // namespace
}  // namespace internal
}  // namespace EigenQ

#endif  // EIGENQ_CPU_PANEL_FILL_H
