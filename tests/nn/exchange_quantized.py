"""Loads a 4-bit folder that lorapp wrote with transformers and bitsandbytes, and writes some for lorapp.

usage: exchange_with_transformers.py FOLDER
reads  FOLDER/model (dense), FOLDER/ours-nf4, FOLDER/ours-fp4 (4-bit), FOLDER/ours.safetensors (ids and logits by name)
writes FOLDER/theirs-nf4, FOLDER/theirs-fp4 (4-bit folders), FOLDER/theirs.safetensors (logits by name)

A reference model stays in train mode: bitsandbytes repacks 4-bit weights on some CPUs once they ran in eval mode.
"""
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

folder = sys.argv[1]
torch.set_num_threads(1)
ours = load_file(f"{folder}/ours.safetensors")


def logits(model):
    with torch.no_grad():
        return model.train()(input_ids=ours["ids"][None]).logits[0].float().contiguous()


for name in ("nf4", "fp4"):
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/ours-{name}")
    error = ((logits(model) - ours[name]).norm() / ours[name].norm()).item()
    print(f"{name}: logits of lorapp's folder in transformers: relative error {error:.2e}")
    assert error < 1e-5, error

theirs = {}
for name, config in {
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "fp4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="fp4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_quant_storage=torch.bfloat16,
    ),
}.items():
    model = AutoModelForCausalLM.from_pretrained(
        f"{folder}/model", quantization_config=config, dtype=torch.float32
    )
    model.save_pretrained(f"{folder}/theirs-{name}")
    theirs[name] = logits(model)
save_file(theirs, f"{folder}/theirs.safetensors")
