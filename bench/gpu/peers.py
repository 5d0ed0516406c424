"""The stage peers of bench/gpu.sh: our CUDA kernels, bitsandbytes, peft and PyTorch in one process and in turn, as a
table. Before anything is timed, the results of each pair are compared; a mismatch is a failure.

--check compares on the CPU, small shapes and our kernels emulated, and measures nothing.
Status 77: skipped, the first line says why; 1: results differ, or a pair could not run."""

import argparse
import gc
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers_clock import Clock, HostCuda  # noqa: E402
from peers_library import Library  # noqa: E402
from peers_pairs import FULL, SMALL, Pairs  # noqa: E402
from peers_table import mismatches, row, spoiled  # noqa: E402


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def imported(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        skip(f"{sys.executable} cannot import {name} ({error})")


def heading(torch, bnb, peft, device):
    gpu = torch.cuda.get_device_properties(device)
    return (
        f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, {gpu.multi_processor_count} multiprocessors; "
        f"torch {torch.__version__}, bitsandbytes {bnb.__version__}, peft {peft.__version__}"
    )


def measured(pair, clock):
    """The row of a pair whose results agree."""
    calls = {"ours": pair.ours} | pair.peers | pair.beside
    seconds, copying, single = clock.medians(calls, pair.copies)
    peaks = {}
    if pair.memory:
        peaks = {name: clock.peak(call) for name, call in ({"ours": pair.ours} | pair.peers).items()}
        peaks["ours"] += pair.held
    return row(pair, seconds, copying, peaks, single)


def run(pairs, clock, check):
    """Prints rows; returns how many pairs agreed and how many failed."""
    agreed = failed = 0
    out_of_memory = pairs.torch.OutOfMemoryError
    for group in pairs.all():
        generator = group()
        while True:
            work = "a group of pairs"
            try:
                pair = next(generator, None)
                if pair is None:
                    break
                work = pair.work
                wrong = mismatches(pair)
                if check:
                    wrong += [f"an error of {what} would not be found" for what in spoiled(pair)]
                if not wrong:
                    line = measured(pair, clock)
                    print(f"{work}: as {', '.join(pair.peers)}" if check else line, flush=True)
                    agreed += 1
            except out_of_memory:
                print(f"| {work} | | not measured: this GPU's memory is too small | - |", flush=True)
                continue
            except Exception as error:  # the rows after this one are wanted all the same
                if check:
                    raise
                wrong = [f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"]
            if wrong:
                print(f"| {work} | equal results | {'; '.join(wrong)} | failed |", flush=True)
                failed += 1
        pair = generator = group = None
        gc.collect()
        clock.cuda.empty_cache()
    return agreed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="the shared library of the target gpu_peers")
    parser.add_argument("--check", action="store_true", help="compare on the CPU only")
    args = parser.parse_args()
    torch = imported("torch")
    if not args.check and not torch.cuda.is_available():
        skip(f"no GPU that torch {torch.__version__} sees")
    bnb, peft = imported("bitsandbytes"), imported("peft")
    device = torch.device("cpu" if args.check else "cuda")
    library = Library(args.library, torch, device)
    if args.check:
        torch.set_num_threads(1)
        clock = Clock(torch, device, HostCuda, copied_bytes=1 << 10, turn_seconds=0, busy_seconds=0)
    else:
        clock = Clock(torch, device, torch.cuda)
        print(heading(torch, bnb, peft, device))
        print("\n| work | target | measured | |\n|---|---|---|---|", flush=True)
    pairs = Pairs(library, torch, bnb, peft, SMALL if args.check else FULL)
    with clock.cuda.stream(clock.stream):
        agreed, failed = run(pairs, clock, args.check)
    library.close()
    print(f"\n{agreed} pairs agree, {failed} failed")
    return 0 if agreed > 0 and failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
