// SPDX-License-Identifier: MPL-2.0
#define BOOST_TEST_MODULE SteadyState

// Counts what is asked of the heap from two sides: operator new, and Eigen's own allocations, which go to malloc and
// which Eigen reports by a failed assertion when they are forbidden.
namespace {
long failedAssertions = 0;
}
#define EIGEN_RUNTIME_NO_MALLOC
#define eigen_assert(condition) ((condition) ? static_cast<void>(0) : static_cast<void>(++failedAssertions))

#include "TinyDecoder.h"

#include <boost/mpl/list.hpp>

#include <cstdlib>
#include <new>

namespace {
long newCalls = 0;

void* counted(std::size_t size, std::size_t alignment) {
  ++newCalls;
  void* p = nullptr;
  if (posix_memalign(&p, std::max(alignment, sizeof(void*)), size) != 0) throw std::bad_alloc();
  return p;
}

// Out of line, for g++ warns of a free() that it sees behind an operator new.
EIGEN_DONT_INLINE void release(void* p) { std::free(p); }
}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) { return counted(size, std::size_t(alignment)); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return counted(size, std::size_t(alignment)); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }

using namespace EigenQ;
using namespace EigenQ::ad;
using EigenQ::test::integers;
using EigenQ::test::randomMatrix;
using EigenQ::test::TinyDecoder;

namespace {

const Eigen::VectorXi kIds = integers({1, 2, 3, 4, 5, 9, 10, 0}), kTargets = integers({2, 3, 4, 5, -100, 10, 0, -100});

using DenseDecoder = TinyDecoder<float, Parameter<float>>;

template <typename Frozen>
TinyDecoder<float, Frozen> decoder() {
  return TinyDecoder<float, Frozen>(Frozen(randomMatrix<float>(12, 8, 20)), Frozen(randomMatrix<float>(8, 12, 21)));
}

/** A model whose loss is one checkpoint, and one in which that is another's. */
template <typename Frozen>
struct Checkpointed : TinyDecoder<float, Frozen> {
  using Base = TinyDecoder<float, Frozen>;

  explicit Checkpointed(Base model) : Base(std::move(model)) {}

  Var<float> loss(Tape<float>& tape, const Eigen::VectorXi& ids, const Eigen::VectorXi& targets) {
    const auto plain = [&, this](Tape<float>& t) { return Base::loss(t, ids, targets); };
    return checkpoint(tape, [plain](Tape<float>& t) { return checkpoint(t, plain) + checkpoint(t, plain); });
  }
};

/** The logits of three tokens at a time. */
struct Head {
  std::vector<Parameter<float>*> parameters() { return {&embeddings, &head}; }
  Var<float> loss(Tape<float>& tape, const Eigen::VectorXi& ids, const Eigen::VectorXi& targets) {
    return linearCrossEntropy(head, embedding(tape, embeddings, ids), targets, -100, Reduction::Mean, /*chunk=*/3);
  }

  Parameter<float> embeddings{randomMatrix<float>(8, 11, 1)}, head{randomMatrix<float>(11, 8, 2)};
};

template <typename Model>
float trainingStep(Tape<float>& tape, Model& model, Optimizer<float>& optimizer) {
  tape.clear();
  optimizer.zeroGrad();
  const Var<float> loss = model.loss(tape, kIds, kTargets);
  tape.backward(loss);
  clipGradNorm(optimizer.parameters(), 1);
  optimizer.step();
  return loss.item();
}

using Weights = boost::mpl::list<Parameter<float>, Int8Matrix, NF4Matrix>;

}  // namespace

BOOST_AUTO_TEST_CASE(theCountersCount) {
  const long before = newCalls;
  ::operator delete(::operator new(1));  // a call, which unlike new and delete may not be optimised away
  BOOST_TEST(newCalls == before + 1);
  Eigen::internal::set_is_malloc_allowed(false);
  const Eigen::MatrixXf m = Eigen::MatrixXf::Ones(3, 3);
  Eigen::internal::set_is_malloc_allowed(true);
  BOOST_TEST(std::exchange(failedAssertions, 0) > 0);
}

