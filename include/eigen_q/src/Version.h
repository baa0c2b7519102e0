// SPDX-License-Identifier: MPL-2.0
#ifndef EIGENQ_VERSION_H
#define EIGENQ_VERSION_H

// The one place where the version stands: CMake, the package files and pkg-config read these three lines.
#define EIGENQ_VERSION_MAJOR 0
#define EIGENQ_VERSION_MINOR 1
#define EIGENQ_VERSION_PATCH 0

#define EIGENQ_INTERNAL_STRINGIZE(x) #x
#define EIGENQ_INTERNAL_VERSION_STRING(a, b, c) \
  EIGENQ_INTERNAL_STRINGIZE(a) "." EIGENQ_INTERNAL_STRINGIZE(b) "." EIGENQ_INTERNAL_STRINGIZE(c)

/** The version as text, for example "0.1.0". */
#define EIGENQ_VERSION_STRING \
  EIGENQ_INTERNAL_VERSION_STRING(EIGENQ_VERSION_MAJOR, EIGENQ_VERSION_MINOR, EIGENQ_VERSION_PATCH)

/** The version as a number that compares: 0xMMmmpp00. */
#define EIGENQ_VERSION_HEX (EIGENQ_VERSION_MAJOR << 24 | EIGENQ_VERSION_MINOR << 16 | EIGENQ_VERSION_PATCH << 8)

#endif  // EIGENQ_VERSION_H
