# SPDX-License-Identifier: MPL-2.0
# cmake -D NM=… -D LIBRARY=libeigenq.a -P isolation.cmake: kernel files that are compiled for more than the baseline
# instruction set must share no function with the others. A weak symbol of theirs (an inline function, a template) could
# become the linker's choice for the whole program, which would then die on a lesser processor.

execute_process(COMMAND ${NM} -C --defined-only ${LIBRARY} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE ";" "," symbols "${symbols}")
string(REPLACE "\n" ";" lines "${symbols}")
set(members 0)
set(in_kernel FALSE)
set(shared "")
foreach(line IN LISTS lines)
  if(line MATCHES "^(.*\\.o):$")
    set(member ${CMAKE_MATCH_1})
    string(REGEX MATCH "^(convert|float|fourbit_gemv|int8|optimizer|product)_avx" in_kernel "${member}")
    if(in_kernel)
      math(EXPR members "${members} + 1")
    endif()
  elseif(in_kernel AND line MATCHES "^[0-9a-f]+ [VWu] (.*)$")
    string(APPEND shared "  ${member}: ${CMAKE_MATCH_1}\n")
  endif()
endforeach()
if(members EQUAL 0)
  message(FATAL_ERROR "${LIBRARY} has no member int8_avx* or product_avx*")
endif()
if(shared)
  message(FATAL_ERROR "These functions are compiled for AVX and visible to the linker:\n${shared}")
endif()
message("${members} kernel files share nothing")
