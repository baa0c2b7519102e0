// SPDX-License-Identifier: MPL-2.0
#include "stop_strings.h"

#include <algorithm>
#include <utility>

namespace EigenQ {
namespace llm {
namespace internal {

GrowingMatch::GrowingMatch(std::string string) : m_string(std::move(string)), m_border(m_string.size(), 0) {
  for (std::size_t n = 1; n + 1 < m_string.size(); ++n) m_border[n + 1] = extend(m_border[n], m_string[n]);
}

void GrowingMatch::push(char byte) { m_length = extend(m_length, byte); }

std::size_t GrowingMatch::extend(std::size_t length, char byte) const {
  while (length > 0 && m_string[length] != byte) length = m_border[length];
  return m_string[length] == byte ? length + 1 : 0;
}

void StopStrings::replace(const std::vector<std::string>& strings) {
  m_matches.clear();
  for (const std::string& string : strings) m_matches.emplace_back(string);
  m_found = false;
}

std::string StopStrings::push(std::string_view piece) {
  if (m_found) return {};
  for (const char byte : piece) {
    m_held += byte;
    const std::size_t whole = match(byte);
    if (whole == 0) continue;
    m_found = true;
    m_held.resize(m_held.size() - whole);
    return takeHeld();
  }
  std::size_t longest = 0;
  for (const GrowingMatch& m : m_matches) longest = std::max(longest, m.length());
  std::string given = m_held.substr(0, m_held.size() - longest);
  m_held.erase(0, given.size());
  return given;
}

std::string StopStrings::takeHeld() { return std::exchange(m_held, {}); }

std::size_t StopStrings::match(char byte) {
  std::size_t whole = 0;
  for (GrowingMatch& m : m_matches) {
    m.push(byte);
    if (m.isWhole()) whole = std::max(whole, m.length());
  }
  return whole;
}

}  // namespace internal
}  // namespace llm
}  // namespace EigenQ
