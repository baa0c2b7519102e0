# SPDX-License-Identifier: MPL-2.0
# Debian's cross compiler for 64-bit ARM. Headers come from /usr/include, libraries from nowhere; qemu runs programs.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64;-L;/usr/aarch64-linux-gnu)
