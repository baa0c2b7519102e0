// SPDX-License-Identifier: MPL-2.0
#include <eigen_q/src/io/SafetensorsWriter.h>

#include <algorithm>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include <eigen_q/src/Errors.h>
#include <eigen_q/src/io/AtomicFile.h>

#include "json_events.h"
#include "safetensors_header.h"

namespace EigenQ {
namespace io {
namespace {

constexpr const char* kWhere = "SafetensorsWriter";

void requireUtf8(const std::string& text, const std::string& what) {
  if (internal::findInvalidUtf8(text) != std::string::npos) throw FormatError(kWhere, what, "not UTF-8");
}

std::uint64_t bytesOf(const std::string& name, DType dtype, const std::vector<Index>& shape) {
  if (std::any_of(shape.begin(), shape.end(), [](Index extent) { return extent < 0; }))
    throw FormatError(kWhere, name, "shape: negative extent in " + shapeText(shape));
  return internal::tensorBytes(dtype, shape, kWhere, name);
}

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string joined(const std::vector<Index>& shape) {
  std::string text;
  for (const Index extent : shape) text += (text.empty() ? "" : ",") + std::to_string(extent);
  return text;
}

}  // namespace

void SafetensorsWriter::add(const std::string& name, DType dtype, std::vector<Index> shape, ByteSource source) {
  requireUtf8(name, "name");
  if (name == internal::kMetadataKey) throw FormatError(kWhere, name, "is no name for a tensor");
  if (m_names.count(name) != 0) throw FormatError(kWhere, name, "given twice");
  const std::uint64_t bytes = bytesOf(name, dtype, shape);
  if (bytes > std::numeric_limits<std::uint64_t>::max() - m_dataBytes)
    throw FormatError(kWhere, name, "the tensors have more bytes than 64 bits can count");
  m_tensors.push_back({name, dtype, std::move(shape), bytes, std::move(source)});
  m_names.insert(name);
  m_dataBytes += bytes;
}

void SafetensorsWriter::addReference(const std::string& name, DType dtype, std::vector<Index> shape, const void* data) {
  const std::uint64_t bytes = bytesOf(name, dtype, shape);
  add(name, dtype, std::move(shape), [data, bytes](const ByteSink& sink) { sink(data, bytes); });
}

void SafetensorsWriter::setMetadata(const std::string& key, const std::string& text) {
  requireUtf8(key, internal::kMetadataKey);
  requireUtf8(text, std::string(internal::kMetadataKey) + ": " + key);
  m_metadata[key] = text;
}

void SafetensorsWriter::write(const std::string& path) const {
  std::vector<const Tensor*> tensors;
  for (const Tensor& tensor : m_tensors) tensors.push_back(&tensor);
  writeTensors(path, std::move(tensors), m_metadata);
}

void SafetensorsWriter::writeTensors(const std::string& path, std::vector<const Tensor*> tensors,
                                     const std::map<std::string, std::string>& metadata) {
  // By type, last first: their alignments fall in that order.
  std::sort(tensors.begin(), tensors.end(), [](const Tensor* a, const Tensor* b) {
    return a->dtype != b->dtype ? a->dtype > b->dtype : a->name < b->name;
  });
  const std::string header = headerOf(tensors, metadata);
  if (header.size() > internal::kMaxHeaderBytes)
    throw FormatError(path, "header",
                      "expected at most " + std::to_string(internal::kMaxHeaderBytes) + " bytes, the tensors need " +
                          std::to_string(header.size()));
  AtomicFile file(path);
  const std::uint64_t headerBytes = header.size();
  file.write(&headerBytes, sizeof headerBytes);
  file.write(header.data(), header.size());
  for (const Tensor* tensor : tensors) {
    std::uint64_t left = tensor->bytes;
    const auto fail = [&](const std::string& found) {
      throw FormatError(path, tensor->name,
                        "its source: expected " + std::to_string(tensor->bytes) + " bytes, found " + found);
    };
    tensor->source([&](const void* data, std::size_t bytes) {
      if (bytes > left) fail("more");
      file.write(data, bytes);
      left -= bytes;
    });
    if (left != 0) fail(std::to_string(tensor->bytes - left));
  }
  file.commit();
}

std::string SafetensorsWriter::headerOf(const std::vector<const Tensor*>& tensors,
                                        const std::map<std::string, std::string>& metadata) {
  std::string json;
  const auto comma = [&json] { return json.empty() ? "" : ","; };
  std::string texts;
  for (const auto& [key, text] : metadata) texts += (texts.empty() ? "" : ",") + quoted(key) + ":" + quoted(text);
  if (!metadata.empty()) json += quoted(internal::kMetadataKey) + ":{" + texts + "}";
  std::uint64_t offset = 0;
  for (const Tensor* tensor : tensors) {
    json += comma() + quoted(tensor->name) + R"(:{"dtype":")" + nameOf(tensor->dtype) + R"(","shape":[)" +
            joined(tensor->shape) + R"(],"data_offsets":[)" + std::to_string(offset) + "," +
            std::to_string(offset + tensor->bytes) + "]}";
    offset += tensor->bytes;
  }
  json = "{" + json + "}";
  json.append((internal::kHeaderAlignment - json.size() % internal::kHeaderAlignment) % internal::kHeaderAlignment,
              ' ');
  return json;
}

}  // namespace io
}  // namespace EigenQ
