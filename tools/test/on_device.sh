#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# on_device.sh EIGENQ MAKE_MODEL: the subcommands that compute, on the CPU and with --device cuda, compared. MAKE_MODEL is
# eigenq_tool_model. Needs the two programs alone, no build tools. Without a GPU it exits with 77, which CTest calls
# skipped.
set -eu -o pipefail

eigenq=$(realpath "$1") make_model=$(realpath "$2")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$out"
"$make_model" model
for i in {1..60}; do echo "The square of $i is $((i * i))."; done >text

if ! "$eigenq" eval model --text text --device cuda --dtype float >cuda.out 2>cuda.err; then
  if grep -qE 'cudaError(NoDevice|InsufficientDriver|StubLibrary)|without EigenQ::Cuda' cuda.err; then
    echo "skipped: $(tail -1 cuda.err)"
    exit 77
  fi
  cat cuda.err
  exit 1
fi

failed=0
# compare WHAT A B TOLERANCE: two numbers, relative to the first.
compare() {
  awk -v what="$1" -v a="$2" -v b="$3" -v limit="$4" 'BEGIN {
    d = (a > b ? a - b : b - a) / a
    printf "%-36s %s on the CPU, %s on the device%s\n", what, a, b, d <= limit ? "" : ": expected within " limit
    exit d > limit || a == "" || b == ""
  }' || failed=1
}
nll() { "$eigenq" eval model --text text "$@" 2>eval.err | awk '$1 == "nll" { print $2 }'; }

for format in dense nf4 fp4 int8-weights; do
  cpu=$(nll --quantize $format)
  compare "eval, $format, float" "$cpu" "$(nll --quantize $format --device cuda --dtype float)" 2e-5
  # Activations of 8 bits: the losses of single tokens differ by less than 1 %, their mean by far less.
  compare "eval, $format, bfloat16" "$cpu" "$(nll --quantize $format --device cuda)" 3e-3
  compare "eval, $format, half" "$cpu" "$(nll --quantize $format --device cuda --dtype half)" 5e-4
done

story=(generate model --prompt "The square" --max-tokens 20 --ignore-eos)
if [[ $("$eigenq" "${story[@]}" 2>cpu.err) != "$("$eigenq" "${story[@]}" --device cuda --dtype float 2>cuda.err)" ]]; then
  echo 'generate: the likeliest tokens differ'
  failed=1
fi

run=(--text text --length 32 --r 4 --target-modules all-linear --quantize nf4 --batch 4 --steps 40 --lr 1e-2)
held_out() { sed -n 's/^held out .*, \([0-9.]*\) after; .*/\1/p' "$1"; }
"$eigenq" finetune model on-cpu "${run[@]}" >cpu.out 2>cpu.err
for dtype in float bfloat16 half; do
  "$eigenq" finetune model "on-$dtype" "${run[@]}" --device cuda --dtype $dtype >cuda.out 2>cuda.err ||
    { cat cuda.err; failed=1; }
  compare "finetune, $dtype, held out" "$(held_out cpu.out)" "$(held_out cuda.out)" 1e-2
done
exit $failed
