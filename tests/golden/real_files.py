"""Golden files about real tokenizers, a real small model and real data, which are not part of the project."""

import json

from toy import *  # first: it sets the environment before torch is loaded

import torch

TEXTS = [
    "", " ", "Hello", " Hello", "Hello world", "Hello  world ", "\n", "a\n\nb\n", "\tindent", "naïve café",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nWho was Ada Lovelace?\n\n### Response:\n",
    "3.14159 + 2 = 5.14159", "日本語のテキスト", "Ünïcödé – “quotes” …", "emoji 😀👩‍👩‍👧", "</s><s>[INST] x [/INST]", "▁a ▁",
    "don't can't", "    four spaces", "x" * 40, "\u0000\u0007", "ﬁ ligature ½", "a\u0301 é",
]


def make_tokenizer(data):
    import sentencepiece

    result = []
    for name in ("tokenizers/mistral-v1", "models/stories260K"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(data / name / "tokenizer.model"))
        result.append({"folder": name, "texts": [{"text": t, "ids": processor.encode(t)} for t in TEXTS]})
    write_json("tokenizer.json", result)


INTRO_WITH_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further context. "
                    "Write a response that appropriately completes the request.\n\n")
INTRO = ("Below is an instruction that describes a task. Write a response that appropriately completes the "
         "request.\n\n")


def alpaca(row):
    if row.get("context"):
        return (f"{INTRO_WITH_INPUT}### Instruction:\n{row['instruction']}\n\n### Input:\n{row['context']}\n\n"
                f"### Response:\n{row['response']}")
    return f"{INTRO}### Instruction:\n{row['instruction']}\n\n### Response:\n{row['response']}"


def make_stories(data):
    import sentencepiece
    import transformers
    from peft import PeftModel

    folder = data / "models/stories260K"
    load = lambda: transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    model = load().eval()
    continuations = []
    for prompt in ("The little dog", "Tom and Sue went to the park.", "One day, a big bear", "It was a rainy day",
                   '"Can I play with you?" asked the cat.'):
        ids = [1] + processor.encode(prompt)
        out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                             max_new_tokens=60, do_sample=False, eos_token_id=2, pad_token_id=2)[0].tolist()
        new = out[len(ids):]
        continuations.append({"prompt": prompt, "prompt_tokens": ids, "tokens": new, "text": processor.decode(new)})
    write_json("stories260k_greedy.json", {"max_new_tokens": 60, "continuations": continuations})

    # As `lorapp finetune --init-adapter` is called by the test of the program: options are its command line.
    options = {"--take": 200, "--template": "alpaca", "--max-length": 512, "--quant-type": "none", "--dtype": "float32",
               "--lora-dropout": 0, "--per-device-train-batch-size": 4, "--gradient-accumulation-steps": 4,
               "--learning-rate": 2e-3, "--num-train-epochs": 1, "--lr-scheduler-type": "linear", "--warmup-steps": 2,
               "--weight-decay": 0, "--max-grad-norm": 1.0, "--logging-steps": 1, "--seed": 42}
    adapter = HERE / "stories260k_adapter"
    MODELS["_stories"] = {"targets": ["q_proj", "v_proj"]}
    model = adapt(load(), "_stories")
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.mul_(0.1)  # near the trained model, not far from it
    model.peft_config["default"].base_model_name_or_path = "stories260K"
    save_adapter(model, adapter)
    del MODELS["_stories"]
    with open(data / "dolly/databricks-dolly-15k.jsonl", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:200]
    examples = []
    for row in rows:
        ids = ([1] + processor.encode(alpaca(row)) + [2])[:512]
        examples.append({"input_ids": ids, "labels": ids})
    settings = {key[2:].replace("-", "_"): options[key] for key in (
        "--per-device-train-batch-size", "--gradient-accumulation-steps", "--learning-rate", "--num-train-epochs",
        "--lr-scheduler-type", "--warmup-steps", "--weight-decay", "--max-grad-norm", "--seed")}
    model = PeftModel.from_pretrained(load(), adapter, is_trainable=True)
    model.config.use_cache = False
    log, _ = train(model.train(), examples, settings, pad_id=2)
    write_json("stories260k_finetune.json", {
        "model": "models/stories260K", "data": "dolly/databricks-dolly-15k.jsonl", "init_adapter": adapter.name,
        "options": options, "num_examples": len(examples), "num_tokens": sum(len(e["input_ids"]) for e in examples),
        "first_loss": log["loss"][0], "final_loss": log["loss"][-1], "log": log})
