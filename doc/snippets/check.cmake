# SPDX-License-Identifier: MPL-2.0
# cmake -D PROGRAM=… -D EXPECTED=Name.out -P check.cmake: the program must succeed and print the file, byte for byte;
# one that exits with 77 was skipped.

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed ERROR_VARIABLE complaint RESULT_VARIABLE status)
if(status EQUAL 77)
  message("${complaint}")  # "skipped: why"
  return()
elseif(NOT status EQUAL 0)
  message(FATAL_ERROR "${PROGRAM}: ${status}\n${complaint}")
endif()
file(READ ${EXPECTED} expected)
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "${EXPECTED} holds\n${expected}but the program printed\n${printed}")
endif()
