# SPDX-License-Identifier: MPL-2.0
# Runs GENERATE on TinyStories-656K, from the folder of models that EIGENQ_MODELS names, or else from MODELS.

execute_process(COMMAND ${GENERATE} RESULT_VARIABLE status ERROR_VARIABLE err)
if(NOT status EQUAL 2 OR NOT err MATCHES "^usage: ")
  message(FATAL_ERROR "without arguments: expected status 2 and the usage, found ${status} and ${err}")
endif()
execute_process(COMMAND ${GENERATE} /nowhere text RESULT_VARIABLE status ERROR_VARIABLE err)
if(NOT status EQUAL 1 OR NOT err MATCHES "^generate: /nowhere/tokenizer.json: ")
  message(FATAL_ERROR "without a model: expected status 1 and its name, found ${status} and ${err}")
endif()

include(${CMAKE_CURRENT_LIST_DIR}/../../test/support/tinystories.cmake)
require_tinystories()
execute_process(COMMAND ${GENERATE} ${model} "Once upon a time" RESULT_VARIABLE status OUTPUT_VARIABLE out
                ERROR_VARIABLE err)
if(NOT status EQUAL 0 OR NOT out MATCHES "^Once upon a time, a little girl named Lily " OR
   NOT err MATCHES "^prompt [0-9]+ tokens/s, decode [0-9]+ tokens/s\n$")
  message(FATAL_ERROR "expected a story and its speed, found status ${status}\n${out}\n${err}")
endif()
execute_process(COMMAND ${GENERATE} ${model} "Once upon a time" 0 "Tim" "irl nam" RESULT_VARIABLE status OUTPUT_VARIABLE out
                ERROR_VARIABLE err)
if(NOT status EQUAL 0 OR NOT out STREQUAL "Once upon a time, a little g\n")
  message(FATAL_ERROR "expected a story that is stopped, found status ${status}\n${out}\n${err}")
endif()
