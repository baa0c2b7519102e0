// SPDX-License-Identifier: MPL-2.0
// trainer_state.cpp: a training run as one safetensors file.
//
// Tensors, NAME being that of a parameter:
//   value.NAME, best.NAME                          F32, as the parameter; the second where a best was kept
//   first.NAME.values                              F32 [size], column by column; of moments in 8 bits instead
//   first.NAME.codes, first.NAME.absmax            U8 [size], F32 [blocks]; second.NAME… alike
//   steps                                          I64, one a parameter
//   history.learning_rate, .train_loss             F64, one an update
//   history.held_out_step, .held_out_loss          I64 and F64, one an evaluation
//   history.skipped                                I64, one a skipped update; missing where there is none
// __metadata__: format, step, stopped_early, parameters (a JSON list of names, in order), settings (one of pairs: what
// the run was started with; new ones are added at the end, where older files lack them).
#include <charconv>
#include <filesystem>
#include <set>

#include <eigen_q/Io>
#include <unsupported/eigen_q/src/llm/TrainerState.h>

#include "../strict_json.h"

namespace EigenQ {
namespace llm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kFormat = "EigenQ trainer 1";

// ---- writing

void addMoment(io::SafetensorsWriter& writer, const std::string& name, const ad::Moment8bit& moment) {
  if (moment.codes.size() == 0) return writer.add(name + ".values", moment.values);
  writer.add(name + ".codes", moment.codes);
  writer.add(name + ".absmax", moment.absmax);
}

template <typename Scalar, typename T, typename Value>
void addList(io::SafetensorsWriter& writer, const std::string& name, const std::vector<T>& list, const Value& value) {
  Eigen::Matrix<Scalar, Eigen::Dynamic, 1> v(static_cast<Index>(list.size()));
  for (std::size_t i = 0; i < list.size(); ++i) v(static_cast<Index>(i)) = value(list[i]);
  writer.add(name, v);
}

void addHistory(io::SafetensorsWriter& writer, const TrainHistory& history) {
  const auto same = [](double x) { return x; };
  addList<double>(writer, "history.learning_rate", history.learningRate, same);
  addList<double>(writer, "history.train_loss", history.trainLoss, same);
  addList<std::int64_t>(writer, "history.held_out_step", history.heldOut, [](const auto& h) { return h.step; });
  addList<double>(writer, "history.held_out_loss", history.heldOut, [](const auto& h) { return h.loss; });
  if (!history.skipped.empty())
    addList<std::int64_t>(writer, "history.skipped", history.skipped, [](Index step) { return step; });
}

/** Temporary files of writers that were killed: ".NAME.PROCESS.NUMBER.tmp" beside \a path. */
void removeLeftovers(const fs::path& path) {
  const std::string prefix = "." + path.filename().string() + ".";
  std::error_code ignored;  // what stays takes space and misleads nobody
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && entry.path().extension() == ".tmp") fs::remove(entry.path(), ignored);
  }
}

// ---- reading

[[noreturn]] void fail(const std::string& path, const std::string& key, const std::string& message) {
  throw FormatError(path, key, message);
}

Json parsed(const io::SafetensorsFile& file, const std::string& key) {
  return EigenQ::internal::parseStrictJson<Json>(file.metadata(key), file.path() + ": " + key);
}

Index number(const io::SafetensorsFile& file, const std::string& key) {
  const std::string text = file.metadata(key);
  Index value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    fail(file.path(), key, "expected a whole number of 0 or more, found '" + text + "'");
  return value;
}

ad::Moment8bit readMoment(const io::SafetensorsFile& file, const std::string& name) {
  ad::Moment8bit moment;
  if (file.has(name + ".values")) {
    moment.values = io::toVector<float>(file.at(name + ".values"));
  } else {
    moment.codes = io::toVector<std::uint8_t>(file.at(name + ".codes"));
    moment.absmax = io::toVector<float>(file.at(name + ".absmax"));
  }
  return moment;
}

template <typename T>
std::vector<T> list(const io::SafetensorsFile& file, const std::string& name, Index size = -1) {
  const auto v = io::toVector<T>(file.at(name));
  if (size >= 0 && v.size() != size)
    file.at(name).fail("expected " + std::to_string(size) + " entries, found " + std::to_string(v.size()));
  return {v.data(), v.data() + v.size()};
}

