#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Records test/golden/llm: tiny models with random weights in the folders that transformers writes, each with the
logits that transformers computes for two sequences, and the frequencies of its rotary position embeddings.

    python3 -m venv venv && venv/bin/pip install torch transformers bitsandbytes accelerate
    venv/bin/python test/golden/record_llm.py
"""
import copy
import pathlib
import sys
import tempfile

import bitsandbytes as bnb
import safetensors.torch
import torch
import transformers
from transformers import (BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM)

FOLDER = pathlib.Path(__file__).resolve().parent / "llm"
VOCABULARY = 32
SIZES = dict(vocab_size=VOCABULARY, hidden_size=24, intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
# bitsandbytes' 4-bit product on the CPU wants rows of whole blocks.
BLOCKS = dict(SIZES, hidden_size=64, intermediate_size=64)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}

MODELS = {
    # Tied embeddings, every bias that there is, frequencies scaled as in Llama 3.1.
    "llama": (LlamaForCausalLM, LlamaConfig(num_hidden_layers=2, tie_word_embeddings=True, attention_bias=True,
                                            mlp_bias=True, rope_parameters=LLAMA3, **SIZES)),
    # Heads wider than hidden/heads, all layers behind a window, frequencies scaled linearly.
    "mistral": (MistralForCausalLM, MistralConfig(num_hidden_layers=2, head_dim=12, sliding_window=5,
                                                  rope_parameters={"rope_type": "linear", "rope_theta": 10000.0,
                                                                   "factor": 4.0}, **SIZES)),
    # Biases of queries, keys and values; the last of three layers behind a window.
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(num_hidden_layers=3, use_sliding_window=True, sliding_window=6,
                                            max_window_layers=2, rope_parameters={"rope_type": "default",
                                                                                  "rope_theta": 1000.0}, **SIZES)),
}


def sequences():
    generator = torch.Generator().manual_seed(7)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in (23, 9)]


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norms near one; the rest large enough that scores, and so the attention, are far from uniform.
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.25 * noise)


def decoded(model):
    """The same model with its quantised weights decoded, for logits that are exact but for float rounding: the
    original's 4-bit product on the CPU rounds to bfloat16, its 8-bit product the activations to int8."""
    dense = copy.deepcopy(model)
    for module in list(dense.modules()):
        for name, linear in list(module.named_children()):
            if not isinstance(linear, (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)):
                continue
            weight = linear.weight
            if isinstance(linear, bnb.nn.Linear4bit):
                value = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
            else:
                value = bnb.functional.int8_vectorwise_dequant(weight.data, weight.SCB)
            plain = torch.nn.Linear(value.shape[1], value.shape[0], bias=False)
            plain.weight = torch.nn.Parameter(value.float())
            setattr(module, name, plain)
    return dense


def record_logits(model, folder):
    tensors = {}
    model = decoded(model)
    with torch.no_grad():
        for i, ids in enumerate(sequences()):
            tensors[f"tokens.{i}"] = ids.to(torch.int32)
            tensors[f"logits.{i}"] = model(ids[None].to(model.device)).logits[0].float().cpu().contiguous()
    tensors["inv_freq"] = model.model.rotary_emb.inv_freq.float().cpu().contiguous()
    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "bitsandbytes": bnb.__version__}
    safetensors.torch.save_file(tensors, folder / "expected.safetensors", metadata=versions)


def save(model, name):
    folder = FOLDER / name
    model.save_pretrained(folder)
    record_logits(model, folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def main():
    for seed, (name, (cls, config)) in enumerate(MODELS.items()):
        config._attn_implementation = "eager"
        model = cls(config).eval()
        randomise(model, seed + 1)
        save(model, name)
    # As bitsandbytes quantises and transformers stores it.
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                             bnb_4bit_compute_dtype=torch.float32)
    int8 = BitsAndBytesConfig(load_in_8bit=True)
    with tempfile.TemporaryDirectory() as dense:
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, **BLOCKS))
        randomise(model, 11)
        model.save_pretrained(dense)
        for name, config in (("llama-nf4", nf4), ("llama-int8", int8)):
            save(LlamaForCausalLM.from_pretrained(dense, quantization_config=config, dtype=torch.float32,
                                                  attn_implementation="eager").eval(), name)


if __name__ == "__main__":
    sys.exit(main())
