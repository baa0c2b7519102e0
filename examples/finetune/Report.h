// SPDX-License-Identifier: MPL-2.0
// What the job prints, and the checksum that proves the base model frozen.
#ifndef EIGENQ_FINETUNE_REPORT_H
#define EIGENQ_FINETUNE_REPORT_H

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <iomanip>
#include <ostream>
#include <string>
#include <vector>

#include "Model.h"

namespace finetune {

/** One line of the comparison. */
struct Variant {
  std::string name;
  Index weights = 0;
  Index bytes = 0;
  double perplexity = 0;
};

/** Counts and bytes of the projections and the head; embedding and norms stay float in every variant. */
template <typename Place>
Variant measure(const std::string& name, Model<Place>& model, double perplexity) {
  Variant v{name, 0, 0, perplexity};
  model.forEachLinear([&v](const Linear<Place>& linear) {
    v.weights += linear.rows() * linear.cols();
    v.bytes += linear.weightBytes();
  });
  return v;
}

/** The first variant is what the others are compared with. */
inline void printTable(std::ostream& out, const std::vector<Variant>& variants) {
  out << "variant        bytes   bits/weight   perplexity   change\n" << std::fixed;
  for (const Variant& v : variants) {
    const double change = 100 * (v.perplexity / variants.front().perplexity - 1);
    out << std::left << std::setw(10) << v.name << std::right << std::setw(10) << v.bytes << std::setw(14)
        << std::setprecision(2) << 8 * static_cast<double>(v.bytes) / static_cast<double>(v.weights) << std::setw(13)
        << std::setprecision(4) << v.perplexity << std::setw(7) << std::setprecision(2) << std::showpos << change
        << std::noshowpos << " %\n";
  }
  out << std::defaultfloat;
}

/** FNV-1a over bytes, 64 bits. Source: draft-eastlake-fnv. */
class Checksum {
 public:
  template <typename Derived>
  void add(const Eigen::PlainObjectBase<Derived>& stored) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(stored.data());
    const auto size = static_cast<std::size_t>(stored.size()) * sizeof(typename Derived::Scalar);
    for (std::size_t i = 0; i < size; ++i) m_hash = (m_hash ^ bytes[i]) * 0x100000001b3u;
  }
  std::uint64_t value() const { return m_hash; }

 private:
  std::uint64_t m_hash = 0xcbf29ce484222325u;
};

/** Of everything that fine-tuning must not touch: codes, statistics and tables of the quantised weights, embedding and
 * norms, from where they are. Throws std::bad_variant_access where a weight is not NF4. */
template <typename Place>
std::uint64_t frozenChecksum(Model<Place>& model) {
  Checksum sum;
  using Traits = PlaceTraits<Place>;
  model.forEachParameter([&sum](const Parameter<Place>& p) {
    if (!p.requiresGrad()) sum.add(Traits::toHost(p.value()));
  });
  model.forEachLinear([&sum](const Linear<Place>& linear) {
    const EigenQ::NF4Matrix& w = Traits::toHost(std::get<NF4Matrix<Place>>(linear.weight));
    sum.add(w.packed());
    sum.add(w.state().codeTable());
    sum.add(w.state().absmax());
    const EigenQ::NestedAbsmax& nested = w.state().nestedAbsmax();
    sum.add(nested.codes);
    sum.add(nested.absmax);
    sum.add(nested.codeTable);
    sum.add(Eigen::VectorXf(Eigen::VectorXf::Constant(1, nested.offset)));
  });
  return sum.value();
}

/** Generated text between two lines; bytes that a terminal would obey or misread are shown as dots. */
inline void printSample(std::ostream& out, const std::string& title, const std::string& text) {
  out << "\n-- sample, " << title << "\n";
  for (const char c : text) out << (c == '\n' || c == '\t' || std::isprint(static_cast<unsigned char>(c)) ? c : '.');
  out << "\n--\n";
}

}  // namespace finetune

#endif  // EIGENQ_FINETUNE_REPORT_H
