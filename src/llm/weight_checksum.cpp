// SPDX-License-Identifier: MPL-2.0
// weight_checksum.cpp: by what a frozen weight is known again.
#include <algorithm>
#include <cstring>

#include <unsupported/eigen_q/src/llm/Weight.h>

namespace EigenQ {
namespace llm {
namespace internal {
namespace {

constexpr Index kSamples = 1024;  // of a list, whatever its length: models are told apart by hundreds of lists

template <typename T>
std::uint64_t bitsOf(const T& value) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

/** Every \a size/kSamples-th of the values, about; an odd step, so that it meets all rows of a matrix of 2ⁿ. */
template <typename At>
std::uint64_t sampled(std::uint64_t hash, Index size, const At& at) {
  const Index step = (size / kSamples) | 1;
  hash = mixed(hash, static_cast<std::uint64_t>(size));
  for (Index i = 0; i < size; i += step) hash = mixed(hash, bitsOf(at(i)));
  return hash;
}

template <typename Plain>
std::uint64_t sampled(std::uint64_t hash, const Plain& plain) {
  return sampled(hash, plain.size(), [&plain](Index i) { return plain.data()[i]; });
}

std::uint64_t checksum(const Eigen::MatrixXf& w) { return checksumOfDense(w); }
std::uint64_t checksum(const Int8Matrix& w) { return sampled(sampled(kNoChecksum, w.rowAbsmax()), w.codes()); }
std::uint64_t checksum(const LlmInt8Weight<Int8Matrix>& w) { return checksum(w.codes); }
template <FourBitType kType>
std::uint64_t checksum(const FourBitMatrix<kType>& w) {
  const std::uint64_t hash = sampled(kNoChecksum, w.packed());
  if (!w.state().isNested()) return sampled(hash, w.state().absmax());
  const NestedAbsmax& nested = w.state().nestedAbsmax();
  return mixed(sampled(sampled(hash, nested.codes), nested.absmax), bitsOf(nested.offset));
}

}  // namespace

std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (value >> (8 * byte) & 0xFF)) * 0x100000001B3u;
  return hash;
}

std::uint64_t checksumOfDense(const Eigen::Ref<const Eigen::MatrixXf>& w) {
  const Index rows = std::max<Index>(1, w.rows());
  return sampled(mixed(kNoChecksum, static_cast<std::uint64_t>(rows)), w.size(),
                 [&](Index i) { return w(i % rows, i / rows); });
}

std::uint64_t checksumOf(const HostWeight& w) {
  return std::visit([](const auto& one) { return checksum(one); }, w);
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
