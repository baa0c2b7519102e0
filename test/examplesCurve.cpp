// SPDX-License-Identifier: MPL-2.0
// The curves and the progress lines of examples/finetune.
#define BOOST_TEST_MODULE examplesCurve
#include <boost/test/unit_test.hpp>

#include <limits>
#include <sstream>

#include "examples/finetune/Plot.h"
#include "examples/finetune/Progress.h"

using namespace finetune;
namespace tt = boost::test_tools;

namespace {

const std::vector<Phase> kPhases = {{"one", "a < b", {0.5, 0.25}, {4, 2}, {{0, 5.5}, {2, 1.5}}},
                                    {"two", "c", {1}, {3}, {}}};

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

BOOST_AUTO_TEST_CASE(csvHasARowForEveryStepAndForTheStart) {
  BOOST_TEST(toCsv(kPhases) ==
             "phase,step,learning_rate,train_loss,held_out_loss\n"
             "one,0,,,5.5\none,1,0.5,4,\none,2,0.25,2,1.5\ntwo,0,,,\ntwo,1,1,3,\n");
}

BOOST_AUTO_TEST_CASE(smoothingTakesTheMeanAround) {
  const std::vector<double> values = {1, 2, 3, 10}, means = {1, 2, 5, 10};
  BOOST_TEST(smooth(values, 1) == means, tt::per_element());
  BOOST_TEST(smooth(values, 0) == values, tt::per_element());
  BOOST_TEST(smooth({3, 1, 2}, 9)[1] == 2);
  BOOST_TEST(smooth({}, 3).empty());
}

BOOST_AUTO_TEST_CASE(ticksAreRoundNumbersInsideTheRange) {
  const std::vector<double> units = {2, 3, 4, 5, 6}, hundreds = {0, 200, 400, 600, 800, 1000};
  BOOST_TEST(roundTicks(1.4, 6, 5) == units, tt::per_element());
  BOOST_TEST(roundTicks(0, 1100, 6) == hundreds, tt::per_element());
  const std::vector<double> tenths = roundTicks(-0.1, 0.2, 3);
  BOOST_TEST_REQUIRE(tenths.size() == 4u);
  BOOST_TEST(tenths.front() == -0.1, tt::tolerance(1e-12));
  BOOST_TEST(!std::signbit(roundTicks(-1e-13, 1, 2).front()));
}

BOOST_AUTO_TEST_CASE(plotShowsEveryPhase) {
  const std::string svg = plotLosses(kPhases);
  BOOST_TEST(count(svg, "<polyline") == 4);        // two phases, each raw and smoothed
  BOOST_TEST(count(svg, "<circle") == 3);          // two measurements and the legend's
  BOOST_TEST(count(svg, "a &lt; b</text>") == 1);  // escaped
  BOOST_TEST(count(svg, "nan") + count(svg, "inf") == 0);
}

BOOST_AUTO_TEST_CASE(curvesLieWhereTheAxesSay) {
  // Losses from 1 to 6, two steps, in 100×50 from (10, 20): lower losses lie further down.
  const Phase phase = {"", "", {1, 1}, {6, 2.25}, {{0, 1}}};
  const std::string svg = LossPanel(phase, "red", {10, 20, 100, 50}).svg();
  BOOST_TEST(count(svg, "points=\"60.0,20.0 110.0,57.5 \"") == 2);  // so few steps are not smoothed
  BOOST_TEST(count(svg, "cx=\"10.0\" cy=\"70.0\"") == 1);
}

// A skipped update has no learning rate, and its loss may not be finite.
BOOST_AUTO_TEST_CASE(stepsWithoutNumbersLeaveGaps) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const Phase phase = {"p", "p", {1, nan, 1, nan}, {6, nan, 2.25, inf}, {{0, 1}}};
  BOOST_TEST(toCsv({phase}) ==
             "phase,step,learning_rate,train_loss,held_out_loss\np,0,,,1\np,1,1,6,\np,2,,,\np,3,1,2.25,\np,4,,,\n");
  const std::string svg = LossPanel(phase, "red", {10, 20, 100, 50}).svg();
  BOOST_TEST(count(svg, "points=\"35.0,20.0 85.0,57.5 \"") == 2);
  BOOST_TEST(count(svg, "nan") + count(svg, "inf") == 0);
  BOOST_TEST(smooth({2, nan, 4}, 1)[1] == 3);
}

BOOST_AUTO_TEST_CASE(plotsOfNothingAreWholeAllTheSame) {
  for (const std::vector<Phase>& phases : {std::vector<Phase>{}, {{}}, {{"p", "p", {1}, {2}, {}}}}) {
    const std::string svg = plotLosses(phases);
    BOOST_TEST(count(svg, "nan") + count(svg, "inf") == 0);
    BOOST_TEST(count(svg, "</svg>") == 1);
  }
}

BOOST_AUTO_TEST_CASE(progressIsTenLinesWithoutATerminal) {
  std::ostringstream out;
  Progress progress(out, false, "label", 200);
  for (long step = 1; step <= 200; ++step) progress.update(step, 10 * step, 1.25);
  BOOST_TEST(count(out.str(), "\n") == 10);
  BOOST_TEST(count(out.str(), "\r") == 0);
  BOOST_TEST(count(out.str(), "label: step 200/200  loss 1.250  ") == 1);
}

BOOST_AUTO_TEST_CASE(progressMayComeInLeaps) {
  std::ostringstream out;
  Progress progress(out, false, "label", 100);
  for (const long step : {7L, 19L, 65L, 69L, 100L}) progress.update(step, step, 1);
  BOOST_TEST(count(out.str(), "\n") == 3);  // at 19, 65 and 100
}

BOOST_AUTO_TEST_CASE(progressIsOneLineOnATerminal) {
  std::ostringstream out;
  Progress progress(out, true, "label", 3);
  for (long step = 1; step <= 3; ++step) progress.update(step, step, 1);
  BOOST_TEST(count(out.str(), "\n") == 1);
  BOOST_TEST(out.str().back() == '\n');
  BOOST_TEST(count(out.str(), "step 3/3") == 1);
}

BOOST_AUTO_TEST_CASE(numbersAreShortened) {
  BOOST_TEST(shortNumber(7.25) == "7.2");
  BOOST_TEST(shortNumber(999) == "999");
  BOOST_TEST(shortNumber(1500) == "1.5k");
  BOOST_TEST(shortNumber(12345) == "12k");
  BOOST_TEST(shortNumber(3.44e6) == "3.4M");
}