template <typename Model>
void expectNoAllocationInTheSecondStep(Model& model) {
  AdamW<float> optimizer(model.parameters());
  Tape<float> tape;
  trainingStep(tape, model, optimizer);
  const std::size_t reserved = tape.bytesReserved();
  const long before = newCalls;
  Eigen::internal::set_is_malloc_allowed(false);
  trainingStep(tape, model, optimizer);
  Eigen::internal::set_is_malloc_allowed(true);
  BOOST_TEST(newCalls == before);
  BOOST_TEST(std::exchange(failedAssertions, 0) == 0);
  BOOST_TEST(tape.bytesReserved() == reserved);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(fromTheSecondStepNothingIsAllocated, W, Weights) {
  auto model = decoder<W>();
  expectNoAllocationInTheSecondStep(model);
}

BOOST_AUTO_TEST_CASE(fromTheSecondStepNothingIsAllocatedForCheckpoints) {
  Checkpointed<NF4Matrix> model(decoder<NF4Matrix>());
  expectNoAllocationInTheSecondStep(model);
}

BOOST_AUTO_TEST_CASE(fromTheSecondStepNothingIsAllocatedForLogitsInChunks) {
  Head model;
  expectNoAllocationInTheSecondStep(model);
}

using Optimizers8bit = boost::mpl::list<AdamW8bit, Lion8bit>;

BOOST_AUTO_TEST_CASE_TEMPLATE(aStepOfAnEightBitOptimizerAllocatesNothing, Optimizer8bit, Optimizers8bit) {
  Parameter<float> large(randomMatrix<float>(300, 211, 1)), small(randomMatrix<float>(3, 4, 2));  // for threads; float
  Tape<float> tape;
  tape.backward(sum(tape.parameter(large)) + sum(tape.parameter(small)));
  Optimizer8bit optimizer({&large, &small});
  optimizer.step();
  const long before = newCalls;
  Eigen::internal::set_is_malloc_allowed(false);
  optimizer.step();
  Eigen::internal::set_is_malloc_allowed(true);
  BOOST_TEST(newCalls == before);
  BOOST_TEST(std::exchange(failedAssertions, 0) == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(withoutGradientsTheValuesAreTheSameToTheBit, W, Weights) {
  auto model = decoder<W>();
  Tape<float> tape(3);
  const float recorded = model.loss(tape, kIds, kTargets).item();
  tape.clear();
  tape.setSeed(3);
  const NoGradGuard<float> guard(tape);
  const Var<float> loss = model.loss(tape, kIds, kTargets);
  const float bare = loss.item();
  BOOST_TEST(std::memcmp(&recorded, &bare, sizeof bare) == 0);
  BOOST_TEST(!loss.requiresGrad());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(trainingLowersTheLoss, W, Weights) {
  auto model = decoder<W>();
  AdamW<float> optimizer(model.parameters(), {/*learningRate=*/0.02});
  Tape<float> tape;
  const float first = trainingStep(tape, model, optimizer);
  float last = first;
  for (int step = 0; step < 50; ++step) last = trainingStep(tape, model, optimizer);
  BOOST_TEST(last < 0.5f * first);
}

BOOST_AUTO_TEST_CASE(twoBackwardsOfHalfTheLossAreOneOfTheWhole) {
  auto model = decoder<Parameter<float>>();
  Tape<float> tape;
  const auto gradient = [&](double factor, int times) {
    for (Parameter<float>* p : model.parameters()) p->zeroGrad();
    for (int i = 0; i < times; ++i) {
      tape.clear();
      tape.setSeed(1);
      tape.backward(factor * model.loss(tape, kIds, kTargets));
    }
    return model.wq.grad();
  };
  const Eigen::MatrixXf whole = gradient(1, 1);
  BOOST_TEST(whole.norm() > 0);
  BOOST_TEST(test::sameBits<float>(gradient(0.5, 2), whole));  // scaling by a power of two and doubling are exact
}

BOOST_AUTO_TEST_CASE(theSameSeedGivesTheSameRunToTheBit) {
  const auto run = [] {
    auto model = decoder<NF4Matrix>();
    AdamW<float> optimizer(model.parameters());
    Tape<float> tape(42);
    for (int step = 0; step < 3; ++step) trainingStep(tape, model, optimizer);
    return Eigen::MatrixXf(model.embeddings.value());
  };
  BOOST_TEST(test::sameBits<float>(run(), run()));
}
