// SPDX-License-Identifier: MPL-2.0
// decoder.cpp: which decoders run as one kernel, and what that kernel keeps.
#include "decoder.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <iterator>
#include <string>

#include <eigen_q/src/gpu/DeviceMemory.h>

#include "../lowering_log.h"
#include "alignment.h"
#include "context_state.h"
#include "fourbit_operands.h"

namespace EigenQ {
namespace gpu {
namespace internal {
namespace {

/** A way to run blocks, as logChoice() wants it: asked with the reason that was found. */
struct Way {
  const char* name;
  const char* (*refuse)(const char* const& refusal);
};
constexpr Way kWays[] = {{"decoder.sm90", [](const char* const& refusal) { return refusal; }},
                         {"op by op", [](const char* const&) -> const char* { return nullptr; }}};

/** "cuda: 16 blocks of 2048/8192, 32/8 heads of 64, 1 sequence (bfloat16)" */
std::string describe(const Decoder& d) {
  return "cuda: " + std::to_string(d.blocks.size()) + " blocks of " + std::to_string(d.hidden) + "/" +
         std::to_string(d.ffn) + ", " + std::to_string(d.heads) + "/" + std::to_string(d.kvHeads) + " heads of " +
         std::to_string(d.headDim) + ", " + std::to_string(d.sequences) +
         (d.sequences == 1 ? " sequence (" : " sequences (") + EigenQ::internal::nameOf(d.scalar) + ")";
}

}  // namespace

void logDecoder(const Decoder& d, const char* refusal) {
  if (!EigenQ::internal::logsLowerings()) return;
  const EigenQ::internal::LoweringTable<Way> ways = {std::begin(kWays), std::end(kWays)};
  EigenQ::internal::logChoice(describe(d), ways, EigenQ::internal::firstWilling(ways, refusal), refusal);
}

#ifdef EIGENQ_HAVE_SM90A
namespace {

using namespace decoder;
using EigenQ::internal::AbsmaxView;
using EigenQ::internal::WeightFormat;

constexpr Index kMostDepth = 28672, kMostBlocks = 128;
constexpr std::size_t kLevels = 16, kByteLevels = 256;

template <std::size_t kCount>
std::array<float, kCount> read(const float* device, Context& context) {
  std::array<float, kCount> values;
  download(values.data(), device, sizeof(values), context);
  return values;
}

struct Size {
  Index rows, cols;
};

/** Of the matrices of a block. */
std::array<Size, kDecoderMatrices> sizesOf(const Decoder& d) {
  const Index queries = d.heads * d.headDim, keys = d.kvHeads * d.headDim;
  return {{{queries, d.hidden},
           {keys, d.hidden},
           {keys, d.hidden},
           {d.hidden, queries},
           {d.ffn, d.hidden},
           {d.ffn, d.hidden},
           {d.hidden, d.ffn}}};
}

const char* refuseWeight(const WeightView& w, const WeightView& first) {
  if (w.format != WeightFormat::kFourBit) return "a weight is not in 4 bits";
  if (Index{1} << w.blockShift != 64) return "blocks of other than 64";
  const AbsmaxView &a = w.absmax, &b = first.absmax;
  if ((a.plain == nullptr) != (b.plain == nullptr) || a.nestedBlockShift != b.nestedBlockShift)
    return "absmax is nested in some weights only, or in other blocks";
  if (!a.plain && (a.nestedBlockShift < 8 || !a.offsetAt)) return "nested absmax in blocks of less than 256";
  if (w.offset != 0 || w.stride != w.cols) return "a weight is part of another matrix";
  for (const void* part : {w.codes, static_cast<const void*>(a.plain), static_cast<const void*>(a.codes),
                           static_cast<const void*>(a.absmax2)})
    if (!isAligned(part, 16)) return "codes or absmax are not aligned to 16 bytes";
  return nullptr;
}

/** There is one pair table, and one table of nested absmax, for all weights. */
bool haveOneTable(const Decoder& d, Context& context) {
  const WeightView& first = d.blocks[0].weights[0];
  const bool nested = !first.absmax.plain;
  const auto levels = read<kLevels>(first.codeTable, context);
  const auto byteLevels =
      nested ? read<kByteLevels>(first.absmax.codeTable, context) : std::array<float, kByteLevels>();
  for (const DecoderBlock& block : d.blocks)
    for (const WeightView& w : block.weights) {
      if (read<kLevels>(w.codeTable, context) != levels) return false;
      if (nested && read<kByteLevels>(w.absmax.codeTable, context) != byteLevels) return false;
    }
  return true;
}

/** Sizes that kernels of tiles of 16 rows and stages of whole lines can take. */
const char* refuseSizes(const Decoder& d) {
  if (d.headDim != 64 && d.headDim != 128) return "heads of other than 64 or 128";
  if (d.kvHeads <= 0 || d.heads % d.kvHeads != 0) return "heads are no multiple of the heads of keys";
  if (d.sequences < 1 || d.sequences > kMostTokens) return "no sequence, or more than 2";
  if (d.hidden > kMostHidden) return "hidden states of more than 8192 values";
  if (d.capacity * d.sequences * d.kvHeads * d.headDim > Index{1} << 40) return "a cache of more than 2^40 values";
  if (Index(d.blocks.size()) > kMostBlocks || d.blocks.empty()) return "no block, or more than 128";
  const Index multiple = d.blocks[0].weights[0].absmax.plain ? 256 : 1024;
  for (const Size& size : sizesOf(d)) {
    if (size.rows % 16 != 0) return "rows of a weight are no multiple of 16";
    if (size.cols % multiple != 0)
      return "rows of W do not end at multiples of 256 codes, or 1024 where absmax is nested";
    if (size.cols * d.sequences > kMostDepth) return "X of more than 28672 values";
    if (size.rows * size.cols > Index{1} << 36) return "a weight of more than 2^36 values";
  }
  return nullptr;
}

Problem problemOf(const Decoder& d) {
  Problem p{};
  const WeightView& first = d.blocks[0].weights[0];
  p.codeTable = first.codeTable;
  p.nestedTable = first.absmax.codeTable;
  p.nestedShift = first.absmax.nestedBlockShift;
  p.cos = d.cos;
  p.sin = d.sin;
  p.blockCount = static_cast<int>(d.blocks.size());
  p.tokens = static_cast<int>(d.sequences);
  p.hidden = static_cast<int>(d.hidden);
  p.ffn = static_cast<int>(d.ffn);
  p.queries = static_cast<int>(d.heads * d.headDim);
  p.keys = static_cast<int>(d.kvHeads * d.headDim);
  p.heads = static_cast<int>(d.heads);
  p.kvHeads = static_cast<int>(d.kvHeads);
  p.headDim = static_cast<int>(d.headDim);
  p.capacity = static_cast<int>(d.capacity);
  p.maxPositions = static_cast<int>(d.maxPositions);
  p.eps = static_cast<float>(d.eps);
  p.adjacent = d.adjacent;
  const int depth = std::max({p.hidden, p.queries, p.ffn});
  p.xBytes = static_cast<int>(roundUp(std::max(p.tokens * (2 * depth + 16), attentionBytes(p.headDim)), 16));
  return p;
}

BlockData dataOf(const DecoderBlock& block) {
  BlockData data{};
  data.gains[0] = block.attentionGain.data;
  data.gains[1] = block.ffnGain.data;
  for (int m = 0; m < kDecoderMatrices; ++m) {
    data.biases[m] = block.biases[m].data;
    data.absmax2[m] = block.weights[m].absmax.absmax2;
  }
  data.keys = block.keys.data;
  data.values = block.values.data;
  data.window = static_cast<int>(block.window);
  return data;
}

}  // namespace

struct DecoderKernel::State {
  Problem problem;
  ScalarType scalar;
  bool nested;
  std::vector<std::unique_ptr<MemoryBlock>> memory;

