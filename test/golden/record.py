#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Records reference files with bitsandbytes' own functions on a CUDA device, for scripts/golden.

    python3 test/golden/record.py OUT.safetensors [SEED] [CASES]

Shapes, block sizes, types and kinds of input are drawn from SEED; CASES is the number of cases a group.
Needs torch, safetensors and bitsandbytes 0.50."""
import json
import random
import sys

import bitsandbytes.functional as F
import torch
from bitsandbytes import MatmulLtState, matmul, matmul_4bit
from safetensors.torch import save_file

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
KINDS = ["normal", "uniform", "wide", "ties", "zeros", "extreme"]


def values(shape, dtype, kind):
    x = torch.randn(shape)
    if kind == "uniform":
        x = torch.rand(shape) * 2 - 1
    elif kind == "wide":  # magnitudes over twelve decades
        x = x * 10 ** (torch.rand(shape) * 12 - 8)
    elif kind == "ties":  # few distinct values, many exactly between two levels
        x = torch.randint(-48, 49, shape) / 48
    elif kind == "zeros":
        x = x * (torch.rand(shape) < 0.02)
    elif kind == "extreme":  # whole rows of subnormals and of the type's largest
        scale = torch.tensor([1e-42, 1e-39, 1.0, 1e38 if dtype != torch.float16 else 2e4])
        x = (torch.rand(shape) * 2 - 1) * scale[torch.randint(0, 4, (shape[0], 1))]
    return x.to(dtype).cuda()


class Recorder:
    def __init__(self, seed):
        self.draw = random.Random(seed)
        torch.manual_seed(seed)
        self.cases, self.tensors = [], {}

    def add(self, group, parameters, **tensors):
        name = f"{group}/{len(self.cases)}"
        self.cases.append({"group": group, "name": name, **parameters})
        for key, tensor in tensors.items():
            if tensor is not None:
                self.tensors[f"{name}/{key}"] = tensor.detach().contiguous().cpu()

    def shape(self, most=40000):
        rows = self.draw.choice([1, 2, 3, 7, 16, 33, 64, 129])
        return [rows, self.draw.choice([n for n in (1, 5, 31, 64, 65, 96, 128, 250, 512, 777, 1000, 4096) if n * rows <= most])]

    def quantize_4bit(self):
        kind, dtype, shape = self.draw.choice(KINDS), self.draw.choice(list(TYPES)), self.shape()
        blocksize, quant_type = self.draw.choice([32, 64, 128, 256, 512, 1024, 2048, 4096]), self.draw.choice(["nf4", "fp4"])
        x = values(shape, TYPES[dtype], kind)
        packed, state = F.quantize_4bit(x, blocksize=blocksize, quant_type=quant_type)
        self.add("quantize_4bit", dict(quant_type=quant_type, dtype=dtype, shape=shape, blocksize=blocksize, kind=kind),
                 input=x, packed=packed.flatten(), absmax=state.absmax, dequantized=F.dequantize_4bit(packed, state))

    def nested_4bit(self):
        dtype, shape = self.draw.choice(list(TYPES)), [self.draw.choice([8, 30, 64, 96]), self.draw.choice([256, 640, 512, 1000])]
        blocksize, quant_type = self.draw.choice([32, 64, 128, 1024]), self.draw.choice(["nf4", "fp4"])
        x = values(shape, TYPES[dtype], "normal")
        packed, state = F.quantize_4bit(x, blocksize=blocksize, quant_type=quant_type, compress_statistics=True)
        self.add("nested_4bit", dict(quant_type=quant_type, dtype=dtype, shape=shape, blocksize=blocksize, nested_blocksize=256),
                 input=x, packed=packed.flatten(), absmax_codes=state.absmax, absmax_offset=state.offset.reshape(1),
                 nested_absmax=state.state2.absmax, nested_code=state.state2.code, dequantized=F.dequantize_4bit(packed, state))

    def quantize_blockwise(self):
        kind, dtype, shape = self.draw.choice(KINDS), self.draw.choice(list(TYPES)), self.shape()
        blocksize = self.draw.choice([64, 128, 256, 512, 1024, 2048, 4096])
        x = values(shape, TYPES[dtype], kind)
        codes, state = F.quantize_blockwise(x, blocksize=blocksize)
        self.add("quantize_blockwise", dict(dtype=dtype, shape=shape, blocksize=blocksize, kind=kind),
                 input=x, codes=codes, absmax=state.absmax, dequantized=F.dequantize_blockwise(codes, state))

    def int8_vectorwise_quant(self):
        kind, shape, threshold = self.draw.choice(KINDS), self.shape(), self.draw.choice([0.0, 3.0, 6.0])
        x = values(shape, torch.float16, kind)
        codes, stats, outliers = F.int8_vectorwise_quant(x.clone(), threshold)
        self.add("int8_vectorwise_quant", dict(shape=shape, threshold=threshold, kind=kind),
                 input=x, codes=codes, row_stats=stats, outlier_columns=outliers)

    def int8_double_quant(self):
        shape, threshold = self.shape(), self.draw.choice([0.0, 3.0])
        x = values(shape, torch.float16, "normal")
        row, col, row_stats, col_stats, outliers = F.int8_double_quant(x.clone(), threshold=threshold)
        self.add("int8_double_quant", dict(shape=shape, threshold=threshold),
                 input=x, codes_row=row, codes_col=col, row_stats=row_stats, col_stats=col_stats, outlier_columns=outliers)

    def matmul_4bit(self):
        dtype, quant_type = self.draw.choice(list(TYPES)), self.draw.choice(["nf4", "fp4"])
        m, n, k = self.draw.choice([1, 2, 5, 16, 33]), self.draw.choice([40, 64, 96]), self.draw.choice([128, 192, 256])
        nested, bias, blocksize = self.draw.random() < 0.5, self.draw.random() < 0.5, 64
        w, a, g = (values(s, TYPES[dtype], "normal") for s in ([n, k], [m, k], [m, n]))
        b = values([n], TYPES[dtype], "normal").requires_grad_() if bias else None
        packed, state = F.quantize_4bit(w, blocksize=blocksize, quant_type=quant_type, compress_statistics=nested)
        inference = matmul_4bit(a, packed.t(), state, bias=b)
        a.requires_grad_()
        output = matmul_4bit(a, packed.t(), state, bias=b)
        output.backward(g)
        extra = dict(absmax_offset=state.offset.reshape(1), nested_absmax=state.state2.absmax) if nested else {}
        self.add("matmul_4bit", dict(dtype=dtype, quant_type=quant_type, M=m, N=n, K=k, blocksize=blocksize, nested=nested, bias=bias),
                 A=a, W=w, bias=b, packed=packed.flatten(), absmax=state.absmax, output=output, output_inference=inference,
                 grad_output=g, grad_A=a.grad, grad_bias=b.grad if bias else None, **extra)

    def matmul_8bit(self):
        dtype, threshold = self.draw.choice(list(TYPES)), self.draw.choice([0.0, 6.0])
        m, n, k = self.draw.choice([1, 3, 16, 30]), self.draw.choice([40, 48, 64]), self.draw.choice([64, 96, 128])
        fp16_weights, bias = self.draw.random() < 0.4, self.draw.random() < 0.5
        w, a, g = (values(s, TYPES[dtype], "normal") for s in ([n, k], [m, k], [m, n]))
        if threshold > 0:
            a[:, self.draw.randrange(k)] *= 10
        a = a.detach().requires_grad_()
        b = values([n], TYPES[dtype], "normal").requires_grad_() if bias else None
        state = MatmulLtState()
        state.threshold, state.has_fp16_weights = threshold, fp16_weights
        weight = w
        if not fp16_weights:
            state.CB, state.SCB, _ = F.int8_vectorwise_quant(w.to(torch.float16))
            weight = state.CB
        output = matmul(a, weight, state=state, bias=b)
        output.backward(g)
        codes = {} if fp16_weights else dict(CB=state.CB, SCB=state.SCB)
        self.add("matmul_8bit", dict(dtype=dtype, M=m, N=n, K=k, threshold=threshold, has_fp16_weights=fp16_weights, bias=bias),
                 A=a, W=w, bias=b, output=output, grad_output=g, grad_A=a.grad, grad_bias=b.grad if bias else None, **codes)


def main():
    path, seed, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1, int(sys.argv[3]) if len(sys.argv) > 3 else 20
    recorder = Recorder(seed)
    for record in (recorder.quantize_4bit, recorder.nested_4bit, recorder.quantize_blockwise, recorder.int8_vectorwise_quant,
                   recorder.int8_double_quant, recorder.matmul_4bit, recorder.matmul_8bit):
        for _ in range(count):
            record()
    save_file(recorder.tensors, path, metadata={"cases": json.dumps(recorder.cases), "seed": str(seed), "source": "bitsandbytes CUDA"})
    print(f"{path}: {len(recorder.cases)} cases")


if __name__ == "__main__":
    main()
