#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Draws what eigenq_bench_fourbit prints: time against the rows of X, a panel a file of its output.

python3 bench/plot_cpu.py --shape 11008x4096 --out doc/perf-nf4-cpu.svg "AVX2"=avx2.md "AVX-512"=avx512.md
Needs matplotlib."""

import argparse
import re

from plot import plt, save, set_axes

STYLES = {"EigenQ": {"color": "tab:blue", "marker": "o", "linewidth": 2, "markersize": 4},
          "OpenBLAS": {"color": "tab:gray", "marker": "^", "markersize": 3},
          "oneDNN": {"color": "tab:red", "marker": "s", "markersize": 3}}


def lines_of(path, shape):
    """{name: [(rows, ms)]} of the products X·Wᵀ of that shape."""
    found, names = {}, []
    with open(path, encoding="utf-8") as file:
        for text in file:
            cells = [cell.strip() for cell in text.strip().strip("|").split("|")]
            if cells[0] == "product":
                names = [re.sub(r":.*", "", cell) for cell in cells[7:] if cell]
            if cells[0] != "X Wᵀ" or cells[1].replace("×", "x") != shape:
                continue
            times = [cells[3]] + [cell.split(" ms")[0] for cell in cells[7:] if cell]
            for name, time in zip(["EigenQ"] + names, times):
                found.setdefault(name, []).append((int(cells[2]), float(time)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="+", metavar="TITLE=FILE")
    parser.add_argument("--shape", default="11008x4096", help="NxK")
    parser.add_argument("--out", required=True, help="file to write, .svg")
    args = parser.parse_args()
    figure, panels = plt.subplots(1, len(args.outputs), figsize=(4 * len(args.outputs), 3.4), squeeze=False, sharey=True)
    for axes, output in zip(panels[0], args.outputs):
        title, _, path = output.partition("=")
        lines = lines_of(path, args.shape)
        if not lines:
            parser.error(f"{path} has no products of {args.shape}")
        for name, points in lines.items():
            if name in STYLES:
                axes.plot(*zip(*points), label=name + ("" if name == "EigenQ" else ", dense float"), **STYLES[name])
        set_axes(axes, f"{title}, W {args.shape.replace('x', '×')}")
    save(figure, panels, "milliseconds", args.out)


if __name__ == "__main__":
    main()
