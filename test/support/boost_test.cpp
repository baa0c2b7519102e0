// SPDX-License-Identifier: MPL-2.0
// Boost.Test as a library, where no package has it for the processor that we compile for.
#include <boost/test/included/unit_test.hpp>
