// SPDX-License-Identifier: MPL-2.0
// Elementwise passes over device matrices: casts to the bit, epilogues within the rounding of their few operations,
// every combination of layouts.
#define BOOST_TEST_MODULE DeviceElementwise
#include <boost/test/unit_test.hpp>

#include <src/cuda/device_lowering.h>

#include "Device.h"
#include "Operand.h"

using namespace EigenQ;
using namespace EigenQ::test;
using gpu::internal::elementwise;
using internal::ConstDenseView;
using internal::DenseView;
using internal::Epilogue;

namespace {

struct Shape {
  Index rows, cols;
};
// Around packs of 4 and 8, tiles of 64, and primes.
const Shape kShapes[] = {{1, 1}, {1, 257}, {300, 1}, {7, 8}, {8, 7}, {64, 64}, {65, 63}, {3, 1031}, {129, 191}};
const Shape kEmpty[] = {{0, 0}, {0, 5}, {5, 0}};

/** Runs a pass on a copy of y's frame. */
template <typename Pass>
Frame runOn(const Operand& y, gpu::Context& context, const Pass& pass) {
  const DeviceBytes copy(y.frame().bytes().data(), y.frame().bytes().size(), context);
  pass(y.deviceAt(copy));
  return y.frame().with(copy.toHost());
}

}  // namespace

BOOST_AUTO_TEST_CASE(castsAndCopiesRoundOnce, *needsDevice()) {
  gpu::Context context;
  int passes = 0;
  for (const Shape& s : kShapes) {
    for (const ScalarType from : kScalars) {
      for (const ScalarType to : kScalars) {
        for (const Place xPlace : kPlaces) {
          for (const Place yPlace : kPlaces) {
            const Operand x(s.rows, s.cols, xPlace, from, 1, context);
            Operand y(s.rows, s.cols, yPlace, to, 2, context);
            const Frame found = runOn(y, context, [&](const DenseView& result) {
              elementwise(constant(x.device()), result, Epilogue(), context);
            });
            Frame expected = y.frame();
            for (Index i = 0; i < s.rows; ++i) {
              for (Index j = 0; j < s.cols; ++j) {
                if (yPlace.flipped) {
                  expected.set(j, i, x.at(i, j));
                } else {
                  expected.set(i, j, x.at(i, j));
                }
              }
            }
            ++passes;
            if (found.bytes() == expected.bytes()) continue;
            BOOST_ERROR(s.rows << "x" << s.cols << ", scalar " << int(from) << " to " << int(to) << ", layout "
                               << int(xPlace.layout) << (xPlace.flipped ? " flipped" : "") << " to "
                               << int(yPlace.layout) << (yPlace.flipped ? " flipped" : "")
                               << (found.sameOutside(y.frame()) ? ": wrong values" : ": writes outside"));
          }
        }
      }
    }
  }
  BOOST_TEST(passes == 9 * 9 * 36);
}

BOOST_AUTO_TEST_CASE(everyPatternOf16BitsIsCast, *needsDevice()) {
  gpu::Context context;
  std::vector<std::uint16_t> patterns(1 << 16);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  const DeviceBytes x(patterns.data(), patterns.size() * 2, context);
  for (const ScalarType from : {ScalarType::kHalf, ScalarType::kBFloat16}) {
    for (const ScalarType to : kScalars) {
      const std::vector<unsigned char> start(patterns.size() * sizeOf(to));
      const DeviceBytes y(start.data(), start.size(), context);
      elementwise(ConstDenseView{x.data(), from, 256, 256, 256, 1}, DenseView{y.data(), to, 256, 256, 256, 1},
                  Epilogue(), context);
      const std::vector<unsigned char> found = y.toHost();
      int wrong = 0;
      for (Index i = 0; i < static_cast<Index>(patterns.size()); ++i) {
        const double value = internal::readScalar(patterns.data(), from, i);
        double rounded = 0;
        internal::writeScalar(&rounded, to, 0, value);
        const double expected = internal::readScalar(&rounded, to, 0), f = internal::readScalar(found.data(), to, i);
        const bool same = f == expected && std::signbit(f) == std::signbit(expected);
        wrong += !(same || (std::isnan(f) && std::isnan(value)));
      }
      BOOST_TEST(wrong == 0, wrong << " patterns of scalar " << int(from) << " are cast to others of " << int(to));
    }
  }
}