  void* allocate(Index bytes, Context& context) {
    memory.push_back(std::make_unique<MemoryBlock>(static_cast<std::size_t>(bytes), context));
    fillZero(memory.back()->data(), static_cast<std::size_t>(bytes), context);
    return memory.back()->data();
  }
  std::uint32_t* words(Index values, Context& context) {
    return static_cast<std::uint32_t*>(allocate(values * problem.tokens * Index(sizeof(std::uint32_t)), context));
  }
  template <typename T>
  const T* keep(const std::vector<T>& values, Context& context) {
    const auto bytes = static_cast<Index>(values.size() * sizeof(T));
    void* const device = allocate(bytes, context);
    upload(device, values.data(), static_cast<std::size_t>(bytes), context);
    return static_cast<const T*>(device);
  }
};

const char* refuseDecoder(const Decoder& d, Context& context) {
  if (const char* why = refuseAllButHopper(context)) return why;
  if (d.scalar != ScalarType::kHalf && d.scalar != ScalarType::kBFloat16)
    return "activations are neither half nor bfloat16";
  if (const char* why = refuseSizes(d)) return why;
  for (const DecoderBlock& block : d.blocks) {
    if (!isAligned(block.attentionGain.data, 16) || !isAligned(block.ffnGain.data, 16))
      return "a gain is not aligned to 16 bytes";
    for (const WeightView& w : block.weights)
      if (const char* why = refuseWeight(w, d.blocks[0].weights[0])) return why;
  }
  if (!fits(d.scalar, !d.blocks[0].weights[0].absmax.plain, context))
    return "a multiprocessor has no room for a block of the kernel";
  return haveOneTable(d, context) ? nullptr : "weights differ in their tables";
}

DecoderKernel::DecoderKernel(const Decoder& d, Context& context) : m_state(std::make_unique<State>()) {
  State& s = *m_state;
  s.problem = problemOf(d);
  s.scalar = d.scalar;
  s.nested = !d.blocks[0].weights[0].absmax.plain;
  Problem& p = s.problem;
  std::vector<BlockMaps> maps;
  std::vector<BlockData> data;
  std::vector<const float*> offsets;
  for (const DecoderBlock& block : d.blocks) {
    maps.push_back(decoder::mapsOf(block));
    data.push_back(dataOf(block));
    for (const WeightView& w : block.weights) offsets.push_back(w.absmax.offsetAt);
  }
  p.maps = s.keep(maps, context);
  p.blocks = s.keep(data, context);
  p.offsets = s.keep(offsets, context);
  p.words = {s.words(p.hidden, context),
             s.words(p.hidden, context),
             s.words(p.queries + 2 * p.keys, context),
             s.words(p.queries, context),
             s.words(p.ffn, context),
             static_cast<std::uint64_t*>(s.allocate(
                 Index{kMostSplits} * p.tokens * p.heads * (p.headDim + 2) * Index(sizeof(std::uint64_t)), context))};
}

DecoderKernel::~DecoderKernel() = default;

void DecoderKernel::run(const DecoderStep& step, Context& context) {
  decoder::launch(m_state->problem, step, m_state->scalar, m_state->nested, context);
}

#else

struct DecoderKernel::State {};
const char* refuseDecoder(const Decoder&, Context&) { return "this build has no code for sm_90a"; }
DecoderKernel::DecoderKernel(const Decoder&, Context&) { assert(false && "refused everything"); }
DecoderKernel::~DecoderKernel() = default;
void DecoderKernel::run(const DecoderStep&, Context&) { assert(false && "refused everything"); }

#endif

}  // namespace internal
}  // namespace gpu
}  // namespace EigenQ
