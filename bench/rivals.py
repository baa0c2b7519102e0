#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Times bitsandbytes and PyTorch's dense products on the work of eigenq_bench_gpu, and by its method: cold weights in
turn, CUDA graphs where the call can be captured, medians. Needs torch, bitsandbytes and peft; writes JSON."""

import argparse
import json
import logging
import math
import sys
import time

import torch

import bitsandbytes as bnb
import bitsandbytes.functional as F
import peft

SHAPES = "4096x4096,11008x4096,4096x11008,14336x4096,8192x8192,28672x8192"
ROWS = "1,2,4,8,16,32,64,128,256,512,2048,8192"
QUICK_SHAPES = "4096x4096,28672x8192"
QUICK_ROWS = "1,16,2048"
SCALARS = {"bf16": torch.bfloat16, "half": torch.float16, "float": torch.float32}

COLD_BYTES = 120e6
GRAPH_SECONDS = 400e-6  # a graph this long hides what launching the next one costs
FEWEST_SAMPLES, MOST_SAMPLES = 7, 100
FEWEST_CALLS, MOST_CALLS = 40, 512  # of short calls in a graph: eagerly they take the host's time, which says little
EAGER_SAMPLES = 11
OUTLIER_COLUMNS = 10
ADAPTER_ROWS = 4096
ADAPTER_RANK = 64
WEIGHT_DEVIATION = 0.02


def clamped(value, fewest, most):
    return int(max(fewest, min(value, most)))


def summarise(samples, mode):
    samples = sorted(samples)
    n = len(samples)
    return {
        "us": 1e6 * samples[n // 2],
        "spread_us": 1e6 * (samples[3 * n // 4] - samples[n // 4]) / 2,
        "samples": n,
        "mode": mode,
    }


def rough_duration(call, copies):
    call(0)
    calls = 3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for i in range(calls):
        call((i + 1) % copies)
    end.record()
    torch.cuda.synchronize()
    return max(1e-3 * start.elapsed_time(end) / calls, 1e-7)


def capture(call, copies, first, calls, pool):
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        for i in range(1, calls + 1):
            call((first + calls - i) % copies)
    finally:
        graph.capture_end()  # a stream left in capture would spoil every later cell
    return graph, calls


def measure_graph(call, copies, budget):
    """As ReplayTimer: whole rounds of copies in one graph, or several graphs in turn where calls are long."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        seconds = rough_duration(call, copies)
        wanted = clamped(math.ceil(GRAPH_SECONDS / seconds), 1, MOST_CALLS)
        if seconds < GRAPH_SECONDS / FEWEST_CALLS * 8:
            wanted = max(wanted, FEWEST_CALLS)
        replays = clamped(budget / (seconds * wanted), FEWEST_SAMPLES, MOST_SAMPLES)
        pool = torch.cuda.graph_pool_handle()
        if wanted >= copies:
            graphs = [capture(call, copies, 0, -(-wanted // copies) * copies, pool)]
        else:
            firsts = list(range(0, copies, wanted))[:replays]
            graphs = [capture(call, copies, f, min(wanted, copies - f), pool) for f in firsts]
        for i in range(max(len(graphs), replays // 8)):
            graphs[i % len(graphs)][0].replay()
        events = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
        events[0].record()
        for i in range(replays):
            graphs[i % len(graphs)][0].replay()
            events[i + 1].record()
        torch.cuda.synchronize()
    samples = [
        1e-3 * events[i].elapsed_time(events[i + 1]) / graphs[i % len(graphs)][1] for i in range(replays)
    ]
    return summarise(samples, "graph")


def measure_eager(call, copies, budget):
    """Wall time of the host, with the wait at the end."""
    position = 0

    def seconds_for(calls):
        nonlocal position
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            position = (position + 1) % copies
            call(position)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls

    seconds_for(copies)
    calls = clamped(budget / (EAGER_SAMPLES * seconds_for(copies)), 1, 10000)
    return summarise([seconds_for(calls) for _ in range(EAGER_SAMPLES)], "eager")


def cold_copies(weight_bytes):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(4, int(max(COLD_BYTES, 2 * cache) / weight_bytes) + 1)


def random_weights(n, k, dtype):
    return torch.randn(n, k, device="cuda", dtype=dtype).mul_(WEIGHT_DEVIATION)


def activations(rows, cols, dtype, outliers=False):
    x = torch.randn(rows, cols, device="cuda", dtype=dtype)
    if outliers:
        apart = cols // OUTLIER_COLUMNS
        at = torch.arange(OUTLIER_COLUMNS, device="cuda") * apart + apart // 2
        magnitude = 8 + 8 * torch.rand(rows, OUTLIER_COLUMNS, device="cuda", dtype=dtype)
        x[:, at] = torch.where(torch.rand_like(magnitude) < 0.5, magnitude, -magnitude)
    return x


def require_close(found, exact):
    error = torch.linalg.norm((found - exact).float()) / torch.linalg.norm(exact.float())
    if not error < 0.15:
        raise RuntimeError(f"relative error {error.item():.3g}")


# Each rival: of (n, k, dtype), what prepares it; a product's call takes X and a copy, any other's a copy.


class Rival:
    product = True
    backward = False
    outliers = False
    graph = True
    rows = None  # of X, whatever --m says

    def check(self, x):
        """The work is what it is taken for: within the error of its format, the dense product."""
        w = self.dense.to(x.dtype)
        exact = torch.matmul(x, w) if self.backward else torch.nn.functional.linear(x, w)
        require_close(self.call(x, 0), exact)


class Dense(Rival):
    name = "dense"

    def __init__(self, n, k, dtype):
        self.copies = cold_copies(n * k * dtype.itemsize)
        self.weights = [random_weights(n, k, dtype) for _ in range(self.copies)]
        self.dense = self.weights[0]

    def call(self, x, copy):
        return torch.nn.functional.linear(x, self.weights[copy])


class DenseBackward(Dense):
    name = "dense-backward"
    backward = True

    def call(self, x, copy):
        return torch.matmul(x, self.weights[copy])


class NF4(Rival):
    name = "nf4"
    nested = False

    def __init__(self, n, k, dtype):
        self.copies = cold_copies(n * k * (0.5 + (1 / 64 if self.nested else 4 / 64)))
        self.quantised = []
        for copy in range(self.copies):
            w = random_weights(n, k, dtype)
            if copy == 0:
                self.dense = w
            self.quantised.append(F.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=self.nested))

    def call(self, x, copy):
        packed, state = self.quantised[copy]
        return bnb.matmul_4bit(x, packed.t(), state)


class NF4Nested(NF4):
    name = "nf4-nested"
    nested = True


class NF4Backward(NF4):
    """What the backward of its autograd function does."""

    name = "nf4-backward"
    backward = True

    def call(self, x, copy):
        packed, state = self.quantised[copy]
        return torch.matmul(x, F.dequantize_4bit(packed, state).to(x.dtype))


class LLMInt8(Rival):
    name = "llm-int8"
    threshold = 0.0

    def __init__(self, n, k, dtype):
        self.copies = cold_copies(n * k)
        self.states = []
        for copy in range(self.copies):
            w = random_weights(n, k, dtype)
            if copy == 0:
                self.dense = w
            state = bnb.MatmulLtState()
            state.CB, state.SCB, _ = F.int8_vectorwise_quant(w.to(torch.float16))
            state.threshold = self.threshold
            state.has_fp16_weights = False
            state.is_training = False
            self.states.append(state)

    def call(self, x, copy):
        state = self.states[copy]
        return bnb.matmul(x, state.CB, state=state, threshold=self.threshold)


class LLMInt8Outliers(LLMInt8):
    """Waits for the device in each call, so that no graph can hold it."""

    name = "llm-int8-outliers"
    threshold = 6.0
    outliers = True
    graph = False


class Int8Backward(LLMInt8):
    """What the backward of its autograd function does."""

    name = "int8-backward"
    backward = True

    def call(self, x, copy):
        state = self.states[copy]
        w = state.CB.to(x.dtype, copy=True).mul_(state.SCB.unsqueeze(1).mul(1.0 / 127.0))
        return torch.matmul(x, w)


class QLora(NF4):
    """PEFT's adapter beside a frozen Linear4bit, forward and backward, as a training step calls it."""

    name = "qlora"
    rows = ADAPTER_ROWS

    def __init__(self, n, k, dtype):
        super().__init__(n, k, dtype)
        self.layers = [self.adapted(self.base(copy, n, k, dtype)) for copy in range(self.copies)]
        self.grad = torch.randn(ADAPTER_ROWS, n, device="cuda", dtype=dtype)

    def base(self, copy, n, k, dtype):
        layer = bnb.nn.Linear4bit(k, n, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
        packed, state = self.quantised[copy]
        layer.weight = bnb.nn.Params4bit(packed, requires_grad=False, quant_state=state, bnb_quantized=True)
        layer.weight.quant_state = state
        return layer

    @staticmethod
    def adapted(base):
        config = peft.LoraConfig(r=ADAPTER_RANK, lora_alpha=ADAPTER_RANK // 2, lora_dropout=0.0, target_modules=["0"])
        return peft.inject_adapter_in_model(config, torch.nn.Sequential(base)).to("cuda")

    def call(self, x, copy):
        x = x.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast("cuda", dtype=x.dtype, cache_enabled=False):
            y = self.layers[copy](x)
        parameters = [p for p in self.layers[copy].parameters() if p.requires_grad]
        return torch.autograd.grad(y, [x, *parameters], self.grad)[0]

    def check(self, x):
        """B is zero at first: dX is that of the weight alone."""
        exact = torch.matmul(self.grad, self.dense)
        require_close(self.call(x, 0), exact)


class LoraDense(QLora):
    name = "lora-dense"

    def __init__(self, n, k, dtype):
        self.copies = cold_copies(n * k * dtype.itemsize)
        self.weights = [random_weights(n, k, dtype) for _ in range(self.copies)]
        self.dense = self.weights[0]
        self.layers = [self.adapted(self.base(copy, n, k, dtype)) for copy in range(self.copies)]
        self.grad = torch.randn(ADAPTER_ROWS, n, device="cuda", dtype=dtype)

    def base(self, copy, n, k, dtype):
        layer = torch.nn.Linear(k, n, bias=False, device="meta")
        layer.weight = torch.nn.Parameter(self.weights[copy], requires_grad=False)
        return layer


class QuantizeNF4(Rival):
    """The kernel alone: the wrapper around it makes a table on the host."""

    name = "quantize-nf4"
    product = False
    graph = False  # its kernel runs on the default stream, which a capture of another does not see

    def __init__(self, n, k, dtype):
        self.copies = cold_copies(n * k * dtype.itemsize)
        self.weights = [random_weights(n, k, dtype) for _ in range(self.copies)]

    def call(self, copy):
        return torch.ops.bitsandbytes.quantize_4bit.default(self.weights[copy], 64, "nf4", torch.uint8)


class QuantizeNF4Nested(QuantizeNF4):
    name = "quantize-nf4-nested"

    def call(self, copy):
        return F.quantize_4bit(self.weights[copy], blocksize=64, quant_type="nf4", compress_statistics=True)


class QuantizeInt8(QuantizeNF4):
    """Takes float16 alone: other types are converted first, as its autograd function does."""

    name = "quantize-int8"
    graph = True

    def call(self, copy):
        return F.int8_vectorwise_quant(self.weights[copy].to(torch.float16))


class DequantizeNF4(NF4):
    name = "dequantize-nf4"
    product = False

    def call(self, copy):
        packed, state = self.quantised[copy]
        return F.dequantize_4bit(packed, state)


class DequantizeNF4Nested(DequantizeNF4):
    name = "dequantize-nf4-nested"
    nested = True


RIVALS = [
    Dense,
    DenseBackward,
    NF4,
    NF4Nested,
    NF4Backward,
    Int8Backward,
    LLMInt8,
    LLMInt8Outliers,
    QLora,
    LoraDense,
    QuantizeNF4,
    QuantizeNF4Nested,
    QuantizeInt8,
    DequantizeNF4,
    DequantizeNF4Nested,
]
QUICK = [Dense, NF4, NF4Nested, NF4Backward, LLMInt8, LLMInt8Outliers, QuantizeNF4, QuantizeInt8, DequantizeNF4]


def measure(call, rival, budget):
    return (measure_graph if rival.graph else measure_eager)(call, rival.copies, budget)


class Report:
    def __init__(self, deadline):
        self.cells = []
        self.failures = 0
        self.skipped = 0
        self.deadline = time.monotonic() + deadline

    def cell(self, kernel, n, k, m, run):
        cell = {"kernel": kernel, "n": n, "k": k, "m": m}
        if time.monotonic() > self.deadline:
            self.skipped += 1
            return
        try:
            cell.update(run())
            text = f"{cell['us']:10.2f} us ± {cell['spread_us']:<7.2f} {cell['mode']}"
        except RuntimeError as e:
            self.failures += 1
            cell["error"] = text = f"FAILED: {str(e).splitlines()[0]}"
        self.cells.append(cell)
        print(f"{kernel:<23} {n:5d} x {k:5d}  m {m:4d} | {text}", flush=True)


def run_rival(kind, n, k, args, report):
    dtype = SCALARS[args.scalar]
    rival = kind(n, k, dtype)
    if not kind.product:
        report.cell(kind.name, n, k, 0, lambda: measure(rival.call, rival, args.budget))
        return
    for index, m in enumerate([kind.rows] if kind.rows else args.m):
        x = activations(m, n if kind.backward else k, dtype, kind.outliers)

        def run(x=x, first=index == 0):
            if first:
                rival.check(x)
            return measure(lambda copy: rival.call(x, copy), rival, args.budget)

        report.cell(kind.name, n, k, m, run)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--kernel", default="", help="names, separated by commas")
    parser.add_argument("--shape", default="", help="NxK, separated by commas")
    parser.add_argument("--m", default="", help="rows of X, separated by commas")
    parser.add_argument("--scalar", default="bf16", choices=SCALARS)
    parser.add_argument("--budget", type=float, default=30, help="milliseconds of samples a cell")
    parser.add_argument("--deadline", type=float, default=150, help="seconds; what comes later is skipped, aloud")
    parser.add_argument("--json", default="", help="file to write")
    args = parser.parse_args()
    args.budget *= 1e-3
    shapes = args.shape or (QUICK_SHAPES if args.quick else SHAPES)
    rows = args.m or (QUICK_ROWS if args.quick else ROWS)
    args.shapes = [tuple(int(size) for size in shape.split("x")) for shape in shapes.split(",")]
    args.m = [int(m) for m in rows.split(",")]
    args.rivals = QUICK if args.quick else RIVALS
    if args.kernel:
        names = set(args.kernel.split(","))
        unknown = names - {rival.name for rival in RIVALS}
        if unknown:
            parser.error("unknown: " + ", ".join(sorted(unknown)))
        args.rivals = [rival for rival in RIVALS if rival.name in names]
    return args


def main():
    args = parse()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in every call with bfloat16
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.cuda.get_device_name(0)
    print(f"{device}: torch {torch.__version__}, bitsandbytes {bnb.__version__}, {args.scalar}", flush=True)
    report = Report(args.deadline)
    with torch.no_grad():
        for n, k in args.shapes:
            for kind in args.rivals:
                run_rival(kind, n, k, args, report)
                torch.cuda.empty_cache()
    if report.skipped:
        print(f"{report.skipped} cells skipped after {args.deadline:.0f} s", file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(
                {
                    "program": "rivals",
                    "device": device,
                    "scalar": args.scalar,
                    "torch": torch.__version__,
                    "bitsandbytes": bnb.__version__,
                    "cells": report.cells,
                },
                out,
                indent=1,
            )
    return 1 if report.failures or report.skipped else 0


if __name__ == "__main__":
    sys.exit(main())
