// SPDX-License-Identifier: MPL-2.0
// The way of a block of int8_gemm_sm90.cu through Y, which its copying thread, its packers and its consumers all go.
#ifndef EIGENQ_CUDA_INT8_WGMMA_WALK_CUH
#define EIGENQ_CUDA_INT8_WGMMA_WALK_CUH

#include "int8_wgmma_part.cuh"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace wgmma {

constexpr int kRasterP = 16;  // tiles in a column of the raster: 16·128 by 8·256 is nearly a square of 132 tiles

/** A tile, counted in tiles. */
struct TileAt {
  Index p;
  Index q;
};

/** The tiles that a block works on, one after another: in columns of kRasterP tiles, one column after the other. */
class Walk {
 public:
  __device__ __forceinline__ explicit Walk(const WgmmaArgs& a)
      : m_blocks(a.blocks),
        m_rank(a.blocks > 1 ? ptx::clusterRank() : 0),
        m_at(blockIdx.x / static_cast<unsigned>(a.blocks)),
        m_step(gridDim.x / static_cast<unsigned>(a.blocks)),
        m_heights(a.heights),
        m_widths(a.tilesQ) {}

  __device__ __forceinline__ int rank() const { return m_rank; }
  __device__ __forceinline__ bool done() const { return m_at >= m_heights * m_widths; }
  __device__ __forceinline__ void advance() { m_at += m_step; }
  __device__ __forceinline__ TileAt tile() const {
    const Index raster = kRasterP / m_blocks, group = raster * m_widths, first = m_at / group * raster;
    const Index within = m_at % group, height = m_heights - first < raster ? m_heights - first : raster;
    return {(first + within % height) * m_blocks + m_rank, within / height};
  }

 private:
  int m_blocks, m_rank;
  Index m_at, m_step, m_heights, m_widths;  // counted in clusters
};

}  // namespace wgmma
}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ

#endif  // EIGENQ_CUDA_INT8_WGMMA_WALK_CUH
