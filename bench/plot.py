#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Draws the JSON of eigenq_bench_gpu beside that of rivals.py: time against the rows of X, a panel a shape.

python3 bench/plot.py ours.json rivals.json --kernel nf4 --shape 4096x4096,28672x8192 --out doc/perf-nf4.svg
Needs matplotlib."""

import argparse

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
matplotlib.rcParams["svg.hashsalt"] = "eigenq"  # the same bytes from the same numbers
import matplotlib.pyplot as plt

from compare import cells_of


def line(axes, cells, kernel, shape, value, **style):
    """Draws value(cell) against M where there are cells of that kernel and shape."""
    points = sorted((key[3], value(cell)) for key, cell in cells.items() if key[0] == kernel and key[1:3] == shape)
    if points:
        axes.plot(*zip(*points), **style)


def set_axes(axes, title):
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("rows of X")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}")
    axes.grid(True, which="major", linewidth=0.3)


def save(figure, panels, unit, path):
    panels[0][0].set_ylabel(unit)
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def draw(axes, ours, rivals, kernel, shape):
    def time(cell):
        return cell["us"]

    dense = "dense-backward" if kernel.endswith("-backward") else "dense"
    line(axes, rivals, kernel, shape, time, label="bitsandbytes", color="tab:red", marker="s", markersize=3)
    line(axes, rivals, dense, shape, time, label="cuBLAS bf16", color="tab:gray", marker="^", markersize=3)
    line(axes, ours, kernel, shape, time, label="EigenQ", color="tab:blue", marker="o", markersize=4, linewidth=2)
    line(axes, ours, kernel, shape, lambda c: c["limit_us"], label="limit", color="black", linestyle=":", linewidth=1)
    set_axes(axes, f"W {shape[0]}×{shape[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours")
    parser.add_argument("rivals")
    parser.add_argument("--kernel", default="nf4")
    parser.add_argument("--shape", default="4096x4096,28672x8192", help="NxK, comma-separated")
    parser.add_argument("--out", required=True, help="file to write, .svg")
    args = parser.parse_args()
    ours, rivals = cells_of(args.ours)[1], cells_of(args.rivals)[1]
    shapes = [tuple(int(n) for n in shape.split("x")) for shape in args.shape.split(",")]
    missing = [shape for shape in shapes if not any(key[0] == args.kernel and key[1:3] == shape for key in ours)]
    if missing:
        parser.error(f"{args.ours} has no {args.kernel} of {missing}")
    figure, panels = plt.subplots(1, len(shapes), figsize=(4 * len(shapes), 3.4), squeeze=False)
    for axes, shape in zip(panels[0], shapes):
        draw(axes, ours, rivals, args.kernel, shape)
    save(figure, panels, "microseconds", args.out)


if __name__ == "__main__":
    main()
