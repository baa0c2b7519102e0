// SPDX-License-Identifier: MPL-2.0
// A real model: TinyStories-656K, read from its folder, quantised on the way, saved and read again.
#define BOOST_TEST_MODULE llm_TinyStories
#include "Models.h"

#include <unsupported/eigen_q/Llm>

#include "support/TemporaryFolder.h"

namespace {

using namespace EigenQ;

constexpr const char* kModel = "tinystories-656k";

// "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big,
// red ball.", as Hugging Face's tokenizers encodes it, begin-of-text first.
const std::vector<int> kSentence = {1,   80,   147, 201, 282, 215,  286,  598, 1662,
                                    887, 1584, 872, 615, 242, 1866, 1714, 10};

double meanLoss(llm::Llama<float>& model) {
  ad::Tape<float> tape;
  return static_cast<double>(model.loss(tape, llm::packForTraining({kSentence})).item());
}

llm::LoadOptions fourBit(llm::WeightFormat format, Statistics statistics = Statistics::kPlain) {
  llm::LoadOptions options;
  options.format = format;
  options.statistics = statistics;
  return options;
}

}  // namespace

// 3.53789: transformers 5.23, float32, on the CPU.
BOOST_AUTO_TEST_CASE(lossOfAKnownSentenceIsThatOfTransformers, *EigenQ::test::needsModel(kModel)) {
  auto model = llm::loadLlama(test::modelPath(kModel));
  BOOST_TEST(meanLoss(model) == 3.53789, boost::test_tools::tolerance(0.0005 / 3.5));
}

// 3.55000: the same with each projection's weight through bitsandbytes' quantize_4bit and back.
BOOST_AUTO_TEST_CASE(lossInNF4IsThatOfBitsandbytes, *EigenQ::test::needsModel(kModel)) {
  auto model = llm::loadLlama(test::modelPath(kModel), fourBit(llm::WeightFormat::kNF4));
  int quantized = 0;
  model.forEachLinear([&](const llm::Linear<float>& linear) { quantized += linear.isQuantized() ? 1 : 0; });
  BOOST_TEST(quantized == 14);
  BOOST_TEST(meanLoss(model) == 3.55000, boost::test_tools::tolerance(0.0005 / 3.5));
}

BOOST_AUTO_TEST_CASE(bothHoldWhenTheModelWasSavedQuantised, *EigenQ::test::needsModel(kModel)) {
  auto model = llm::loadLlama(test::modelPath(kModel), fourBit(llm::WeightFormat::kNF4, Statistics::kNested));
  const double loss = meanLoss(model);
  BOOST_TEST(loss == 3.55, boost::test_tools::tolerance(0.005));
  const EigenQ::test::TemporaryFolder folder;
  llm::saveLlama(model, folder.path());
  auto again = llm::loadLlama(folder.path());
  BOOST_TEST(meanLoss(again) == loss);
}

// A story from the beginning of text, which reaches its end: the model was trained on texts of this length.
BOOST_AUTO_TEST_CASE(storiesEnd, *EigenQ::test::needsModel(kModel)) {
  auto model = llm::loadLlama(test::modelPath(kModel));
  llm::Generator generate(model, 4);
  llm::GenerateOptions options;
  options.maxNewTokens = 500;
  options.sampling.temperature = 0.8;
  options.sampling.topP = 0.9;
  options.stopTokens = model.config().eosTokenIds;
  const auto stories = generate({{1}, {1}, {1}, {1}}, options);
  int ended = 0;
  for (const std::vector<int>& story : stories) {
    ended += story.back() == model.config().eosTokenIds.front() ? 1 : 0;
    BOOST_TEST(story.size() > 40U);
    // The model expects what it says: chance would be log 2048 = 7.6 nats a token.
    ad::Tape<float> tape;
    std::vector<int> tokens = {1};
    tokens.insert(tokens.end(), story.begin(), story.end());
    BOOST_TEST(model.loss(tape, llm::packForTraining({tokens})).item() < 2.5f);
  }
  BOOST_TEST(ended >= 3);
}
