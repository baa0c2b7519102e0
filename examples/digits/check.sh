#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
# check.sh DIGITS: a short run of the example on scikit-learn's digits, as Debian's python3-sklearn carries them. Exits
# with 77, which CTest reports as skipped, where they are not installed.
digits=$1
data=/usr/lib/python3/dist-packages/sklearn/datasets/data/digits.csv.gz
if [ ! -r "$data" ]; then
  echo "skipped: $data is not there; the Debian package python3-sklearn provides it"
  exit 77
fi

fail() {
  echo "$1"
  exit 1
}

gzip -dc "$data" | "$digits" - --epochs 12 || fail "a path is off, or the run failed: see above"

# What is no such table is refused, by line.
echo 1,2,3 | "$digits" - && fail "3 values were accepted"
message=$(gzip -dc "$data" | sed '3s/^0/17/' | "$digits" - 2>&1 >/dev/null) && fail "a pixel of 17 was accepted"
[ "$message" = "digits: standard input: line 3: value 1: expected an integer from 0 to 16" ] ||
  fail "unexpected message: $message"
