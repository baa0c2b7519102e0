#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Times transformers, PEFT and bitsandbytes on the work of eigenq_bench_models: greedy decoding and QLoRA steps of a
Llama with random NF4 weights. Needs torch, transformers, peft and bitsandbytes; writes JSON."""

import argparse
import gc
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import bitsandbytes as bnb

SHAPES = {  # hidden, feed-forward, layers, heads, key/value heads, vocabulary
    "1B": (2048, 8192, 16, 32, 8, 32000),
    "8B": (4096, 14336, 32, 32, 8, 32000),
}
RANK = 16


def config_of(name):
    hidden, ffn, layers, heads, kv_heads, vocabulary = SHAPES[name]
    return LlamaConfig(hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
                       num_key_value_heads=kv_heads, vocab_size=vocabulary, max_position_embeddings=4096,
                       tie_word_embeddings=False)


def quantized(name):
    """Random weights; every projection but the head in nested NF4, as load_in_4bit leaves them."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config_of(name))
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if not isinstance(child, torch.nn.Linear) or child_name == "lm_head":
                continue
            linear = bnb.nn.Linear4bit(child.in_features, child.out_features, bias=False, compute_dtype=torch.bfloat16,
                                       compress_statistics=True, quant_type="nf4", device="meta")
            linear.weight = bnb.nn.Params4bit(child.weight.data.cpu(), requires_grad=False, compress_statistics=True,
                                              quant_type="nf4", module=linear)
            setattr(module, child_name, linear.cuda())
    torch.set_default_dtype(torch.float32)
    gc.collect()
    torch.cuda.empty_cache()
    return model


def peaks():
    """What tensors held at most, and what the allocator had from the device for them, as eigenq_bench_models counts."""
    return {"peak_tensors_gib": torch.cuda.max_memory_allocated() / 2**30,
            "peak_gib": torch.cuda.max_memory_reserved() / 2**30}


def median(values):
    return sorted(values)[len(values) // 2]


def decode(name, tokens):
    """Greedy generation behind a prompt of 16 tokens, as users call it."""
    model = quantized(name).eval()
    prompt = torch.arange(1, 17, device="cuda").unsqueeze(0)
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    rates = []
    with torch.inference_mode():
        model.generate(prompt, max_new_tokens=8, **options)
        for _ in range(3):
            torch.cuda.synchronize()
            start = time.perf_counter()
            out = model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, **options)
            torch.cuda.synchronize()
            rates.append((out.shape[1] - prompt.shape[1]) / (time.perf_counter() - start))
    return {"kind": "decode", "shape": name, "tokens": tokens, "tokens_per_second": median(rates), **peaks()}


def finetune(name, sequences, length, checkpointing, steps):
    """QLoRA on all projections: forward, backward and AdamW."""
    model = quantized(name)
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=targets))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    ids = torch.randint(0, SHAPES[name][5], (sequences, length), device="cuda")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for _ in range(2):
        step()
    seconds = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        loss = step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"kind": "finetune", "shape": name, "sequences": sequences, "length": length, "checkpointing": checkpointing,
            "tokens_per_second": sequences * length / median(seconds), "loss": float(loss), **peaks()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write results here")
    parser.add_argument("--shape", default="1B", help="1B, 8B or both, comma-separated")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate")
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps that are timed")
    args = parser.parse_args()
    work = []
    for name in args.shape.split(","):
        sequences = 8 if name == "1B" else 4
        work.append((decode, (name, args.tokens)))
        if name == "1B":
            work.append((finetune, (name, sequences, 1024, False, args.steps)))
        work.append((finetune, (name, sequences, 1024, True, args.steps)))
    results = []
    for function, arguments in work:
        torch.cuda.reset_peak_memory_stats()
        results.append(function(*arguments))
        print(json.dumps(results[-1]), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"results": results, "torch": torch.__version__, "bitsandbytes": bnb.__version__,
                       "device": torch.cuda.get_device_name()}, out, indent=1)


if __name__ == "__main__":
    main()
