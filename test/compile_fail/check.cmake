# SPDX-License-Identifier: MPL-2.0
# cmake -D COMPILER=c++ -D FLAGS=@flags.rsp -D SOURCE=file.cpp -P check.cmake

file(STRINGS ${SOURCE} first_line LIMIT_COUNT 1)
if(NOT first_line MATCHES "^// expect: (.+)$")
  message(FATAL_ERROR "${SOURCE}: the first line must read \"// expect: TEXT\", found \"${first_line}\"")
endif()
set(expected "${CMAKE_MATCH_1}")
file(READ ${SOURCE} text)
if(NOT text MATCHES "#ifdef EIGENQ_MUST_NOT_COMPILE")
  message(FATAL_ERROR "${SOURCE}: nothing stands inside #ifdef EIGENQ_MUST_NOT_COMPILE")
endif()

# English messages, whatever the user's locale.
set(compile ${CMAKE_COMMAND} -E env LC_ALL=C ${COMPILER} ${FLAGS})

execute_process(COMMAND ${compile} ${SOURCE} RESULT_VARIABLE status ERROR_VARIABLE errors)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${SOURCE} does not compile without its offending lines:\n${errors}")
endif()

execute_process(COMMAND ${compile} -DEIGENQ_MUST_NOT_COMPILE ${SOURCE} RESULT_VARIABLE status ERROR_VARIABLE errors)
if(status EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, but must not")
endif()
string(FIND "${errors}" "${expected}" position)
if(position EQUAL -1)
  message(FATAL_ERROR "${SOURCE} fails without saying \"${expected}\":\n${errors}")
endif()