TrainHistory readHistory(const io::SafetensorsFile& file, Index step) {
  TrainHistory history;
  history.learningRate = list<double>(file, "history.learning_rate", step);
  history.trainLoss = list<double>(file, "history.train_loss", step);
  const auto steps = list<std::int64_t>(file, "history.held_out_step");
  const auto losses = list<double>(file, "history.held_out_loss", static_cast<Index>(steps.size()));
  for (std::size_t i = 0; i < steps.size(); ++i) history.heldOut.push_back({static_cast<Index>(steps[i]), losses[i]});
  if (!file.has("history.skipped")) return history;
  for (const std::int64_t skipped : list<std::int64_t>(file, "history.skipped")) {
    const Index least = history.skipped.empty() ? 1 : history.skipped.back() + 1;
    if (skipped < least || skipped > step)
      file.at("history.skipped")
          .fail("expected ascending updates from 1 to " + std::to_string(step) + ", found " + std::to_string(skipped));
    history.skipped.push_back(static_cast<Index>(skipped));
  }
  return history;
}

TrainerState::Parameter readParameter(const io::SafetensorsFile& file, const std::string& name) {
  TrainerState::Parameter p;
  p.name = name;
  p.value = io::toMatrix<float>(file.at("value." + name));
  if (file.has("best." + name)) p.best = io::toMatrix<float>(file.at("best." + name), p.value.rows(), p.value.cols());
  if (!p.value.allFinite() || !p.best.allFinite()) fail(file.path(), name, "expected finite entries, found others");
  p.firstMoment = readMoment(file, "first." + name);
  p.secondMoment = readMoment(file, "second." + name);
  return p;
}

/** What states of older versions end without. */
bool isOptional(const std::string& setting) {
  static const std::set<std::string> kOptional = {"base_model",          "activations",   "num_attention_heads",
                                                  "num_key_value_heads", "rms_norm_eps",  "rope_theta",
                                                  "rope_scaling",        "sliding_window"};
  return kOptional.count(setting) > 0;
}

}  // namespace

void writeTrainerState(const TrainerState& state, const std::string& path) {
  io::SafetensorsWriter writer;
  Json names = Json::array();
  for (const TrainerState::Parameter& p : state.parameters) {
    names.push_back(p.name);
    writer.add("value." + p.name, p.value);
    if (p.best.size() > 0) writer.add("best." + p.name, p.best);
    addMoment(writer, "first." + p.name, p.firstMoment);
    addMoment(writer, "second." + p.name, p.secondMoment);
  }
  addList<std::int64_t>(writer, "steps", state.parameters, [](const auto& p) { return p.steps; });
  addHistory(writer, state.history);
  writer.setMetadata("format", kFormat);
  writer.setMetadata("step", std::to_string(state.step));
  writer.setMetadata("stopped_early", state.stoppedEarly ? "true" : "false");
  writer.setMetadata("parameters", names.dump());
  writer.setMetadata("settings", Json(state.settings).dump());
  if (fs::path(path).has_parent_path()) fs::create_directories(fs::path(path).parent_path());
  removeLeftovers(path);
  writer.write(path);
}

TrainerState readTrainerState(const std::string& path) { return readTrainerState(io::SafetensorsFile(path)); }

TrainerState readTrainerState(const io::SafetensorsFile& file) {
  const std::string& path = file.path();
  if (file.metadata("format") != kFormat)
    fail(path, "format", std::string("expected ") + kFormat + ", found '" + file.metadata("format") + "'");
  TrainerState state;
  state.step = number(file, "step");
  state.stoppedEarly = file.metadata("stopped_early") == "true";
  std::vector<std::string> names;
  try {
    names = parsed(file, "parameters").get<std::vector<std::string>>();
    state.settings = parsed(file, "settings").get<TrainerState::Settings>();
  } catch (const Json::exception& e) {
    fail(path, "__metadata__", e.what());
  }
  const auto steps = list<std::int64_t>(file, "steps", static_cast<Index>(names.size()));
  for (std::size_t i = 0; i < names.size(); ++i) {
    state.parameters.push_back(readParameter(file, names[i]));
    state.parameters.back().steps = steps[i];
    if (steps[i] < 0) fail(path, "steps", "expected 0 or more, found " + std::to_string(steps[i]));
  }
  state.history = readHistory(file, state.step);
  return state;
}

void requireSameSettings(const TrainerState::Settings& expected, const TrainerState::Settings& found,
                         const std::string& path) {
  for (std::size_t i = 0; i < std::max(expected.size(), found.size()); ++i) {
    if (i >= expected.size()) fail(path, found[i].first, "expected no such setting, found " + found[i].second);
    if (i >= found.size() && isOptional(expected[i].first)) continue;
    if (i >= found.size() || found[i].first != expected[i].first)
      fail(path, expected[i].first, "expected " + expected[i].second + ", found no such setting");
    if (found[i].second != expected[i].second)
      fail(path, expected[i].first,
           "expected " + expected[i].second + ", found " + found[i].second + ": a run goes on with what it began with");
  }
}

}  // namespace llm
}  // namespace EigenQ
