# SPDX-License-Identifier: MPL-2.0
# shellcheck shell=bash disable=SC2034,SC2164
# Shared by the scripts of this folder; sourced with bash -eu -o pipefail. Leaves the shell in the repository root.

called_from=$PWD
script=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc)

die() {
  printf '%s: %s\n' "${script##*/}" "$*" >&2
  exit 1
}

# The comment at the head of the calling script is its help text.
usage() { sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$script"; }

have() { command -v "$1" >/dev/null; }

# is_installed PACKAGE or PACKAGE=COMMAND: the command will do, wherever it came from.
is_installed() {
  if [[ $1 == *=* ]] && have "${1#*=}"; then return; fi
  [[ $(dpkg-query -W -f='${Status}' "${1%=*}" 2>/dev/null) == 'install ok installed' ]]
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif [[ -t 0 ]]; then
    sudo "$@"
  else
    sudo -n "$@"  # nobody is there to type a password
  fi
}

apt_install() {
  # A fresh machine has no package lists yet, an old one stale ones: fetch them when the first try fails.
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@")
  as_root "${install[@]}" || { as_root apt-get update && as_root "${install[@]}"; }
}

# need_packages PACKAGE[=COMMAND]…: installs the missing Debian packages, or says which ones somebody has to install.
need_packages() {
  local package missing=()
  if ! have dpkg-query; then
    echo "not a Debian system: expecting what these packages hold to be installed already: ${*%=*}" >&2
    return
  fi
  for package; do
    is_installed "$package" || missing+=("${package%=*}")
  done
  ((${#missing[@]})) || return 0
  echo "installing missing packages: ${missing[*]}"
  if [[ $(id -u) != 0 ]] && ! have sudo; then
    die "no root and no sudo here; please install: apt-get install ${missing[*]}"
  fi
  apt_install "${missing[@]}" || die "that failed; please install: apt-get install ${missing[*]}"
}

# What every build needs, and the packages named. CXX chooses another compiler than g++, as CMake reads it.
need_build_packages() {
  [[ -n ${CXX:-} ]] || set -- g++=g++ "$@"
  need_packages cmake=cmake ninja-build=ninja libeigen3-dev libboost-test-dev libcli11-dev nlohmann-json3-dev \
    pkg-config=pkg-config libpcre2-dev libutf8proc-dev "$@"
}
