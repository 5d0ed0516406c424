"""Loads adapters that lorapp wrote with PEFT, and writes adapters of the same configurations for lorapp to load.

usage: exchange_parts_with_peft.py FOLDER
reads  FOLDER/CASE/model, FOLDER/CASE/ours (adapters "default" and "second"), FOLDER/CASE/ours.safetensors (ids, logits by adapter)
writes FOLDER/CASE/theirs, FOLDER/CASE/theirs.safetensors, FOLDER/CASE/counts_ADAPTER.txt
"""
import pathlib
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
worst = 0.0
for case in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    ours = load_file(case / "ours.safetensors")

    def base():
        return AutoModelForCausalLM.from_pretrained(case / "model", dtype=torch.float32)

    def logits(model):
        with torch.no_grad():
            return model.eval()(input_ids=ours["ids"][None]).logits[0].contiguous()

    model = PeftModel.from_pretrained(base(), case / "ours")
    model.load_adapter(case / "ours/second", "second")
    for adapter in ("default", "second"):
        model.set_adapter(adapter)
        error = ((logits(model) - ours[adapter]).norm() / ours[adapter].norm()).item()
        print(f"{case.name}, {adapter}: relative error {error:.1e} of lorapp's adapter in PEFT")
        worst = max(worst, error)

    def config(folder):
        found = LoraConfig.from_pretrained(folder)
        found.inference_mode, found.init_lora_weights = False, False
        return found

    model = get_peft_model(base(), config(case / "ours"))
    model.add_adapter("second", config(case / "ours/second"))
    theirs = {}
    for adapter in ("default", "second"):
        model.set_adapter(adapter)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        theirs[adapter] = logits(model)
        trainable, every = model.get_nb_trainable_parameters()
        (case / f"counts_{adapter}.txt").write_text(f"{trainable} of {every}\n")
    model.save_pretrained(case / "theirs")
    save_file(theirs, case / "theirs.safetensors")
assert worst < 1e-5, worst
