"""What the scripts of this folder share. Each measures one thing in a process of its own and prints
results as JSON lines, {"name", "value", "unit"}, as bench_report does. Nothing is downloaded.

Exit status 3 says that a package is missing."""

import importlib
import json
import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")


def need(*names):
    """The modules of these names, or the end of the program with a message."""
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except ImportError as error:
            print(f"the Python package {name} is missing or broken: {error}", file=sys.stderr)
            sys.exit(3)
    return modules


def emit(name, value, unit):
    print(json.dumps({"name": name, "value": value, "unit": unit}), flush=True)


def versions(*names):
    """Says on stderr which versions are measured."""
    found = []
    for name in names:
        module = importlib.import_module(name)
        found.append(f"{name} {getattr(module, '__version__', 'of unknown version')}")
    print("versions: " + ", ".join(found), file=sys.stderr)


def peak_bytes():
    """The largest resident size of this process so far (ru_maxrss would begin at its parent's)."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def torch_dtype(name):
    import torch

    return {"bf16": torch.bfloat16, "f32": torch.float32}[name]


def load_adapted(folder, dtype_name, threads):
    """A folder in NF4 by bitsandbytes, with LoRA of rank 16 on q_proj and v_proj by PEFT."""
    torch, transformers, peft, _ = need("torch", "transformers", "peft", "bitsandbytes")
    versions("torch", "transformers", "peft", "bitsandbytes")
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    dtype = torch_dtype(dtype_name)
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=False
    )
    base = transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, dtype=dtype, device_map={"": "cpu"}, attn_implementation="sdpa"
    )
    lora = peft.LoraConfig(
        r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], lora_dropout=0.05, bias="none", task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(base, lora)
