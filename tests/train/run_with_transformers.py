"""Runs transformers' Trainer with the models, adapters, rows and arguments that lorapp prepared.

usage: run_with_transformers.py FOLDER
reads  FOLDER/cases.json: "examples" and for each of "cases" a model folder, an adapter folder, "quant" (null, "nf4",
       "nf4_double": quantized while it loads), a "dtype" and, for a run that goes on, a checkpoint to "resume";
       FOLDER/<case>/training_args.json: lorapp's arguments
writes FOLDER/<case>/log.json, FOLDER/<case>/theirs (the adapter), FOLDER/<case>/logits.safetensors,
       FOLDER/<case>/out (the output folder), and where the case says so FOLDER/<case>/base, the 4-bit folder

A model stays in train mode: bitsandbytes repacks 4-bit weights on some CPUs once they ran in eval mode.
"""

import dataclasses
import json
import os
import sys
import warnings

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainerState, TrainingArguments

folder = sys.argv[1]
torch.set_num_threads(1)
with open(f"{folder}/cases.json") as file:
    plan = json.load(file)
rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in plan["examples"]]

# What each schedule takes of lr_scheduler_kwargs.
SCHEDULE_OPTIONS = {
    "cosine": ["num_cycles"],
    "cosine_with_restarts": ["num_cycles"],
    "polynomial": ["lr_end", "power"],
    "inverse_sqrt": ["timescale"],
}


def collate(batch):
    width = max(len(row["input_ids"]) for row in batch)

    def padded(key, value):
        return torch.tensor([row[key] + [value] * (width - len(row[key])) for row in batch])

    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]
    return {
        "input_ids": padded("input_ids", 0),
        "attention_mask": torch.tensor(mask),
        "labels": padded("labels", -100),
    }


def arguments(name):
    with open(f"{folder}/{name}/training_args.json") as file:
        ours = json.load(file)
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    theirs = {key: value for key, value in ours.items() if key in known}
    options = SCHEDULE_OPTIONS.get(ours["lr_scheduler_type"], [])
    theirs["lr_scheduler_kwargs"] = {
        key: value for key, value in ours["lr_scheduler_kwargs"].items() if key in options and value is not None
    }
    theirs["save_total_limit"] = ours["save_total_limit"] or None
    theirs["train_sampling_strategy"] = "random" if ours["shuffle"] else "sequential"
    theirs["output_dir"] = f"{folder}/{name}/out"
    return TrainingArguments(
        **theirs, use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False, dataloader_num_workers=0
    )


def load(name, case):
    options = {"dtype": getattr(torch, case["dtype"])}
    if case["quant"]:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=case["quant"] == "nf4_double",
            bnb_4bit_compute_dtype=options["dtype"],
        )
    base = AutoModelForCausalLM.from_pretrained(f"{folder}/{case['model']}", **options)
    if case.get("save_base"):
        base.save_pretrained(f"{folder}/{name}/base")
    base.config.use_cache = False
    return PeftModel.from_pretrained(base, f"{folder}/{case['adapter']}", is_trainable=True).train()


def logits(model):
    with torch.no_grad():
        ids = torch.tensor([rows[0]["input_ids"]])
        return model(input_ids=ids).logits[0].float().contiguous()


for name, case in plan["cases"].items():
    model = load(name, case)
    if case.get("ours"):
        want = load_file(f"{folder}/{case['ours']}/logits.safetensors")["logits"]
        tuned = dict(case, adapter=case["ours"])
        error = ((logits(load(name, tuned)) - want).norm() / want.norm()).item()
        print(f"{name}: logits of the adapter that lorapp trained: relative error {error:.2e}")
        assert error < 1e-5, error
    trainer = Trainer(model=model, args=arguments(name), train_dataset=rows, data_collator=collate)
    resume = f"{folder}/{case['resume']}" if case.get("resume") else None
    if resume:
        state = TrainerState.load_from_json(f"{resume}/trainer_state.json")
        assert state.log_history[-1]["step"] == state.global_step, state
    result = trainer.train(resume_from_checkpoint=resume)
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in log:
        entry["grad_norm"] = float(entry["grad_norm"])
    with open(f"{folder}/{name}/log.json", "w") as file:
        json.dump({"log": log, "train_loss": result.training_loss}, file)
    model.save_pretrained(f"{folder}/{name}/theirs")
    save_file({"logits": logits(model)}, f"{folder}/{name}/logits.safetensors")
    print(f"{name}: {len(log)} losses, {log[0]['loss']:.4f} to {log[-1]['loss']:.4f}")
