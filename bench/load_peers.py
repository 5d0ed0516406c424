#!/usr/bin/env python3
"""Load + quantize to NF4, lorapp beside transformers + bitsandbytes, run by run in turn.

  PYTHON bench/load_peers.py [--build build] [--folder FOLDER] [--layers 2] [--runs 5]

PYTHON has torch, transformers, bitsandbytes and safetensors. The model is one of Mistral-7B's
shape with random bf16 weights, made in FOLDER where it is missing (1.4 GB for two layers). Every
load is a process of its own; the time is that of from_pretrained alone. Printed are medians, the
ratio, peak memory, and beside them the time that reading the file takes (the ceiling).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

PEER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
import bitsandbytes
torch.set_num_threads(int(sys.argv[2]))
config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                            bnb_4bit_compute_dtype=torch.bfloat16,
                            bnb_4bit_use_double_quant=sys.argv[3] == "nf4_nested")

def peak():  # ru_maxrss would begin at that of the process that started this one
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

linked = peak()
start = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], quantization_config=config,
                                             dtype=torch.bfloat16, device_map={"": "cpu"})
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "linked_bytes": linked,
                  "peak_bytes": peak()}))
"""


def make_model(folder, layers):
    """A Mistral of the 7B's shape with `layers` layers, one shard a layer."""
    if (folder / "config.json").exists():
        return
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(num_hidden_layers=layers, vocab_size=32000)  # the rest is the 7B's
    torch.manual_seed(0)
    model = MistralForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)


def read_seconds(folder):
    """Reading the weights from the page cache into one buffer."""
    buffer = bytearray(1 << 22)
    start = time.perf_counter()
    for path in folder.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def run(command):
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{result.stderr}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", type=pathlib.Path, help="lorapp's build folder")
    parser.add_argument("--folder", type=pathlib.Path, help="where the model is or will be (default: temporary)")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", default="nf4", choices=["nf4", "nf4_nested"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary) / "model"
        cache = pathlib.Path(temporary) / "cache"
        make_model(folder, arguments.layers)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        load_once = [str(arguments.build / "bench/load_once"), str(folder), arguments.format]
        run([*load_once, str(cache)])  # fills the cache, and the page cache
        peer, ours, cached, reading = [], [], [], []
        for _ in range(arguments.runs):
            reading.append(read_seconds(folder))
            ours.append(run(load_once))
            peer.append(run([sys.executable, "-c", PEER, str(folder), str(arguments.threads), arguments.format]))
            cached.append(run([*load_once, str(cache)]))

    def line(name, runs):
        seconds = statistics.median(entry["seconds"] for entry in runs)
        peak = statistics.median(entry["peak_bytes"] for entry in runs) / 1e6
        linked = statistics.median(entry["linked_bytes"] for entry in runs) / 1e6
        print(f"{name:34} {seconds:8.2f} s   {size / seconds / 1e9:6.2f} GB/s   peak {peak:6.0f} MB, {peak - linked:6.0f} beyond the program itself")
        return seconds

    print(f"{size / 1e9:.2f} GB of bf16 weights, {arguments.format}, medians of {arguments.runs} runs in turn")
    base = line("transformers + bitsandbytes", peer)
    mine = line("lorapp", ours)
    second = line("lorapp, from its quant cache", cached)
    ceiling = statistics.median(reading)
    print(f"{'reading the file':34} {ceiling:8.2f} s   {size / ceiling / 1e9:6.2f} GB/s")
    print(f"lorapp takes 1/{base / mine:.1f} of the time, from its cache 1/{base / second:.0f}")


if __name__ == "__main__":
    main()
