# SPDX-License-Identifier: MPL-2.0
# What a builder may choose. Everything here is scoped to our directories: a project that adds EigenQ with
# add_subdirectory or FetchContent keeps its own flags and build type.

option(EIGENQ_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(EIGENQ_BUILD_EXAMPLES "Build the examples" ${PROJECT_IS_TOP_LEVEL})
option(EIGENQ_BUILD_BENCHMARKS "Build the benchmarks" OFF)
option(EIGENQ_BUILD_FUZZERS "Build the fuzz targets, with clang" OFF)
option(EIGENQ_INSTALL "Generate the install target" ${PROJECT_IS_TOP_LEVEL})
option(EIGENQ_WARNINGS_AS_ERRORS "Treat warnings in our own code as errors" OFF)
option(EIGENQ_PRECOMPILE_HEADERS "Precompile headers for the tests and EigenQ::Llm, where the compiler is clang"
       ${PROJECT_IS_TOP_LEVEL})
set(EIGENQ_SANITIZE "" CACHE STRING "Sanitizers to build with, for example address;undefined")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

# A CUDA toolkit is used where there is one; asking for it where there is none is an error.
if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED EIGENQ_WITH_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(cuda_found ON)
  endif()
endif()
option(EIGENQ_WITH_CUDA "Build EigenQ::Cuda, which needs a CUDA toolkit" ${cuda_found})
if(EIGENQ_WITH_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "EIGENQ_WITH_CUDA is ON, but no CUDA compiler was found. Put nvcc on the PATH, set the "
                        "environment variable CUDACXX to it, or configure with -DEIGENQ_WITH_CUDA=OFF.")
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # A100 and, by its PTX, whatever is newer; H100 and H200 with their own instructions.
    set(CMAKE_CUDA_ARCHITECTURES 80 90a)
  endif()
  enable_language(CUDA)
endif()

# Tokenizers are built where PCRE2 and utf8proc are found; asking for them where they are not is an error. PCRE2 10.40 is
# the first with properties such as White_Space.
set(EIGENQ_TOKENIZER_MODULES libpcre2-8>=10.40 libutf8proc>=2.4)
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(EIGENQ_TOKENIZER_LIBRARIES QUIET IMPORTED_TARGET ${EIGENQ_TOKENIZER_MODULES})
endif()
option(EIGENQ_WITH_TOKENIZER "Build EigenQ::Tokenizer, which needs PCRE2 and utf8proc" ${EIGENQ_TOKENIZER_LIBRARIES_FOUND})
if(EIGENQ_WITH_TOKENIZER AND NOT EIGENQ_TOKENIZER_LIBRARIES_FOUND)
  message(FATAL_ERROR "EIGENQ_WITH_TOKENIZER is ON, but pkg-config finds no PCRE2 10.40 (libpcre2-8) and utf8proc 2.4 "
                      "(libutf8proc). Install them (Debian: pkg-config libpcre2-dev libutf8proc-dev), or configure with "
                      "-DEIGENQ_WITH_TOKENIZER=OFF.")
endif()

if(PROJECT_IS_TOP_LEVEL AND EIGENQ_WITH_TOKENIZER)
  find_package(CLI11 QUIET)
  set(tools_wanted ${CLI11_FOUND})
endif()
option(EIGENQ_BUILD_TOOLS "Build the program eigenq, which needs EigenQ::Tokenizer and CLI11" ${tools_wanted})
if(EIGENQ_BUILD_TOOLS AND NOT EIGENQ_WITH_TOKENIZER)
  message(FATAL_ERROR "EIGENQ_BUILD_TOOLS is ON, but EIGENQ_WITH_TOKENIZER is OFF: the program reads and writes text.")
endif()

set(cxx_warnings -Wall -Wextra -Wconversion)
if(EIGENQ_WARNINGS_AS_ERRORS)
  list(APPEND cxx_warnings -Werror)
endif()
add_compile_options("$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:${cxx_warnings}>")

if(PROJECT_IS_TOP_LEVEL)
  # g++ starts to collect garbage at 128 MB, of which Eigen's expressions leave little: from 1 GB on it compiles in nine
  # tenths of the time, and the largest file takes 1.8 GB instead of 1.4.
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:--param=ggc-min-heapsize=1048576>)
endif()

# Clang parses and instantiates what is precompiled once: a test of the tape takes four fifths of the time. Not so g++ 12,
# which loads 200 MB for every file: the tests gain a tenth on average, the largest lose as much, and Eigen's headers
# lose the pragmas that silence their warnings. Its builds also prove that every file includes what it needs.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  set(EIGENQ_PRECOMPILE_HEADERS OFF)
endif()

if(EIGENQ_BUILD_FUZZERS)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
endif()
if(EIGENQ_SANITIZE)
  list(JOIN EIGENQ_SANITIZE "," sanitizers)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${sanitizers}>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize-recover=all>
                      $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=${sanitizers})
endif()
