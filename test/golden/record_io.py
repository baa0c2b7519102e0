#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Records small checkpoints with safetensors and bitsandbytes, and reads back what EigenQ wrote.

    python3 test/golden/record_io.py record FOLDER   writes python.safetensors and bitsandbytes.safetensors
    python3 test/golden/record_io.py check FILE      loads every quantised weight of FILE into bitsandbytes' layers,
                                                     stores it again and compares all tensors bit for bit

Needs torch, safetensors and bitsandbytes; no GPU."""
import itertools
import sys

import bitsandbytes as bnb
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

STORAGE = {"u8": torch.uint8, "f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


def every_type():
    """One tensor of each type that torch and safetensors share, in awkward shapes and under awkward names."""
    torch.manual_seed(1)
    tensors = {"empty": torch.zeros(3, 0, 2), "scalar": torch.tensor(-0.0), "Z": torch.ones(1), "a": torch.ones(1),
               "": torch.tensor([1, 2, 3], dtype=torch.uint8), 'quote " backslash \\ slash /': torch.zeros(2),
               "control \x01\x1f\x7f\b\f\n\r\t": torch.zeros(1), "naïve Ω 量化 🦆": torch.zeros(1, dtype=torch.int8)}
    whole = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]
    for dtype in whole:
        tensors[f"layer.{dtype}"] = torch.arange(3).to(dtype)
    real = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e5m2,
            torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
    for dtype in real:
        tensors[f"layer.{dtype}"] = torch.randn(2, 5).to(dtype)
    tensors["layer.bool"] = torch.tensor([True, False, True])
    tensors["layer.float8_e8m0fnu"] = torch.tensor([1, 127, 254], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    tensors["layer.float4_e2m1fn_x2"] = torch.tensor([[0x12, 0x34]], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    tensors["not finite"] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    return tensors


def linear_4bit(quant_type, nested, storage, dtype=torch.float32, shape=(6, 64), blocksize=64):
    layer = bnb.nn.Linear4bit(shape[1], shape[0], bias=False, quant_type=quant_type, compress_statistics=nested,
                              quant_storage=storage)
    layer.weight = bnb.nn.Params4bit(torch.randn(shape).to(dtype), requires_grad=False, quant_type=quant_type,
                                     blocksize=blocksize, compress_statistics=nested, quant_storage=storage)
    return layer.to("cpu")


def linear_8bit(shape=(6, 33)):
    layer = bnb.nn.Linear8bitLt(shape[1], shape[0], bias=False, has_fp16_weights=False)
    layer.weight = bnb.nn.Int8Params(torch.randn(shape, dtype=torch.float16), has_fp16_weights=False, requires_grad=False)
    return layer.to("cpu")


def quantised_layers():
    torch.manual_seed(2)
    tensors = {}

    def add_4bit(name, layer):
        tensors.update({f"{name}.{key}": value for key, value in layer.state_dict().items()})
        layer.weight.quant_state.dtype = torch.float32  # values before they are rounded to the layer's type
        # Widths are odd or whole blocks: of others, 0.50.2's dequantisation on the CPU returns wrong values.
        tensors[f"expected/{name}"] = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)

    for quant_type, nested, storage in itertools.product(["nf4", "fp4"], [False, True], STORAGE):
        add_4bit(f"{quant_type}.{'nested' if nested else 'plain'}.{storage}", linear_4bit(quant_type, nested, STORAGE[storage]))
    add_4bit("nf4.nested.odd", linear_4bit("nf4", True, torch.uint8, torch.bfloat16, (129, 131)))  # 265 blocks: two of nested
    add_4bit("fp4.plain.half", linear_4bit("fp4", False, torch.uint8, torch.float16, (7, 9), 128))
    layer = linear_8bit()
    tensors.update({f"int8.{key}": value for key, value in layer.state_dict().items()})
    tensors["expected/int8"] = layer.weight.data.float() * (layer.weight.SCB / 127).view(-1, 1)
    return tensors


def record(folder):
    save_file(every_type(), f"{folder}/python.safetensors", metadata={"format": 'pt "quoted" é'})
    save_file(quantised_layers(), f"{folder}/bitsandbytes.safetensors", metadata={"format": "pt"})


def reload_4bit(tensors, name):
    """The tensors of a weight after a trip through bitsandbytes."""
    prefix = f"{name}.weight"
    stats = {key[len(prefix) + 1:]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
    weight = bnb.nn.Params4bit.from_prequantized(tensors[prefix], stats, device="cpu")
    rows, cols = weight.quant_state.shape
    layer = bnb.nn.Linear4bit(cols, rows, bias=False)
    layer.weight = weight
    return layer.state_dict()


def reload_8bit(tensors, name):
    rows, cols = tensors[f"{name}.weight"].shape
    layer = linear_8bit((rows, cols))
    layer.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "SCB", "weight_format")})
    return layer.state_dict()


def bits(tensor):
    return (tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).tolist() if tensor.numel() else [])


def check(path):
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        assert sorted(file.keys()) == sorted(tensors)
    weights = [key[: -len(".weight")] for key in tensors if key.endswith(".weight")]
    for name in weights:
        again = (reload_8bit if f"{name}.SCB" in tensors else reload_4bit)(tensors, name)
        ours = {key for key in tensors if key.startswith(name + ".")}
        assert ours == {f"{name}.{key}" for key in again}, f"{name}: {sorted(ours)} and {sorted(again)}"
        for key, value in again.items():
            assert bits(value) == bits(tensors[f"{name}.{key}"]), f"{name}.{key} changed"
    print(f"{path}: {len(weights)} weights open in bitsandbytes {bnb.__version__} and come back bit for bit")


if __name__ == "__main__":
    {"record": record, "check": check}[sys.argv[1]](sys.argv[2])
