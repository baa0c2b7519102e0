// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_QUANTSTATE_H
#define EIGENQ_QUANTSTATE_H

#include <string>
#include <utility>
#include <vector>

#include <Eigen/Core>

#include "DynamicMap.h"
#include "Errors.h"
#include "FourBitCodec.h"
#include "PackedState.h"
#include "ScalarConvert.h"
#include "Views.h"

namespace EigenQ {

using ByteVector = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, 1>;

/** An absmax that is itself quantised (QLoRA's double quantisation):
 * absmax(b) = r32(r32(codeTable[codes(b)]·absmax(b / blockSize)) + offset). */
struct NestedAbsmax {
  ByteVector codes;           // one for each block of weights
  Eigen::VectorXf absmax;     // one for blockSize codes
  Eigen::VectorXf codeTable;  // 256 levels
  Index blockSize = 256;
  float offset = 0;  // mean of the absmax before quantisation, in their unit
};

/** The tensors that a checkpoint stores beside the packed dictionary, named after their key suffixes.
 * absmax for a plain state; absmaxCodes, nestedAbsmax and nestedQuantMap for a nested one. */
struct QuantStateTensors {
  Eigen::VectorXf absmax;
  ByteVector absmaxCodes;  // stored under "absmax" too
  Eigen::VectorXf quantMap;
  Eigen::VectorXf nestedAbsmax;
  Eigen::VectorXf nestedQuantMap;
};

/** All that decoding 4-bit codes needs: the absmax of each block, plain or nested, the block size, the code table, the
 * shape and the scalar type of the values that were quantised. Always valid: constructors check what they are given.
 * Source: bitsandbytes' QuantState. Bytes: doc/formats.md#quantstate. */
class QuantState {
 public:
  /** An empty 0×0 NF4 matrix. */
  QuantState() : QuantState(FourBitType::kNF4, 64, ScalarType::kFloat, {0, 0}, Eigen::VectorXf()) {}

  /** \param shape      of the quantised tensor, any rank; flattened row-major into blocks
   *  \param absmax     one value a block, in the unit of the tensor; ⌈size/blockSize⌉ values, none negative or NaN
   *  \param codeTable  16 finite levels; empty for the type's own
   *  \param where      what FormatError names: the file or structure that the parts come from */
  QuantState(FourBitType type, Index blockSize, ScalarType dtype, std::vector<Index> shape, Eigen::VectorXf absmax,
             Eigen::VectorXf codeTable = {}, const std::string& where = "QuantState")
      : m_type(type),
        m_blockSize(blockSize),
        m_dtype(dtype),
        m_shape(std::move(shape)),
        m_absmax(std::move(absmax)),
        m_codeTable(tableOr(std::move(codeTable), type)) {
    checkCommon(where);
    checkCount(where, "absmax", m_absmax.size(), blocks(), "blocks of " + std::to_string(m_blockSize));
    checkNonNegative(where, "absmax", m_absmax);
  }

  /** As above, with a nested absmax: ⌈blocks/nested.blockSize⌉ second-level values, 256 finite levels. */
  QuantState(FourBitType type, Index blockSize, ScalarType dtype, std::vector<Index> shape, NestedAbsmax nested,
             Eigen::VectorXf codeTable = {}, const std::string& where = "QuantState")
      : m_type(type),
        m_blockSize(blockSize),
        m_dtype(dtype),
        m_shape(std::move(shape)),
        m_nested(true),
        m_nestedAbsmax(std::move(nested)),
        m_codeTable(tableOr(std::move(codeTable), type)) {
    checkCommon(where);
    checkNested(where);
  }

  FourBitType type() const { return m_type; }
  Index blockSize() const { return m_blockSize; }
  ScalarType dtype() const { return m_dtype; }
  const std::vector<Index>& shape() const { return m_shape; }
  /** The level of each code in units of absmax. Code 8 of FP4 is -0, whatever zero was stored. */
  const Eigen::VectorXf& codeTable() const { return m_codeTable; }
  /** The table as bitsandbytes stores it, under "quant_map": code 8 of FP4 is +0. */
  Eigen::VectorXf quantMap() const {
    Eigen::VectorXf map = m_codeTable;
    if (map[8] == 0) map[8] = 0.0f;
    return map;
  }
  bool isNested() const { return m_nested; }

  /** Values quantised: the product of shape(). */
  Index size() const {
    Index n = 1;
    for (const Index extent : m_shape) n *= extent;
    return n;
  }
  Index blocks() const { return internal::blockCount(size(), m_blockSize); }

  /** The absmax of a plain state; empty when nested. */
  const Eigen::VectorXf& absmax() const { return m_absmax; }
  /** The absmax of a nested state; empty when plain. */
  const NestedAbsmax& nestedAbsmax() const { return m_nestedAbsmax; }

  /** One absmax a block, decoded if nested. */
  Eigen::VectorXf decodedAbsmax() const {
    const internal::AbsmaxView view = absmaxView();
    return Eigen::VectorXf::NullaryExpr(blocks(), [&view](Eigen::Index block) { return view(block); });
  }

  /** For kernels; valid while this state lives and is not assigned to. */
  internal::AbsmaxView absmaxView() const {
    internal::AbsmaxView view;
    if (m_nested) {
      view.codes = m_nestedAbsmax.codes.data();
      view.codeTable = m_nestedAbsmax.codeTable.data();
      view.absmax2 = m_nestedAbsmax.absmax.data();
      view.nestedBlockShift = internal::blockShift(m_nestedAbsmax.blockSize);
      view.offset = m_nestedAbsmax.offset;
    } else {
      view.plain = m_absmax.data();
    }
    return view;
  }