BOOST_AUTO_TEST_CASE(epiloguesAgreeWithDouble, *needsDevice()) {
  gpu::Context context;
  std::size_t round = 0;
  for (const Shape& s : kShapes) {
    for (const ScalarType from : kScalars) {
      for (const ScalarType to : kScalars) {
        for (const EpilogueCase& c : epilogueCases()) {
          for (const Place yPlace : kPlaces) {
            const Place xPlace = kPlaces[round % 6], otherPlace = kPlaces[round / 6 % 6];
            ++round;
            const Operand x(s.rows, s.cols, xPlace, from, 1, context);
            const ResultOperands r(s.rows, s.cols, yPlace, otherPlace, to, context);
            const Frame found = runOn(r.y, context, [&](const DenseView& result) {
              elementwise(constant(x.device()), result, r.on(result, c), context);
            });
            const std::string error = r.compare(
                c, found, [&](Index i, Index j) { return x.at(i, j); }, [](Index, Index) { return 0.0; });
            if (!error.empty())
              BOOST_ERROR(c.name << ", " << s.rows << "x" << s.cols << ", scalar " << int(from) << " to " << int(to)
                                 << ": " << error);
          }
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(aMatrixMayBeItsOwnOperandAndItsOwnResidual, *needsDevice()) {
  gpu::Context context;
  for (const Shape& s : kShapes) {
    for (const ScalarType scalar : kScalars) {
      for (const EpilogueCase& c : epilogueCases()) {
        for (const Place place : kPlaces) {
          const ResultOperands r(s.rows, s.cols, place, place, scalar, context);
          const Frame found = runOn(r.y, context, [&](const DenseView& result) {
            elementwise(constant(result), result, r.on(result, c), context);
          });
          const std::string error = r.compare(
              c, found, [&](Index i, Index j) { return r.y.at(i, j); }, [](Index, Index) { return 0.0; });
          if (!error.empty())
            BOOST_ERROR(c.name << ", in place, " << s.rows << "x" << s.cols << ", scalar " << int(scalar) << ": "
                               << error);
        }
      }
    }
  }
}

BOOST_AUTO_TEST_CASE(manyBlocks, *needsDevice()) {
  gpu::Context context;
  for (const bool flipped : {false, true}) {  // packed, then in tiles
    // 317,000 packs of 8: more than threads find room on 132 multiprocessors, so that each takes two.
    const Operand x(1537, 1651, {Layout::kRowMajor, false}, ScalarType::kHalf, 1, context);
    const ResultOperands r(1537, 1651, {Layout::kRowMajor, flipped}, {Layout::kRowMajor, flipped}, ScalarType::kFloat,
                           context);
    for (const EpilogueCase& c : {epilogueCases()[0], epilogueCases()[8]}) {
      const Frame found = runOn(r.y, context, [&](const DenseView& result) {
        elementwise(constant(x.device()), result, r.on(result, c), context);
      });
      BOOST_TEST(r.compare(
                     c, found, [&](Index i, Index j) { return x.at(i, j); }, [](Index, Index) { return 0.0; }) == "");
    }
  }
}

BOOST_AUTO_TEST_CASE(emptyMatricesQueueNothing, *needsDevice()) {
  gpu::Context context;
  for (const Shape& s : kEmpty) {
    elementwise(ConstDenseView{nullptr, ScalarType::kHalf, s.rows, s.cols, s.cols, 1},
                DenseView{nullptr, ScalarType::kFloat, s.rows, s.cols, s.cols, 1}, Epilogue(), context);
  }
  context.synchronize();
}

BOOST_AUTO_TEST_CASE(doublesStayOnTheHost, *needsDevice()) {
  gpu::Context context;
  double x = 0;
  const DenseView y{&x, ScalarType::kDouble, 1, 1, 1, 1};
  BOOST_CHECK_THROW(elementwise(constant(y), y, Epilogue(), context), std::invalid_argument);
}
