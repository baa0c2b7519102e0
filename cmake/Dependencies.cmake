# SPDX-License-Identifier: MPL-2.0
# What the library itself needs. Tests and examples look for their own.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.9 REQUIRED)

# No version range accepts both 3.4.0 and 5.x (3.4.0's version file refuses every range), so the check is ours. A
# project around us may have brought Eigen already.
if(NOT TARGET Eigen3::Eigen)
  find_package(Eigen3 REQUIRED NO_MODULE)
  if(Eigen3_VERSION VERSION_LESS 3.4.0)
    message(FATAL_ERROR "EigenQ needs Eigen 3.4.0 or newer, found ${Eigen3_VERSION} in ${Eigen3_DIR}. "
                        "Point Eigen3_DIR or CMAKE_PREFIX_PATH at a newer one.")
  endif()
  message(STATUS "Eigen ${Eigen3_VERSION}: ${Eigen3_DIR}")
endif()
