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
# A stop string that begins and ends inside tokens; the second prompt's text does not have it.
succeed(generate ${model} --prompt "Once upon a time" --max-tokens 20 --stop "irl nam" --stop "[Lily]")
expect_same("the text before a stop string" "${out}" "Once upon a time, a little g\n")
file(WRITE ${OUT}/prompts "Once upon a time\nTim and Sue\n")
succeed(generate ${model} --batch prompts --max-tokens 20 --stop "irl nam")
expect_match("${out}" "\"text\":\", a little g\",[^\n]*}\n.*\"text\":\" are friends[^\n]*\"tokens\":20}\n$")
# transformers 5.23: model.generate(ids, max_new_tokens=60, do_sample=False, repetition_penalty=1.2)
succeed(generate ${model} --prompt "Once upon a time" --max-tokens 60 --repetition-penalty 1.2)
expect_same("penalised text" "${out}" "Once upon a time, a little girl named Lily lived in a small house with her mom, \
dad, and her dog, Spot. Lily loved to play with the big ball and run around the house. One day, she saw a small bird on the \
ground. The bird looked sad and lost.\nLily asked the bird, \"What is that?\" Her mom said, \"It is a good idea. Let's go \
inside and see what it is.\" Lily and \n")
succeed(quantize ${model} nf4 --to nf4)
expect_match("${out}" "whole model: 2624000 bytes before, ")
succeed(eval nf4 --text text)
expect_close("nll of the stored model" "${out}" "nll 3.55000" 50)
