"""Loads folders that lorapp merged in transformers, beside PEFT on the base.

usage: merged_with_transformers.py FOLDER
reads  FOLDER/<case>/model, adapter and merged
"""
import os
import sys
import warnings

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
root = sys.argv[1]
ids = torch.tensor([[3, 17, 60, 0, 5, 9, 9, 2, 33]])


def load(path):
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def error(got, want):
    return ((got - want).norm() / want.norm()).item()


for case in sorted(os.listdir(root)):
    folder = os.path.join(root, case)
    merged = logits(load(f"{folder}/merged"))
    adapted = PeftModel.from_pretrained(load(f"{folder}/model"), f"{folder}/adapter")
    tuned = logits(adapted)
    line = f"{case}: {error(merged, tuned):.1e} from the adapter on its base"
    assert error(merged, tuned) < 1e-5, line
    assert error(logits(load(f"{folder}/model")), tuned) > 1e-3, case
    # Of a tied head and embedding PEFT merges an update of one into both.
    if case not in ("tied_head", "tied_embedding"):
        whole = error(merged, logits(adapted.merge_and_unload()))
        line += f", {whole:.1e} from merge_and_unload"
        assert whole < 1e-6, line
    print(line, flush=True)
