# SPDX-License-Identifier: MPL-2.0
# cmake -D STEP=install|find_package|pkg_config|fetch_content -D … -P check.cmake: one way of using the package.
# The consumer prints the version it was built with; the last line of every step holds it to VERSION.

set(prefix ${WORK_DIR}/prefix)
set(consumer_build ${WORK_DIR}/${STEP})

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

function(run_consumer program)
  execute_process(COMMAND ${program} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  string(STRIP "${output}" output)
  if(NOT output STREQUAL "EigenQ ${VERSION}")
    message(FATAL_ERROR "expected \"EigenQ ${VERSION}\", the consumer printed \"${output}\"")
  endif()
endfunction()

# Configures, builds and runs the consumer project in the folder of the step's name.
function(build_consumer)
  file(REMOVE_RECURSE ${consumer_build})
  run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/test/package/${STEP} -B ${consumer_build} -G ${GENERATOR}
      -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_FLAGS=${CXX_FLAGS}
      -D Eigen3_DIR=${Eigen3_DIR} ${ARGN})
  run(${CMAKE_COMMAND} --build ${consumer_build})
  run_consumer(${consumer_build}/consumer)
endfunction()

# Installs, then moves the tree: what still works afterwards is relocatable.
function(check_install)
  file(REMOVE_RECURSE ${prefix} ${prefix}.before)
  run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${prefix}.before)
  file(RENAME ${prefix}.before ${prefix})
endfunction()

# A component that is not there is named, rather than the package as a whole.
function(expect_component_refused)
  file(WRITE ${consumer_build}-refused/CMakeLists.txt
       "cmake_minimum_required(VERSION 3.25)\nproject(refused CXX)\nfind_package(EigenQ REQUIRED COMPONENTS nonsense)\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${consumer_build}-refused -B ${consumer_build}-refused/build -G ${GENERATOR}
                          -D CMAKE_CXX_COMPILER=${CXX} -D Eigen3_DIR=${Eigen3_DIR} -D CMAKE_PREFIX_PATH=${prefix}
                  RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE message)
  if(status EQUAL 0 OR NOT message MATCHES "no component nonsense")
    message(FATAL_ERROR "expected \"no component nonsense\", found status ${status} and:\n${message}")
  endif()
endfunction()

function(check_find_package)
  build_consumer(-D CMAKE_BUILD_TYPE=Release -D CMAKE_PREFIX_PATH=${prefix} -D EXPECTED_VERSION=${VERSION})
  expect_component_refused()
endfunction()

function(check_find_package_cuda)
  check_find_package()
endfunction()

# compile_with_pkg_config(PROGRAM MODULE|-DMACRO…): PROGRAM.cpp, with the flags of the modules alone.
function(compile_with_pkg_config program)
  set(macros ${ARGN})
  list(FILTER macros INCLUDE REGEX "^-D")
  set(modules ${ARGN})
  list(FILTER modules EXCLUDE REGEX "^-D")
  execute_process(COMMAND pkg-config --cflags --libs ${modules} OUTPUT_VARIABLE flags COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  separate_arguments(CXX_FLAGS UNIX_COMMAND "${CXX_FLAGS}")
  run(${CXX} -std=c++17 ${CXX_FLAGS} ${macros} ${SOURCE_DIR}/test/package/${program}.cpp ${flags}
      -o ${consumer_build}/${program})
endfunction()

function(check_pkg_config)
  file(GLOB_RECURSE pc_file ${prefix}/eigenq.pc)
  cmake_path(GET pc_file PARENT_PATH pc_dir)
  cmake_path(GET pc_dir PARENT_PATH library_dir)
  # Eigen's package lies in share/eigen3/cmake, its pkg-config file in share/pkgconfig.
  set(ENV{PKG_CONFIG_PATH} ${pc_dir}:${Eigen3_DIR}/../../pkgconfig)
  set(ENV{LD_LIBRARY_PATH} ${library_dir})
  file(MAKE_DIRECTORY ${consumer_build})
  compile_with_pkg_config(consumer eigenq)
  run_consumer(${consumer_build}/consumer)
  compile_with_pkg_config(consumer_io eigenq-io)
  run(${consumer_build}/consumer_io WORKING_DIRECTORY ${consumer_build})
  if(EXISTS ${pc_dir}/eigenq-tokenizer.pc)
    compile_with_pkg_config(consumer_llm eigenq-llm eigenq-tokenizer -DHAVE_TOKENIZER)
  else()
    compile_with_pkg_config(consumer_llm eigenq-llm)
  endif()
  run(${consumer_build}/consumer_llm)
endfunction()

# Built shared, since the installed package is usually static: both kinds of library are linked and run. Built without
# optimisation, since it is built once more.
function(check_fetch_content)
  build_consumer(-D BUILD_SHARED_LIBS=ON -D CMAKE_BUILD_TYPE=Debug)
endfunction()

cmake_language(CALL check_${STEP})
