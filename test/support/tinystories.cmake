# SPDX-License-Identifier: MPL-2.0
# For scripts that run a program on a real model.

# Sets model to TinyStories-656K in the folder of models that EIGENQ_MODELS names, or else in MODELS. Where it is not
# there it says so and ends the calling script.
macro(require_tinystories)
  if(DEFINED ENV{EIGENQ_MODELS})
    set(MODELS $ENV{EIGENQ_MODELS})
  endif()
  set(model ${MODELS}/tinystories-656k)
  if(NOT EXISTS ${model})
    message(STATUS "skipped: ${model} is not there; set EIGENQ_MODELS to the folder of models")
    return()
  endif()
endmacro()
