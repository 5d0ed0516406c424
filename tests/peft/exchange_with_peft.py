"""Loads an adapter that lorapp wrote with PEFT, and writes one for lorapp to load.

usage: exchange_with_peft.py FOLDER
reads  FOLDER/model, FOLDER/ours (an adapter), FOLDER/ours.safetensors (ids, logits)
writes FOLDER/theirs (an adapter), FOLDER/theirs.safetensors (logits), FOLDER/counts.txt
"""
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder = sys.argv[1]
torch.set_num_threads(1)
ours = load_file(f"{folder}/ours.safetensors")


def base():
    return AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=ours["ids"][None]).logits[0].contiguous()


model = PeftModel.from_pretrained(base(), f"{folder}/ours")
got = logits(model)
error = ((got - ours["logits"]).norm() / ours["logits"].norm()).item()
print(f"logits of lorapp's adapter in PEFT: relative error {error:.2e}")
assert error < 1e-5, error

torch.manual_seed(0)
config = LoraConfig(
    r=5,
    lora_alpha=3,
    target_modules="all-linear",
    lora_dropout=0.1,
    bias="all",
    task_type="CAUSAL_LM",
    use_rslora=True,
    rank_pattern={"layers.1.mlp.up_proj": 2},
    alpha_pattern={"v_proj": 11},
    init_lora_weights=False,
)
model = get_peft_model(base(), config)
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter += 0.1 * torch.randn_like(parameter)
model.save_pretrained(f"{folder}/theirs")
save_file({"logits": logits(model)}, f"{folder}/theirs.safetensors")
trainable, every = model.get_nb_trainable_parameters()
with open(f"{folder}/counts.txt", "w") as out:
    out.write(
        f"trainable params: {trainable:,d} || all params: {every:,d} || trainable%: {100 * trainable / every:.4f}\n"
    )
