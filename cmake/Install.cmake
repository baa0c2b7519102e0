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
