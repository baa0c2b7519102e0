# SPDX-License-Identifier: MPL-2.0
# Runs EIGENQ on TinyStories-656K, from the folder of models that EIGENQ_MODELS names, or else from MODELS.

include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/../../test/support/tinystories.cmake)
require_tinystories()
file(REMOVE_RECURSE ${OUT})
file(MAKE_DIRECTORY ${OUT})
file(WRITE ${OUT}/text "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
                       "One day, she saw a big, red ball.")

# transformers 4.41 in float; the same with each projection through bitsandbytes' quantize_4bit and back.
succeed(eval ${model} --text text)
expect_close("nll in float" "${out}" "nll 3.53789" 50)
succeed(eval ${model} --text text --quantize nf4)
expect_close("nll in NF4" "${out}" "nll 3.55000" 50)
succeed(generate ${model} --prompt "Once upon a time" --max-tokens 20)
expect_match("${out}" "^Once upon a time, a little girl named Lily ")
succeed(quantize ${model} nf4 --to nf4)
expect_match("${out}" "whole model: 2624000 bytes before, ")
succeed(eval nf4 --text text)
expect_close("nll of the stored model" "${out}" "nll 3.55000" 50)
