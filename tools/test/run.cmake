# SPDX-License-Identifier: MPL-2.0
# How the checks run EIGENQ in the folder OUT. After each run, out and err are what it printed.

function(expect_match text pattern)
  if(NOT text MATCHES "${pattern}")
    message(FATAL_ERROR "expected to match ${pattern}, found:\n${text}")
  endif()
endfunction()

function(expect_same what a b)
  if(NOT a STREQUAL b)
    message(FATAL_ERROR "${what} differ:\n${a}\n---\n${b}")
  endif()
endfunction()

function(expect_different what a b)
  if(a STREQUAL b)
    message(FATAL_ERROR "${what} give the same:\n${a}")
  endif()
endfunction()

function(expect_absent path)
  if(EXISTS ${OUT}/${path})
    message(FATAL_ERROR "${path}: exists after a failure")
  endif()
endfunction()

# expect_files(FOLDER NAME…): these and no others.
function(expect_files folder)
  file(GLOB found RELATIVE ${OUT}/${folder} ${OUT}/${folder}/* ${OUT}/${folder}/.*)
  list(FILTER found EXCLUDE REGEX "^\\.+$")
  list(SORT found)
  expect_same("files in ${folder}" "${found}" "${ARGN}")
endfunction()

# nll_of(VARIABLE TEXT): what eval printed, in units of its last digit.
function(nll_of variable text)
  expect_match("${text}" "nll +[0-9]+\\.[0-9]+")
  string(REGEX REPLACE ".*nll +([0-9]+)\\.([0-9]+).*" "\\1\\2" digits "${text}")
  set(${variable} ${digits} PARENT_SCOPE)
endfunction()

# expect_close(WHAT A B UNITS): the losses in two outputs of eval differ by no more than that many of the last digit.
function(expect_close what a b units)
  nll_of(x "${a}")
  nll_of(y "${b}")
  math(EXPR difference "${x} - ${y}")
  if(difference GREATER units OR difference LESS -${units})
    message(FATAL_ERROR "${what}: ${x} and ${y} differ by more than ${units}")
  endif()
endfunction()

macro(run)
  execute_process(COMMAND ${EIGENQ} ${ARGN} WORKING_DIRECTORY ${OUT}
                  RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
endmacro()

macro(succeed)
  run(${ARGN})
  if(NOT "${status}" STREQUAL "0")
    message(FATAL_ERROR "eigenq ${ARGN}: status ${status}\n${out}\n${err}")
  endif()
endmacro()

# fail_with(STATUS PATTERN ARGUMENT…): one line on standard error, and nothing else.
function(fail_with expected pattern)
  run(${ARGN})
  if(NOT "${status}" STREQUAL "${expected}")
    message(FATAL_ERROR "eigenq ${ARGN}: expected status ${expected}, found ${status}\n${out}\n${err}")
  endif()
  expect_match("${err}" "^(${pattern})[^\n]*\n$")
  expect_same("standard output of a failure and nothing" "${out}" "")
endfunction()

function(fail_usage)
  fail_with(2 ${ARGN})
endfunction()

function(fail_running)
  fail_with(1 ${ARGN})
endfunction()
