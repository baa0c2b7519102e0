# SPDX-License-Identifier: MPL-2.0
# Runs TUTORIAL for two updates on the beginning of Shakespeare's plays, where model and text are: in the folder of
# models that EIGENQ_MODELS names, or below SHARED.

set(models ${SHARED}/models)
if(DEFINED ENV{EIGENQ_MODELS})
  set(models $ENV{EIGENQ_MODELS})
endif()
set(model ${models}/tinystories-656k)
set(text ${SHARED}/texts/tinyshakespeare.txt)
foreach(path ${model} ${text})
  if(NOT EXISTS ${path})
    message(STATUS "skipped: ${path} is not there")
    return()
  endif()
endforeach()
file(REMOVE_RECURSE ${OUT})
file(READ ${text} beginning LIMIT 30000)
file(WRITE ${OUT}/text "${beginning}")
execute_process(COMMAND ${TUTORIAL} ${model} ${OUT}/text ${OUT}/adapter 2 RESULT_VARIABLE status OUTPUT_VARIABLE out
                ERROR_VARIABLE err)
if(NOT status EQUAL 0 OR NOT out MATCHES "^held out: [0-9.]+ before, [0-9.]+ after\nROMEO:\n")
  message(FATAL_ERROR "status ${status}\n${out}\n${err}")
endif()
foreach(name adapter.state adapter/adapter_config.json adapter/adapter_model.safetensors)
  if(NOT EXISTS ${OUT}/${name})
    message(FATAL_ERROR "${name}: was not written")
  endif()
endforeach()
