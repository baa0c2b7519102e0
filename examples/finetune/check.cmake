# SPDX-License-Identifier: MPL-2.0
# Runs FINETUNE as a user would, on SOURCE's licence and on multiplication tables, and checks what it prints and writes
# below OUT.

file(REMOVE_RECURSE ${OUT})
set(tables "")
foreach(a RANGE 1 60)
  foreach(b RANGE 1 10)
    math(EXPR product "${a} * ${b}")
    string(APPEND tables "${a} times ${b} is ${product}.\n")
  endforeach()
  string(APPEND tables "\n")
endforeach()
file(WRITE ${OUT}/tables "${tables}")
set(texts --train ${SOURCE}/COPYING.MPL2 --tune ${OUT}/tables)

function(expect_match text pattern)
  if(NOT text MATCHES "${pattern}")
    message(FATAL_ERROR "expected to match ${pattern}, found:\n${text}")
  endif()
endfunction()

# quick_run(NAME ARGUMENT…): a short run into OUT/NAME; NAME_out is what it prints, less the line that names the folder.
function(quick_run name)
  execute_process(COMMAND ${FINETUNE} --quick ${texts} --out ${OUT}/${name} ${ARGN}
                  RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "finetune --quick ${ARGN}: status ${status}\n${out}\n${err}")
  endif()
  string(REGEX REPLACE "wrote [^\n]*\n" "" out "${out}")
  set(${name}_out "${out}" PARENT_SCOPE)
endfunction()

# expect_error(PATTERN ARGUMENT…): fails before any training, with a message.
function(expect_error pattern)
  execute_process(COMMAND ${FINETUNE} --quick ${ARGN} WORKING_DIRECTORY ${OUT}
                  RESULT_VARIABLE status OUTPUT_VARIABLE out ERROR_VARIABLE err)
  if(status EQUAL 0)
    message(FATAL_ERROR "finetune ${ARGN}: expected a failure, found status 0")
  endif()
  expect_match("${out}${err}" "${pattern}")
endfunction()

function(expect_same what a b)
  if(NOT a STREQUAL b)
    message(FATAL_ERROR "${what} differ:\n${a}\n---\n${b}")
  endif()
endfunction()

# What it prints.
quick_run(first --threads 2)
foreach(variant float int8 NF4)
  expect_match("${first_out}" "${variant} +[0-9]+ +[0-9.]+ +[0-9.]+ +[+-][0-9.]+ %")
endforeach()
expect_match("${first_out}" "second text, held out: perplexity [0-9.]+ before, [0-9.]+ after \\(-[0-9.]+ %\\)")
expect_match("${first_out}" "unchanged to the bit")

# What it writes: a header, steps 0 to 60 and 0 to 40; a picture; nothing half written.
file(STRINGS ${OUT}/first/loss.csv rows)
list(LENGTH rows count)
if(NOT count EQUAL 103)
  message(FATAL_ERROR "loss.csv: expected 103 rows, found ${count}")
endif()
file(READ ${OUT}/first/loss.svg svg)
expect_match("${svg}" "^<svg .*<polyline .*<circle .*</svg>\n$")
if(PYTHON)
  execute_process(COMMAND ${PYTHON} -c "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])"
                          ${OUT}/first/loss.svg COMMAND_ERROR_IS_FATAL ANY)
endif()
file(GLOB files RELATIVE ${OUT}/first ${OUT}/first/* ${OUT}/first/.p*)
expect_same("files" "${files}" "loss.csv;loss.svg")

# The same seed: the same losses and the same words, whatever the number of threads; another seed: others.
quick_run(second --threads 1)
expect_same("two runs" "${first_out}" "${second_out}")
file(READ ${OUT}/first/loss.csv csv_first)
file(READ ${OUT}/second/loss.csv csv_second)
expect_same("curves" "${csv_first}" "${csv_second}")
quick_run(third --seed 2 --steps 2 --tune-steps 1)
if("${third_out}" STREQUAL "${first_out}")
  message(FATAL_ERROR "another seed printed the same")
endif()

expect_error("--heads 3 does not divide --hidden 64" --heads 3)
expect_error("--kv-heads 3 does not divide --heads 4" --kv-heads 3)
expect_error("--shards 3 does not divide --batch 8" --shards 3)
expect_error("--hidden / --heads is 1" --hidden 4 --heads 4)
expect_error("--block-size.*48" --block-size 48)
expect_error("--lr" --lr nonsense)
expect_error("--context" --context 0)
expect_error("--unknown" --unknown)
expect_error("--device: gpu not in {cpu,cuda}" --device gpu)
if(WITH_CUDA)
  set(ENV{CUDA_VISIBLE_DEVICES} "")  # also where there is a GPU
  expect_error("finetune: .*cudaError(NoDevice|InsufficientDriver|StubLibrary)" ${texts} --device cuda)
else()
  expect_error("finetune: --device cuda: this program was built without EigenQ::Cuda" ${texts} --device cuda)
endif()
expect_error("expected at least 100001 bytes" ${texts} --context 100000)
expect_error("--batch: expected at most [0-9]+, the windows .*, found 1000000" ${texts} --batch 1000000)
expect_error("--hidden: .*9223372036854775807.*65536" --hidden 9223372036854775807)
expect_error("nowhere: cannot be opened" ${texts} --train ${OUT}/nowhere)
expect_error("package 'fortunes' provides it" --train /usr/share/games/fortunes/no-such-fortune)
expect_error("not a text" ${texts} --train ${FINETUNE})
expect_error("cannot be created" ${texts} --out ${SOURCE}/COPYING.MPL2/out)
