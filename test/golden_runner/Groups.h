// SPDX-License-Identifier: MPL-2.0
// The checks, one for each group of recorded cases.
#ifndef EIGENQ_TEST_GOLDEN_RUNNER_GROUPS_H
#define EIGENQ_TEST_GOLDEN_RUNNER_GROUPS_H

#include "Case.h"

namespace EigenQ {
namespace golden {

void checkQuantize4bit(const Case& c, CaseReport& report);
void checkNested4bit(const Case& c, CaseReport& report);
void checkMatmul4bit(const Case& c, CaseReport& report);
/** Codes and statistics; returns the state that decodes the recorded ones. */
QuantState checkMatmul4bitWeights(const Case& c, CaseReport& report);
void checkQuantizeBlockwise(const Case& c, CaseReport& report);
void checkVectorwiseQuant(const Case& c, CaseReport& report);
void checkMatmul8bitVectorwise(const Case& c, CaseReport& report);
void checkInt8VectorwiseQuant(const Case& c, CaseReport& report);
void checkInt8DoubleQuant(const Case& c, CaseReport& report);
void checkMatmul8bit(const Case& c, CaseReport& report);
/** Codes and statistics, where they are recorded. */
void checkMatmul8bitWeights(const Case& c, CaseReport& report);

/** State exactly; parameters within what CUDA's approximate functions allow. */
void checkAdamW8bit(const Case& c, CaseReport& report);

/** Tables stored outside of any case; false where the key is none of them. */
bool checkTable(const test::Tensor& table, CaseReport& report);

/** Checkpoints of layers, as Hugging Face saves them; false where \a file holds none. */
bool checkLayers(const test::SafetensorsFile& file, const Backend& backend, Reports& reports);

void checkTileLayouts(const std::string& path, const Backend& backend, Reports& reports);

}  // namespace golden
}  // namespace EigenQ

#endif  // EIGENQ_TEST_GOLDEN_RUNNER_GROUPS_H
