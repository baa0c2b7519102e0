// SPDX-License-Identifier: MPL-2.0
// Quantised weights as bitsandbytes stores them, bit for bit. Keys and shapes: doc/formats.md#checkpoints.
#ifndef EIGENQ_IO_BITSANDBYTES_H
#define EIGENQ_IO_BITSANDBYTES_H

#include <string>

#include "../FourBitMatrix.h"
#include "../Int8Matrix.h"
#include "Checkpoint.h"
#include "SafetensorsWriter.h"

namespace EigenQ {
namespace io {

/** How a weight is stored. */
enum class StoredAs { kDense, kNF4, kFP4, kInt8 };

/** How the weight of that name, "model.layers.0.mlp.up_proj.weight" for example, is stored.
 * Throws FormatError where it is missing or has more than one quant_state. */
StoredAs storedAs(const Checkpoint& checkpoint, const std::string& weight);

/** Reads a 4-bit weight: its packed codes, stored as U8, F16, BF16 or F32 (bitsandbytes' quant_storage: the same bytes
 * under another name), and the tensors "WEIGHT.absmax", "WEIGHT.quant_map" and so on, plain or nested.
 * Throws FormatError where one is missing, unknown, of another type or does not fit the rest, or where the codes are of
 * the other 4-bit type. */
NF4Matrix readNF4(const Checkpoint& checkpoint, const std::string& weight);
FP4Matrix readFP4(const Checkpoint& checkpoint, const std::string& weight);

/** Reads an 8-bit weight: codes "P.weight", row absmax "P.SCB" and, where it is present, the order of the codes
 * "P.weight_format". Tiled orders (bitsandbytes before 0.46) become row-major and lose their padding.
 * \param cols  columns of the matrix; -1: those that are stored, which in a tiled order include the padding
 * Throws FormatError where a tensor is missing, of another type or does not fit. */
Int8Matrix readInt8(const Checkpoint& checkpoint, const std::string& weight, Index cols = -1);

/** Adds a 4-bit weight under the keys that bitsandbytes reads. The matrix must live until the file is written. */
template <FourBitType kType>
void addFourBit(SafetensorsWriter& writer, const std::string& weight, const FourBitMatrix<kType>& w);
template <FourBitType kType>
void addFourBit(SafetensorsWriter&, const std::string&, const FourBitMatrix<kType>&&) = delete;  // would dangle

/** Adds an 8-bit weight, row-major, under the keys that bitsandbytes reads; the name must end in "weight". The matrix
 * must live until the file is written. */
void addInt8(SafetensorsWriter& writer, const std::string& weight, const Int8Matrix& w);
void addInt8(SafetensorsWriter&, const std::string&, const Int8Matrix&&) = delete;  // would dangle

extern template void addFourBit(SafetensorsWriter&, const std::string&, const NF4Matrix&);
extern template void addFourBit(SafetensorsWriter&, const std::string&, const FP4Matrix&);

}  // namespace io
}  // namespace EigenQ

#endif  // EIGENQ_IO_BITSANDBYTES_H
