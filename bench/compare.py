#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Sets the JSON of eigenq_bench_gpu beside that of rivals.py: markdown tables of times, shares of the limit, and
ratios. A ratio above 1 says that EigenQ is faster."""

import argparse
import json
import math
import sys

REGIMES = [(1, 1), (2, 2), (4, 16), (32, 32), (64, 64), (128, 128), (256, 512), (2048, 1 << 40)]
DENSE = ("dense", "dense-backward", "lora-dense")


def cells_of(path):
    with open(path, encoding="utf-8") as file:
        data = json.load(file)
    cells = {(c["kernel"], c["n"], c["k"], c["m"]): c for c in data["cells"] if "us" in c}
    failed = [c for c in data["cells"] if "error" in c]
    return data, cells, failed


class Comparison:
    def __init__(self, ours, rivals):
        self.ours = ours
        self.rivals = rivals
        self.kernels = list(dict.fromkeys(key[0] for key in ours))

    def ratio(self, key, rival_kernel):
        rival = self.rivals.get((rival_kernel, *key[1:]))
        return rival["us"] / self.ours[key]["us"] if rival else None

    def against_bitsandbytes(self, key):
        if key[0] in DENSE:
            return None
        return self.ratio(key, key[0].removesuffix("-eager"))

    def against_dense(self, key):
        if not key[3]:
            return None
        if "lora" in key[0]:
            return self.ratio(key, "lora-dense")
        return self.ratio(key, "dense-backward" if key[0].endswith("-backward") else "dense")

    def share(self, key):
        return self.ours[key]["limit_us"] / self.ours[key]["us"]


def times(value):
    return "–" if value is None else f"{value:.2f}×"


def duration(us):
    return f"{us:.0f}" if us >= 1000 else f"{us:.3g}"


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def product_table(c, kernel):
    keys = [key for key in c.ours if key[0] == kernel]
    rows_of_x = sorted({key[3] for key in keys})
    lines = []
    for n, k in dict.fromkeys(key[1:3] for key in keys):
        line = [f"{n}×{k}"]
        for m in rows_of_x:
            key = (kernel, n, k, m)
            if key not in c.ours:
                line.append("")
                continue
            parts = [f"{duration(c.ours[key]['us'])} us ({100 * c.share(key):.0f} %)"]
            parts += [times(r) for r in (c.against_bitsandbytes(key), c.against_dense(key)) if r is not None]
            line.append(", ".join(parts))
        lines.append(line)
    rivals = "cuBLAS in PyTorch" if kernel in DENSE else "bitsandbytes (where it has the like), cuBLAS in PyTorch"
    print(f"### {kernel}\n\nMedian (share of the limit), ratios to {rivals}.\n")
    table(["N×K"] + [f"M={m}" for m in rows_of_x], lines)
    paths = {}
    for key in keys:
        paths.setdefault(c.ours[key]["path"], set()).add(key[3])
    print("Kernels: " + "; ".join(f"{p} (M = {', '.join(map(str, sorted(ms)))})" for p, ms in paths.items()) + ".\n")


def spread(values):
    values = [v for v in values if v is not None]
    if not values:
        return "–"
    mean = math.exp(sum(map(math.log, values)) / len(values))
    return f"{mean:.2f}× ({min(values):.2f} to {max(values):.2f})"


def regime_table(c):
    lines = []
    for kernel in c.kernels:
        for low, high in REGIMES:
            keys = [key for key in c.ours if key[0] == kernel and low <= key[3] <= high]
            if not keys:
                continue
            shares = [c.share(key) for key in keys]
            m = f"{low}" if low == high else f"≥ {low}" if high > 1e6 else f"{low}–{high}"
            lines.append(
                [
                    kernel,
                    m,
                    spread([c.against_bitsandbytes(key) for key in keys]),
                    spread([c.against_dense(key) for key in keys]),
                    f"{100 * min(shares):.0f}–{100 * max(shares):.0f} %",
                ]
            )
    print("## By regime\n\nGeometric mean over the shapes (worst to best).\n")
    table(["kernel", "M", "vs bitsandbytes", "vs cuBLAS", "share of the limit"], lines)


def quantizer_table(c):
    keys = [key for key in c.ours if key[3] == 0]
    if not keys:
        return
    print("## Quantisers\n")
    lines = [
        [
            key[0],
            f"{key[1]}×{key[2]}",
            f"{duration(c.ours[key]['us'])} ± {c.ours[key]['spread_us']:.2g}",
            f"{100 * c.share(key):.0f} %",
            times(c.against_bitsandbytes(key)),
        ]
        for key in keys
    ]
    table(["kernel", "N×K", "us", "share of copy bandwidth", "vs bitsandbytes"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours", help="written by eigenq_bench_gpu --json")
    parser.add_argument("rivals", help="written by rivals.py --json")
    args = parser.parse_args()
    our_data, ours, our_failures = cells_of(args.ours)
    rival_data, rivals, rival_failures = cells_of(args.rivals)
    for name in ("device", "scalar"):
        if our_data[name] != rival_data[name]:
            sys.exit(f"not comparable: {name} is {our_data[name]} here and {rival_data[name]} there")

    print(
        f"{our_data['device']}, activations {our_data['scalar']}; reads {our_data['read_tbs']:.2f} TB/s, copies "
        f"{our_data['copy_tbs']:.2f} TB/s, taken for the limit with {our_data['bf16_tflops']:.0f} TFLOP/s in bf16 and "
        f"{our_data['int8_tops']:.0f} TOP/s in int8; torch {rival_data['torch']}, "
        f"bitsandbytes {rival_data['bitsandbytes']}.\n"
    )
    c = Comparison(ours, rivals)
    regime_table(c)
    quantizer_table(c)
    print("## By shape\n")
    for kernel in c.kernels:
        if any(key[0] == kernel and key[3] for key in ours):
            product_table(c, kernel)
    for cell in our_failures + rival_failures:
        print(f"Not measured: {cell['kernel']} {cell['n']}×{cell['k']} M={cell['m']}: {cell['error']}\n")
    return 1 if our_failures else 0


if __name__ == "__main__":
    sys.exit(main())
