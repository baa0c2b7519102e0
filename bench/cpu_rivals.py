#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Times the quantisers of bitsandbytes on the CPU, one thread: beside eigenq_bench_quantize 1, on the same machine.

Prints a line of markdown for each: median of nine in milliseconds of the thread's own time. Results are new tensors, so
that their pages are a part of each time, as they are for who calls it. Needs torch and bitsandbytes.
"""

import statistics
import time

import bitsandbytes.functional as F
import torch

SIZE = 4096
SAMPLES = 9


def median_ms(work):
    work()
    times = []
    for _ in range(SAMPLES):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return statistics.median(times) * 1e3


def report(name, work):
    print(f"| {name} | {median_ms(work):.2f} |", flush=True)


def main():
    torch.set_num_threads(1)
    x = torch.rand(SIZE, SIZE) * 2 - 1
    print("| work | ms |\n|---|---|")
    report("copy to a new tensor", x.clone)
    for name, values in (("float", x), ("bfloat16", x.bfloat16())):
        for kind in ("nf4", "fp4"):
            report(f"quantise {kind}, {name}", lambda: F.quantize_4bit(values, quant_type=kind, blocksize=64))
            packed, state = F.quantize_4bit(values, quant_type=kind, blocksize=64)
            report(f"dequantise {kind}, {name}", lambda: F.dequantize_4bit(packed, state))
    report("quantise nf4, nested", lambda: F.quantize_4bit(x, quant_type="nf4", blocksize=64, compress_statistics=True))
    report("quantise int8 rows, half", lambda: F.int8_vectorwise_quant(x.half()))


if __name__ == "__main__":
    main()
