#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""cpu_rivals.py [THREADS]: the quantisers and optimisers of bitsandbytes and PyTorch on the CPU.

To be run beside eigenq_bench_quantize and eigenq_bench_training with as many threads, one unless asked for, on the same
machine. Prints a line of markdown for each: median of nine in milliseconds, one thread by its own clock. Quantisers make
new tensors, so that their pages are a part of each time, as they are for who calls them. Needs torch and bitsandbytes.
"""

import statistics
import sys
import time

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch

SIZE = 4096
SAMPLES = 9
THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1


def median_ms(work):
    clock = time.thread_time if THREADS == 1 else time.perf_counter
    work()
    times = []
    for _ in range(SAMPLES):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times) * 1e3


def report(name, work):
    print(f"| {name} | {median_ms(work):.2f} |", flush=True)


def report_optimisers():
    parameter = torch.nn.Parameter(torch.rand(SIZE, SIZE) * 2 - 1)
    parameter.grad = (torch.rand(SIZE, SIZE) * 2 - 1) * 1e-2
    for name, optimiser in (
        ("AdamW8bit, bitsandbytes", bnb.optim.AdamW8bit),
        ("Lion8bit, bitsandbytes", bnb.optim.Lion8bit),
        ("AdamW, PyTorch, fused", lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True)),
        ("AdamW, PyTorch", torch.optim.AdamW),
    ):
        report(name, optimiser([parameter], lr=1e-4).step)


def main():
    torch.set_num_threads(THREADS)
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
    report_optimisers()


if __name__ == "__main__":
    main()
