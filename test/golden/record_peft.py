#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Records test/golden/llm/peft-*: adapters that PEFT made on the tiny models of record_llm.py, in the folders that it
writes, each with the logits that the model then computes for the two sequences of record_llm.py.

    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python test/golden/record_peft.py
"""
import pathlib
import shutil
import sys

import peft
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM

FOLDER = pathlib.Path(__file__).resolve().parent / "llm"

ADAPTERS = {
    # Ranks and alphas by pattern, as ends of paths and as regular expressions.
    "peft-llama": ("llama", dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "mlp.down_proj"],
                                 rank_pattern={"layers.1.self_attn.q_proj": 2, r".*\.0\.mlp.*": 3},
                                 alpha_pattern={"^model.layers.0.self_attn.(q|v)_proj": 3.5})),
    # All projections, rank-stabilised, one excluded; an untied head is none of them.
    "peft-mistral": ("mistral", dict(r=3, lora_alpha=2, use_rslora=True, target_modules="all-linear",
                                     exclude_modules=["layers.1.self_attn.o_proj"])),
    # One regular expression.
    "peft-qwen2": ("qwen2", dict(r=2, lora_alpha=4, target_modules=r".*\.[02]\.self_attn\.[kv]_proj")),
}


def main():
    for seed, (name, (base, options)) in enumerate(ADAPTERS.items()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(FOLDER / base, attn_implementation="eager")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape))
        model.peft_config["default"].base_model_name_or_path = base
        folder = FOLDER / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        expected = safetensors.torch.load_file(FOLDER / base / "expected.safetensors")
        tensors = {}
        with torch.no_grad():
            for i in range(2):
                tensors[f"logits.{i}"] = model(expected[f"tokens.{i}"].long()[None]).logits[0].float().contiguous()
        safetensors.torch.save_file(tensors, folder / "expected.safetensors",
                                    metadata={"peft": peft.__version__, "torch": torch.__version__})
        moved = (tensors["logits.0"] - expected["logits.0"]).abs().max().item()
        print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes; logits moved by up to", round(moved, 3))


if __name__ == "__main__":
    sys.exit(main())
