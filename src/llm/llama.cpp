// SPDX-License-Identifier: MPL-2.0
// llama.cpp: the decoder on the host, compiled once for all who use it.
#include <unsupported/eigen_q/src/llm/Generator.h>

namespace EigenQ {
namespace llm {

template class DenseWeight<float, ad::Host>;
template class Linear<float, ad::Host>;
template class Llama<float, ad::Host>;
template ad::Var<float> Llama<float, ad::Host>::features(ad::Tape<float>&, const Eigen::VectorXi&, KvCache<float>&,
                                                         const ad::CachedTokens<>&);
template class Generator<Llama<float, ad::Host>>;

}  // namespace llm
}  // namespace EigenQ
