#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""from_gguf.py FILE.gguf FOLDER: a GGUF file as the folder that EigenQ and transformers read.

Weights are decoded by transformers and stored as bfloat16; config.json and tokenizer.json come with them.
Needs transformers, torch and gguf.
"""
import argparse
import copy
import os
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("folder")
    args = parser.parse_args()
    if not os.path.isfile(args.file):
        sys.exit(f"from_gguf.py: {args.file}: no such file")
    import torch  # here, so that --help needs neither of them
    from transformers import AutoModelForCausalLM, AutoTokenizer
    source = {"pretrained_model_name_or_path": os.path.dirname(os.path.abspath(args.file)),
              "gguf_file": os.path.basename(args.file)}
    decoded = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model that came from GGUF refuses to be saved: its decoded weights go into one that did not.
    config = copy.deepcopy(decoded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(decoded)(config)
    model.load_state_dict(decoded.state_dict())
    model.to(torch.bfloat16).save_pretrained(args.folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(args.folder)


if __name__ == "__main__":
    main()
