// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_ERRORS_H
#define EIGENQ_ERRORS_H

#include <stdexcept>
#include <string>

namespace EigenQ {

/** Data from outside (a file, stored state, a shape, an option) that cannot be what it claims to be. Thrown in every
 * build type; programmers' mistakes assert instead. */
class FormatError : public std::runtime_error {
 public:
  /** \param where    file or structure, for example "model.safetensors" or "QuantState"
   *  \param key      what in it, for example "weight.absmax"
   *  \param message  expected and found, for example "expected 4 blocks of 64, found 3" */
  FormatError(const std::string& where, const std::string& key, const std::string& message)
      : std::runtime_error(where + ": " + key + ": " + message), m_where(where), m_key(key) {}

  const std::string& where() const { return m_where; }
  const std::string& key() const { return m_key; }

 private:
  std::string m_where;
  std::string m_key;
};

}  // namespace EigenQ

#endif  // EIGENQ_ERRORS_H
