"""What the golden sections share: the toy models, the 4-bit reference, writing files, transformers' Trainer."""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import save_file

torch.set_num_threads(1)
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

HERE = pathlib.Path(__file__).resolve().parent
BLOCKSIZE = 64


def write_json(name, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    # Lists of numbers on one line.
    text = re.sub(r"\[[\s\d.,eE+-]*\]", lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def write_tensors(name, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, HERE / name, metadata={"format": "pt"})
    (HERE / name).chmod(0o644)


def dequantize_reference(codes, absmax, table, shape, blocksize, dtype):
    """table[code] · absmax in float32, rounded once: what the format means. bitsandbytes' own CPU kernel is wrong where
    a row is no multiple of the block size, so it is not used here."""
    numel = torch.Size(shape).numel()
    packed = codes.flatten()
    nibbles = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:numel].long()
    scale = absmax.repeat_interleave(blocksize)[:numel]
    return (table[nibbles] * scale).to(dtype).reshape(shape)


def quantize(weight, quant_type, blocksize=BLOCKSIZE, nested=False):
    import bitsandbytes.functional as bnb

    return bnb.quantize_4bit(weight, blocksize=blocksize, quant_type=quant_type, compress_statistics=nested)


MODELS = {
    # Grouped queries, an odd ffn (blocks straddle rows), a window shorter than the sequences.
    "mistral": dict(kind="Mistral", hidden_size=64, intermediate_size=93, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, head_dim=16, vocab_size=96, sliding_window=6, max_position_embeddings=64,
                    rms_norm_eps=1e-5, targets=["q_proj", "v_proj"]),
    # head_dim is not hidden / heads, one key-value head, no window, tied head, another rotary base.
    "mistral_tied": dict(kind="Mistral", hidden_size=40, intermediate_size=56, num_hidden_layers=2,
                         num_attention_heads=3, num_key_value_heads=1, head_dim=24, vocab_size=70, sliding_window=None,
                         max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, targets="all-linear"),
    # Biases everywhere, no grouping, in shards behind an index, config.json in the spelling of transformers 4.
    "llama": dict(kind="Llama", hidden_size=32, intermediate_size=51, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=4, vocab_size=64, max_position_embeddings=64, rms_norm_eps=1e-5,
                  attention_bias=True, mlp_bias=True, targets=["q_proj", "k_proj", "o_proj", "down_proj"]),
}
LENGTHS = [13, 1, 9, 5]


def build(name):
    """A toy model whose weights are large enough for every part to matter in the result."""
    import transformers

    fields = {k: v for k, v in MODELS[name].items() if k not in ("kind", "targets")}
    kind = MODELS[name]["kind"]
    config = getattr(transformers, kind + "Config")(bos_token_id=1, eos_token_id=2, **fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + "ForCausalLM")(config).float()
    g = torch.Generator().manual_seed(sorted(MODELS).index(name) + 100)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=g)
            parameter.copy_(1 + 0.2 * noise if key.endswith("norm.weight") else 0.15 * noise)
    model.config.use_cache = False
    return model.train()


def save_model(name, model):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="40KB" if name == "llama" else "1GB")
    if name == "llama":
        config = json.loads((folder / "config.json").read_text())
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
        config["rope_scaling"] = None
        config["transformers_version"] = "4.44.0"
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def with_nf4_weights(model):
    """Every linear weight but the head goes through NF4 and back. In float32 this is what bitsandbytes' Linear4bit
    computes with, without its CPU kernels (one is wrong where a row is no multiple of the block size)."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
                codes, state = quantize(module.weight.data, "nf4")
                module.weight.copy_(dequantize_reference(
                    codes, state.absmax, state.code, module.weight.shape, BLOCKSIZE, torch.float32))
    return model


def adapt(model, name, folder=None):
    """LoRA with B not zero, so that both factors have gradients."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, lora_alpha=7, target_modules=MODELS[name]["targets"], lora_dropout=0.0, bias="none",
                        task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = get_peft_model(model, config)
    g = torch.Generator().manual_seed(200)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=g))
    if folder is not None:
        model.peft_config["default"].base_model_name_or_path = name
        save_adapter(model, folder)
    return model.train()


def save_adapter(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # peft writes a set, in any order
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    for file in folder.iterdir():
        file.chmod(0o644)


def batch_of(model):
    """Right-padded, as Hugging Face wants it; a part of the labels is not scored."""
    g = torch.Generator().manual_seed(300)
    width = max(LENGTHS)
    ids = torch.full((len(LENGTHS), width), model.config.eos_token_id)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(3, model.config.vocab_size, (length,), generator=g)
        mask[row, :length] = 1
        labels[row, :length] = ids[row, :length]
    labels[0, :4] = -100
    labels[2, 5] = -100
    return ids, mask, labels


def packed(rows):
    """[batch, width, …] → the real tokens end to end."""
    return torch.cat([row[:length] for row, length in zip(rows, LENGTHS)])


def run(model, batch):
    ids, mask, labels = batch
    out = model(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    # Each sequence alone, without padding, must give the same; then the reference is about the model alone.
    for row, length in enumerate(LENGTHS):
        alone = model(input_ids=ids[row : row + 1, :length]).logits[0]
        assert torch.allclose(alone, out.logits[row, :length], rtol=1e-4, atol=1e-5), (row, length)
    return out


def pad_batch(examples, pad_id):
    width = max(len(e["input_ids"]) for e in examples)
    ids = torch.full((len(examples), width), pad_id)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for row, e in enumerate(examples):
        length = len(e["input_ids"])
        ids[row, :length] = torch.tensor(e["input_ids"])
        labels[row, :length] = torch.tensor(e["labels"])
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(model, examples, settings, pad_id):
    """transformers' Trainer; returns its log and the batches it saw, as indices of the examples."""
    import transformers

    seen = []

    class Examples(torch.utils.data.Dataset):
        def __len__(self):
            return len(examples)

        def __getitem__(self, index):
            return dict(examples[index], index=index)

    def collate(batch):
        seen.append([e["index"] for e in batch])
        return pad_batch(batch, pad_id)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        arguments = transformers.TrainingArguments(
            output_dir=folder, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
            remove_unused_columns=False, dataloader_num_workers=0, **settings)
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Examples(), data_collator=collate)
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        "loss": [e["loss"] for e in log],
        "learning_rate": [e["learning_rate"] for e in log],
        "grad_norm": [float(e["grad_norm"]) for e in log],
        "epoch": [e["epoch"] for e in log],
        "train_loss": trainer.state.log_history[-1]["train_loss"],
    }, seen
