// SPDX-License-Identifier: MPL-2.0
#include "Options.h"

#include <cstdlib>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace EigenQ {
namespace bench {
namespace {

std::vector<std::string> split(const std::string& list, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(list);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

Index positive(const std::string& text) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < 1) throw std::invalid_argument("expected a number, found " + text);
  return static_cast<Index>(value);
}

double positiveReal(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0)) throw std::invalid_argument("expected a number, found " + text);
  return value;
}

Shape shapeOf(const std::string& text) {
  const std::vector<std::string> sizes = split(text, 'x');
  if (sizes.size() != 2) throw std::invalid_argument("expected a shape such as 4096x4096, found " + text);
  const Shape shape = {positive(sizes[0]), positive(sizes[1])};
  if (shape.k % 64 != 0) throw std::invalid_argument("expected a shape NxK with K a multiple of 64, found " + text);
  return shape;
}

ScalarType scalarOf(const std::string& text) {
  if (text == "bf16") return ScalarType::kBFloat16;
  if (text == "half") return ScalarType::kHalf;
  if (text == "float") return ScalarType::kFloat;
  throw std::invalid_argument("expected bf16, half or float, found " + text);
}

void set(Options& o, const std::string& name, const std::string& value) {
  if (name == "--kernel") {
    o.kernels = split(value, ',');
  } else if (name == "--shape") {
    for (const std::string& shape : split(value, ',')) o.shapes.push_back(shapeOf(shape));
  } else if (name == "--m") {
    for (const std::string& m : split(value, ',')) o.rows.push_back(positive(m));
  } else if (name == "--lowering") {
    o.lowerings = split(value, ',');
  } else if (name == "--scalar") {
    o.scalar = scalarOf(value);
  } else if (name == "--budget") {
    o.budget = 1e-3 * positiveReal(value);
  } else if (name == "--json") {
    o.json = value;
  } else if (name == "--bf16-tflops") {
    o.bfloat16Rate = 1e12 * positiveReal(value);
  } else if (name == "--int8-tops") {
    o.int8Rate = 1e12 * positiveReal(value);
  } else if (name == "--float-tflops") {
    o.floatRate = 1e12 * positiveReal(value);
  } else {
    throw std::invalid_argument("unknown option " + name);
  }
}

}  // namespace

double Options::rate(Rate rate) const {
  switch (rate) {
    case Rate::kFloat:
      return floatRate;
    case Rate::kBFloat16:
      return bfloat16Rate;
    case Rate::kInt8:
      return int8Rate;
    case Rate::kNone:
      break;
  }
  return std::numeric_limits<double>::infinity();
}

Options parseOptions(int argc, const char* const* argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--quick") {
      o.quick = true;
      continue;
    }
    if (i + 1 == argc) throw std::invalid_argument("unknown option, or one without its value: " + name);
    set(o, name, argv[++i]);
  }
  if (o.shapes.empty()) {
    if (o.quick) {
      o.shapes = {{4096, 4096}, {28672, 8192}};
    } else {
      o.shapes = {{4096, 4096}, {11008, 4096}, {4096, 11008}, {14336, 4096}, {8192, 8192}, {28672, 8192}};
    }
  }
  if (o.rows.empty()) {
    if (o.quick) {
      o.rows = {1, 16, 2048};
    } else {
      o.rows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 8192};
    }
  }
  return o;
}

const char* usage() {
  return "usage: eigenq_bench_gpu [--quick] [--kernel NAME,...] [--shape NxK,...] [--m M,...] [--json FILE]\n"
         "                        [--scalar bf16|half|float] [--budget MILLISECONDS] [--lowering NAME,...]\n"
         "                        [--bf16-tflops X] [--int8-tops X] [--float-tflops X]\n";
}

}  // namespace bench
}  // namespace EigenQ
