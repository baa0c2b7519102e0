# SPDX-License-Identifier: MPL-2.0
# Headers, library, CMake package and pkg-config file. All of it is relocatable: no file holds an absolute path.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/EigenQ)

install(TARGETS eigenq eigenq_io eigenq_llm EXPORT EigenQTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET eigenq_cuda)
  # An export set of its own: only who asks for the component needs a CUDA toolkit.
  install(TARGETS eigenq_cuda EXPORT EigenQCudaTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT EigenQCudaTargets NAMESPACE EigenQ:: DESTINATION ${package_dir})
endif()
if(TARGET eigenq_tokenizer)
  # As above: PCRE2 and utf8proc.
  install(TARGETS eigenq_tokenizer EXPORT EigenQTokenizerTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT EigenQTokenizerTargets NAMESPACE EigenQ:: DESTINATION ${package_dir})
endif()
install(DIRECTORY include/eigen_q DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY unsupported/eigen_q DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/unsupported)
install(EXPORT EigenQTargets NAMESPACE EigenQ:: DESTINATION ${package_dir})

configure_package_config_file(cmake/EigenQConfig.cmake.in EigenQConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(EigenQConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/EigenQConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/EigenQConfigVersion.cmake
        DESTINATION ${package_dir})

# From lib/pkgconfig back to the prefix, so that the tree can be moved as a whole.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pc_prefix ${pc_prefix})
get_target_property(library_type eigenq TYPE)
if(library_type STREQUAL STATIC_LIBRARY)
  set(pc_private_libs ${CMAKE_THREAD_LIBS_INIT})
endif()
configure_file(cmake/eigenq.pc.in eigenq.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/eigenq.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# install_pc(NAME DESCRIPTION REQUIRES): eigenq-NAME.pc of library eigenq_NAME; flags of headers come with what it requires.
function(install_pc name pc_description pc_requires)
  set(pc_name "EigenQ ${name}")
  set(pc_library eigenq_${name})
  configure_file(cmake/component.pc.in eigenq-${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/eigenq-${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

install_pc(io "Safetensors files and checkpoints of quantised matrices" "eigenq = ${PROJECT_VERSION}")
install_pc(llm "Language models with quantised weights, run and fine-tuned" "eigenq-io = ${PROJECT_VERSION}")
if(TARGET eigenq_tokenizer)
  set(pc_tokenizer_requires "eigenq = ${PROJECT_VERSION}")
  if(library_type STREQUAL STATIC_LIBRARY)
    # Whoever links the archive links these; a shared library brings them, and their development files are not needed.
    string(REPLACE ";" ", " pc_modules "${EIGENQ_TOKENIZER_MODULES}")
    string(REGEX REPLACE "(>=)" " \\1 " pc_modules "${pc_modules}")
    string(APPEND pc_tokenizer_requires ", ${pc_modules}")
  endif()
  install_pc(tokenizer "Byte-pair encoding from tokenizer.json" "${pc_tokenizer_requires}")
endif()
