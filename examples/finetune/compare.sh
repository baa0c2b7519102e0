#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# compare.sh FINETUNE [OPTION…]: runs the job on the CPU and with --device cuda, and compares the losses of every step.
#
# Prints the largest relative deviation of each phase and both times. Fails where one exceeds EIGENQ_LOSS_TOLERANCE, 1e-4
# if not set: the two add up in other orders, and training spreads that noise. After hundreds of steps it is chaos that
# no two orders share (doc/finetune.md): set 0.05 for a full run. Without options: a run of seconds on texts of this
# repository. Needs the program alone, no build tools. Without a GPU it exits with 77, which CTest calls skipped.
set -eu -o pipefail

case ${1:-} in
  '' | -h | --help) sed -n '3,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
esac
finetune=$(realpath "$1") root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
shift
(($#)) || set -- --quick --train "$root/COPYING.MPL2" --tune "$root/HACKING.md"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# run DEVICE OPTION…: into $out/DEVICE; sets $seconds. What the program says on stderr goes to a file beside it.
run() {
  local device=$1 start=${EPOCHREALTIME/,/.}
  shift
  "$finetune" "$@" --device "$device" --out "$out/$device" >"$out/$device.out" 2>"$out/$device.err" || return
  seconds=$(awk -v a="$start" -v b="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f", b - a }')
}

seconds=0
if ! run cuda "$@"; then
  if grep -qE 'cudaError(NoDevice|InsufficientDriver|StubLibrary)|without EigenQ::Cuda' "$out/cuda.err"; then
    echo "skipped: $(tail -1 "$out/cuda.err")"
    exit 77
  fi
  cat "$out/cuda.out" "$out/cuda.err"
  exit 1
fi
cuda=$seconds
run cpu "$@" || { cat "$out/cpu.out" "$out/cpu.err"; exit 1; }
cpu=$seconds

for device in cpu cuda; do
  printf '%s\n' "-- $device"
  grep -E '^(variant|float|int8|NF4|second text, held|frozen)' "$out/$device.out"
done
bytes() { awk '/^(float|int8|NF4) / { print $1, $2, $3 }' "$out/$1.out"; }
[[ $(bytes cpu) == "$(bytes cuda)" ]] || { echo 'sizes of the weights differ'; failed=1; }
printf '\n%-13s %6s  %-12s %-12s %-18s %s\n' phase steps 'first step' 'first 100' 'largest, at step' 'held out'
# Columns 1 to 5 are the CPU's, 6 to 10 the device's: phase, step, learning rate, training loss, held-out loss.
paste -d, "$out/cpu/loss.csv" "$out/cuda/loss.csv" |
  awk -F, -v limit="${EIGENQ_LOSS_TOLERANCE:-1e-4}" '
    function deviation(a, b) { return a == b ? 0 : a == "" || b == "" ? 1e300 : (a > b ? a - b : b - a) / a }
    NR == 1 { next }
    $1 != $6 || $2 != $7 || $3 != $8 { print "line " NR ": " $0 ": phase, step or learning rate differ"; failed = 1 }
    { phase[$1] = 1 }
    $2 > 0 { d = deviation($4, $9); ++steps[$1]; if ($2 == 1) first[$1] = d }
    $2 > 0 && $2 <= 100 && d > early[$1] { early[$1] = d }
    $2 > 0 && d >= most[$1] { most[$1] = d; at[$1] = $2 }
    { d = deviation($5, $10); if (d > heldOut[$1]) heldOut[$1] = d }
    END {
      for (p in phase) {
        printf "%-13s %6d  %-12.2g %-12.2g %-9.2g %-8d %.2g\n", p, steps[p], first[p], early[p], most[p], at[p], heldOut[p]
        if (!(most[p] <= limit && heldOut[p] <= limit)) failed = 1
      }
      if (NR < 3) { print "no steps to compare"; failed = 1 }
      if (failed) print "deviates by more than " limit
      exit failed
    }' || failed=1
awk -v cpu="$cpu" -v cuda="$cuda" 'BEGIN { printf "time: cpu %.1f s, cuda %.1f s: %.1f times as fast\n", cpu, cuda, cpu / cuda }'
exit "${failed:-0}"
