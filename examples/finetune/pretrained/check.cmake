# SPDX-License-Identifier: MPL-2.0
# Runs FINETUNE --model on TinyStories-656K, from the folder of models that EIGENQ_MODELS names, or else from MODELS, and
# checks what it prints and writes below OUT.

file(REMOVE_RECURSE ${OUT})
include(${CMAKE_CURRENT_LIST_DIR}/../../../test/support/tinystories.cmake)
require_tinystories()

# run(STATUS PATTERN ARGUMENT…): expects that exit status, and PATTERN in what is printed.
function(run expected pattern)
  execute_process(COMMAND ${FINETUNE} --model ${model} --length 32 --batch 2 --steps 6 --warmup 2 ${ARGN}
                  RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(NOT status EQUAL expected OR NOT "${out}${err}" MATCHES "${pattern}")
    message(FATAL_ERROR "finetune --model ${ARGN}: expected status ${expected} and ${pattern}, found ${status}\n${out}${err}")
  endif()
endfunction()

function(expect_same name)
  file(SHA256 ${OUT}/whole/${name} whole)
  file(SHA256 ${OUT}/resumed/${name} resumed)
  if(NOT whole STREQUAL resumed)
    message(FATAL_ERROR "${name}: a resumed run wrote another one")
  endif()
endfunction()

set(nf4 --text ${TEXT} --quantize nf4 --dropout 0.1)
run(0 "held out, nats per token: [0-9.]+ before, [0-9.]+ after 6 updates" ${nf4} --adapter ${OUT}/whole)
foreach(file adapter_config.json adapter_model.safetensors loss.csv loss.svg)
  if(NOT EXISTS ${OUT}/whole/${file})
    message(FATAL_ERROR "${file} was not written")
  endif()
endforeach()

# A state of another run is refused; one that is resumed at its end writes the same adapter.
run(0 "wrote" ${nf4} --adapter ${OUT}/resumed --save-every 1)
file(REMOVE ${OUT}/resumed/adapter_model.safetensors)
run(1 "learning_rate: expected 0.5.*, found 0.001" ${nf4} --adapter ${OUT}/resumed --resume --lr 0.5)
run(0 "wrote" ${nf4} --adapter ${OUT}/resumed --save-every 1 --resume)
expect_same(adapter_model.safetensors)
expect_same(loss.csv)

# Prompts with completions, an adapter to begin with, 8-bit weights and moments.
set(lines "")
foreach(a RANGE 1 30)
  math(EXPR b "${a} * 7")
  string(APPEND lines "{\"prompt\": \"${a} times 7 is \", \"completion\": \"${b}\"}\n")
endforeach()
file(WRITE ${OUT}/tables.jsonl "${lines}")
run(0 "29 sequences, and 1 held out" --jsonl ${OUT}/tables.jsonl --hold-out 0.03 --quantize int8 --adamw8bit
    --checkpoint --accumulate 2 --adapter ${OUT}/tables --init ${OUT}/whole)

run(1 "found none that match" ${nf4} --targets c_attn --adapter ${OUT}/none)
run(1 "--accumulate: expected at most [0-9]+, the batches that [0-9]+ sequences fill, found 9223372036854775807" ${nf4}
    --accumulate 9223372036854775807 --adapter ${OUT}/none)
file(WRITE ${OUT}/short "Two words")
run(1 "shorter than a sequence" --text ${OUT}/short --adapter ${OUT}/none)
run(106 "--text or --jsonl" --adapter ${OUT}/none)
