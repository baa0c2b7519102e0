#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""The run of `finetune --model MODEL --text TEXT --quantize nf4 --in-order --init DIR/initial` with PEFT and
bitsandbytes: the same windows in the same order, ranks, schedule, optimiser and initial adapter.

    python3 -m venv venv && venv/bin/pip install torch transformers peft bitsandbytes accelerate
    venv/bin/python examples/finetune/peft_reference.py MODEL TEXT DIR     writes DIR/initial, prints held-out losses
    build/examples/finetune --model MODEL --text TEXT --quantize nf4 --in-order --init DIR/initial \\
        --adapter DIR/ours
"""
import argparse
import math
import pathlib
import time

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

# The defaults of finetune --model.
RANK, ALPHA, RATE, STEPS, WARMUP, BATCH, LENGTH, HELD_OUT = 8, 16, 1e-3, 200, 10, 8, 256, 0.05


def windows(ids):
    count = (len(ids) - 1) // LENGTH
    return [torch.tensor(ids[i * LENGTH:(i + 1) * LENGTH + 1]) for i in range(count)]


def loss_of(model, some):
    batch = torch.stack(some)
    logits = model(batch[:, :-1]).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def mean_loss(model, examples):
    # Not model.eval(): it makes bitsandbytes 0.50 repack weights on the CPU for a product without gradient, for good.
    total = sum(loss_of(model, examples[i:i + 8]).item() * len(examples[i:i + 8]) for i in range(0, len(examples), 8))
    return total / len(examples)


def rate(step):
    if step < WARMUP:
        return RATE * (step + 1) / WARMUP
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "text", "folder"):
        parser.add_argument(name, type=pathlib.Path)
    args = parser.parse_args()
    ids = Tokenizer.from_file(str(args.model / "tokenizer.json")).encode(args.text.read_text()).ids
    examples = windows(ids)
    kept = len(examples) - round(HELD_OUT * len(examples))
    train, held_out = examples[:kept], examples[kept:]

    torch.manual_seed(1)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(args.model, quantization_config=nf4, dtype=torch.float32)
    model.gradient_checkpointing_disable()
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, task_type="CAUSAL_LM",
                                             target_modules="all-linear"))
    model.save_pretrained(args.folder / "initial")
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    print(f"{len(train)} windows, {len(held_out)} held out; held out before {mean_loss(model, held_out):.5f}")
    start = time.time()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        some = [train[(step * BATCH + i) % len(train)] for i in range(BATCH)]
        optimizer.zero_grad()
        loss = loss_of(model, some)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}: loss {loss.item():.5f}, {(time.time() - start):.0f} s", flush=True)
    print(f"held out after {mean_loss(model, held_out):.5f}")
    model.save_pretrained(args.folder / "trained")


if __name__ == "__main__":
    main()
