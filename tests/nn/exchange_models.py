"""Opens model folders that lorapp wrote with transformers, and saves them again for lorapp to open.

usage: exchange_models.py FOLDER
reads  FOLDER/ours/NAME (models), FOLDER/ours.safetensors (ids, and the logits of each model)
writes FOLDER/theirs/NAME, and FOLDER/greedy.json: how each model continues the ids
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
torch.set_num_threads(1)
ours = load_file(f"{folder}/ours.safetensors")
ids = ours.pop("ids")[None]
greedy = {}
for name, want in ours.items():
    model, info = AutoModelForCausalLM.from_pretrained(
        f"{folder}/ours/{name}", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], (name, info)
    with torch.no_grad():
        got = model.eval()(input_ids=ids).logits[0]
    error = ((got - want).norm() / want.norm()).item()
    print(f"{name}: logits of lorapp's folder in transformers: relative error {error:.1e}")
    assert error < 1e-5, (name, error)
    model.save_pretrained(f"{folder}/theirs/{name}")
    # A rotary embedding that follows the length has seen the ids; a new model has not.
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/ours/{name}", dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, pad_token_id=0)
    greedy[name] = out[0, ids.shape[1] :].tolist()
with open(f"{folder}/greedy.json", "w") as file:
    json.dump(greedy, file)
