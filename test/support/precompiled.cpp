// SPDX-License-Identifier: MPL-2.0
// The source of the target that precompiles headers for the tests: CMake asks for one.
