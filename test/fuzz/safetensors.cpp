// SPDX-License-Identifier: MPL-2.0
#include "fuzz/Readers.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  EigenQ::fuzz::readSafetensors({data, data + size});
  return 0;
}