  /** Bytes that absmax takes, second level, table and offset included. */
  Index absmaxBytes() const {
    if (!m_nested) return m_absmax.size() * Index(sizeof(float));
    return m_nestedAbsmax.codes.size() +
           (m_nestedAbsmax.absmax.size() + m_nestedAbsmax.codeTable.size() + 1) * Index(sizeof(float));
  }

  /** The key under which checkpoints store the packed dictionary, after "weight.". */
  std::string packedKey() const { return std::string("quant_state.bitsandbytes__") + internal::fourBitName(m_type); }

  /** The packed dictionary, byte for byte as bitsandbytes writes it. */
  std::string toPackedJson() const {
    internal::PackedState packed{m_type, m_blockSize, m_dtype, m_shape, {}};
    if (m_nested) packed.nested = internal::PackedNested{m_nestedAbsmax.blockSize, m_nestedAbsmax.offset};
    return internal::writePackedState(packed);
  }

  /** Reads the packed dictionary and takes the tensors stored beside it.
   * Throws FormatError where the text is not such a dictionary or a tensor does not fit it.
   * \param where  names the source in errors, for example "model.safetensors: layers.0.weight" */
  static QuantState fromPackedJson(const std::string& json, QuantStateTensors tensors,
                                   const std::string& where = "QuantState") {
    internal::PackedState packed = internal::parsePackedState(json, where);
    if (tensors.quantMap.size() == 0) throw FormatError(where, "quant_map", "missing");
    if (!packed.nested) {
      return QuantState(packed.type, packed.blockSize, packed.dtype, std::move(packed.shape), std::move(tensors.absmax),
                        std::move(tensors.quantMap), where);
    }
    NestedAbsmax nested{std::move(tensors.absmaxCodes), std::move(tensors.nestedAbsmax),
                        std::move(tensors.nestedQuantMap), packed.nested->blockSize, packed.nested->offset};
    return QuantState(packed.type, packed.blockSize, packed.dtype, std::move(packed.shape), std::move(nested),
                      std::move(tensors.quantMap), where);
  }

 private:
  static Eigen::VectorXf tableOr(Eigen::VectorXf table, FourBitType type) {
    if (table.size() != 0) return table;
    return Eigen::Map<const Eigen::VectorXf>(internal::fourBitTable(type), internal::kFourBitLevels);
  }

  static void checkCount(const std::string& where, const char* key, Index found, Index expected,
                         const std::string& of) {
    if (found == expected) return;
    throw FormatError(where, key,
                      "expected " + std::to_string(expected) + " " + of + ", found " + std::to_string(found));
  }

  static void checkBlockSize(const std::string& where, const char* key, Index blockSize) {
    if (internal::isBlockSize(blockSize)) return;
    throw FormatError(where, key, "expected a power of two from 32 to 4096, found " + std::to_string(blockSize));
  }

  // By bits: comparisons of floats that may be NaN vanish under the -ffast-math of whoever includes this.
  static void checkFinite(const std::string& where, const char* key, const Eigen::VectorXf& v) {
    for (Index i = 0; i < v.size(); ++i)
      if (!internal::isFinite(v[i])) throw FormatError(where, key, "entry " + std::to_string(i) + " is not finite");
  }

  static void checkNonNegative(const std::string& where, const char* key, const Eigen::VectorXf& v) {
    constexpr std::uint32_t minusZero = internal::kFloatSign;
    for (Index i = 0; i < v.size(); ++i) {
      const std::uint32_t bits = internal::bitsOf(v[i]);
      if (bits > internal::kFloatInfinity && bits != minusZero)
        throw FormatError(where, key, "entry " + std::to_string(i) + " is negative or NaN");
    }
  }

  void checkCommon(const std::string& where) {
    checkBlockSize(where, "blocksize", m_blockSize);
    internal::checkedSize(m_shape, where);
    checkCount(where, "quant_map", m_codeTable.size(), internal::kFourBitLevels, "levels");
    checkFinite(where, "quant_map", m_codeTable);
    if (m_type == FourBitType::kFP4 && m_codeTable[8] == 0) m_codeTable[8] = -0.0f;
  }

  void checkNested(const std::string& where) const {
    const NestedAbsmax& n = m_nestedAbsmax;
    checkBlockSize(where, "nested_blocksize", n.blockSize);
    checkCount(where, "absmax", n.codes.size(), blocks(), "codes for blocks of " + std::to_string(m_blockSize));
    checkCount(where, "nested_absmax", n.absmax.size(), internal::blockCount(blocks(), n.blockSize),
               "blocks of " + std::to_string(n.blockSize));
    checkCount(where, "nested_quant_map", n.codeTable.size(), internal::kByteLevels, "levels");
    checkNonNegative(where, "nested_absmax", n.absmax);
    checkFinite(where, "nested_quant_map", n.codeTable);
    if (!internal::isFinite(n.offset)) throw FormatError(where, "nested_offset", "not finite");
  }

  FourBitType m_type;
  Index m_blockSize;
  ScalarType m_dtype;
  std::vector<Index> m_shape;
  Eigen::VectorXf m_absmax;
  bool m_nested = false;
  NestedAbsmax m_nestedAbsmax;
  Eigen::VectorXf m_codeTable;
};

}  // namespace EigenQ

#endif  // EIGENQ_QUANTSTATE_H
