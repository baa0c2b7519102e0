# SPDX-License-Identifier: MPL-2.0
# cmake -D PROGRAM=… -D EXPECTED=Name.out -P check.cmake: the program must succeed and print the file, byte for byte.

execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
file(READ ${EXPECTED} expected)
if(NOT printed STREQUAL expected)
  message(FATAL_ERROR "${EXPECTED} holds\n${expected}but the program printed\n${printed}")
endif()
