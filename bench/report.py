#!/usr/bin/env python3
"""Measures every row of the table of speed targets and prints it filled in; bench/report.sh builds what
this needs and calls it.

Ceilings, lorapp and the peers run in turn, each measurement in a process of its own, over and over until
there are --rounds samples or the --budget is spent; a figure is the median of its samples. The peers need
LORAPP_PEERS_PYTHON, a python with torch, transformers, peft, bitsandbytes, accelerate and sentencepiece, and
with llama-cpp-python and gguf for llama.cpp. Real rows come from ../shared/data, or LORAPP_SHARED_DATA.
What is missing or missed is said in the table. --quick is a smoke test on small models: its figures mean nothing.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "support"))
import report_machine
import report_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench/peers"

FULL = {
    "models": {
        "mistral": {"hidden": 4096, "ffn": 14336, "layers": 2, "heads": 32, "kv_heads": 8, "vocab": 32000},
        "small": {"hidden": 1024, "ffn": 3584, "layers": 8, "heads": 16, "kv_heads": 4, "vocab": 32000},
    },
    "linear": {"rows": "32,128,512", "rounds": 3},
    "quantize": {"rounds": 5},
    "growth": {"tokens": "128,512,2048,8192", "thread_tokens": 1024, "rounds": 3},
    "train": {"sequences": 4, "length": 256},
    "steps": {"ours": 2, "peft": 1},  # a round, behind a first step that is not counted
    "generation": {"prompt": 512, "context": 64, "tokens": 40},
    "tutorial_rows": 48,
    "starts": 5,
}
QUICK = {
    "models": {
        "mistral": {"hidden": 512, "ffn": 1408, "layers": 1, "heads": 8, "kv_heads": 2, "vocab": 32000},
        "small": {"hidden": 256, "ffn": 704, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 32000},
    },
    "linear": {"rows": "32,128,512", "rounds": 1, "milliseconds": 5, "largest": 4 << 20},
    "quantize": {"rounds": 1, "largest": 4 << 20},
    "growth": {"tokens": "128,512,1024", "thread_tokens": 256, "rounds": 1},
    "train": {"sequences": 2, "length": 64},
    "steps": {"ours": 1, "peft": 1},
    "generation": {"prompt": 64, "context": 16, "tokens": 4},
    "tutorial_rows": 8,
    "starts": 2,
}


class Figures:
    """Samples by name, and why others are not there."""

    def __init__(self):
        self.samples = {}
        self.units = {}
        self.missing = {}  # prefix of names → why

    def add(self, name, value, unit):
        self.samples.setdefault(name, []).append(value)
        self.units[name] = unit

    def get(self, name):
        """The median, or None."""
        return statistics.median(self.samples[name]) if name in self.samples else None

    def count(self, name):
        return len(self.samples.get(name, []))

    def why(self, name):
        """Why there is no such figure."""
        for prefix, reason in self.missing.items():
            if name == prefix or name.startswith(prefix + "."):
                return reason
        return "not measured"


class Runner:
    """Runs measurements, and notes what they print or why they failed."""

    def __init__(self, figures, budget, folder, only):
        self.figures = figures
        self.only = re.compile(only)
        self.folder = folder  # where the measurements run
        self.begin = time.monotonic()
        self.budget = budget
        self.took = {}  # prefix → seconds of the last run
        self.commands = {}  # prefix → the last command
        self.versions = {}

    def elapsed(self):
        return time.monotonic() - self.begin

    def fits(self, prefix):
        """Whether one more run of a measurement is likely to end within the budget."""
        return self.elapsed() + self.took.get(prefix, 0) <= self.budget

    def run(self, prefix, command, environment=None):
        """Adds the results of a command under PREFIX.NAME."""
        if prefix in self.figures.missing:
            return
        if not self.only.search(prefix):
            self.figures.missing[prefix] = "not run: --only names others"
            return
        if not self.fits(prefix):
            if prefix not in self.took:
                self.figures.missing[prefix] = f"not run: the budget of {self.budget} s was spent before"
            return
        say(f"[{self.elapsed():5.0f} s] {prefix}")
        self.commands[prefix] = " ".join(str(word) for word in command)
        start = time.monotonic()
        try:
            result = subprocess.run(
                [str(word) for word in command], capture_output=True, text=True, timeout=900, env=environment, cwd=self.folder, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.figures.missing[prefix] = f"failed: {error}"
            return
        self.took[prefix] = time.monotonic() - start
        for line in result.stderr.splitlines():
            if line.startswith("versions: "):
                for each in line.removeprefix("versions: ").split(", "):
                    self.versions[each.split()[0]] = each
            if line.startswith("isa "):
                self.versions["isa"] = line.removeprefix("isa ").split(",")[0]
        if result.returncode != 0:
            lines = [line for line in result.stderr.splitlines() if line.strip()] or [f"status {result.returncode}"]
            self.figures.missing[prefix] = "failed: " + lines[-1].strip()[:300]
            say("    " + self.figures.missing[prefix])
            return
        for line in result.stdout.splitlines():
            if not line.startswith('{"name"'):  # a peer's library may print too
                continue
            entry = json.loads(line)
            name = f"{prefix}.{entry['name']}"
            if "threads" in entry:
                name += f".threads{entry['threads']}"
            if "absent" in entry:
                self.figures.missing[name] = entry["absent"]
            else:
                self.figures.add(name, entry["value"], entry["unit"])


def say(text):
    print(text, file=sys.stderr, flush=True)


def options(settings):
    return [f"{key}={value}" for key, value in settings.items()]


def flags(settings):
    return [word for key, value in settings.items() for word in (f"--{key}", value)]


def without_paths(text, args, python):
    """The text without what is this machine's alone."""
    data = pathlib.Path(os.environ.get("LORAPP_SHARED_DATA") or ROOT.parent / "shared/data").absolute()
    for path, name in (
        (python, "$LORAPP_PEERS_PYTHON"), (args.work, "WORK"), (args.build, "build"), (data, "../shared/data"),
        (f"{ROOT}/", ""), (pathlib.Path.home(), "~"),
    ):  # fmt: skip
        if path:
            text = text.replace(str(path), name)
    return text


def make_models(runner, program, plan, work):
    """Random-weight folders, each made once."""
    folders = {}
    for name, sizes in plan["models"].items():
        folder = work / "-".join([name, *(str(size) for size in sizes.values())])
        if not (folder / "config.json").exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            say(f"making {folder}")
            result = subprocess.run(
                [program, "make_model", f"folder={part}", *options(sizes)], capture_output=True, text=True, check=False
            )
            if result.returncode != 0:
                sys.exit(f"report.py: could not make {folder}: {result.stderr.strip()}")
            part.rename(folder)
        folders[name] = folder
    return folders


def first_byte(command):
    """Seconds from the start of a process to the first byte that it prints."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        got = process.stdout.read(1)
        seconds = time.perf_counter() - start
        _, errors = process.communicate()
    if not got or process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
        raise OSError(f"{command[0]} printed nothing or failed (status {process.returncode}): {lines[-1]}")
    return seconds


def measure_start(runner, build, count):
    if not runner.only.search("start"):
        runner.figures.missing["start"] = "not run: --only names others"
        return
    ours = [
        str(build / "bin/lorapp"), "generate", "--model", str(ROOT / "examples/quickstart/base"),
        "--prompt", "The capital of France is", "--max-new-tokens", "2", "--ignore-eos",
    ]  # fmt: skip
    runner.commands["start"] = f"{build / 'bench/link_only'}, then " + " ".join(ours)
    say(f"[{runner.elapsed():5.0f} s] start")
    try:
        for _ in range(count):
            runner.figures.add("start.linked", first_byte([str(build / "bench/link_only")]), "s")
            runner.figures.add("start.generate", first_byte(ours), "s")
    except OSError as error:
        runner.figures.missing["start"] = f"failed: {error}"


def measure(runner, plan, args, folders, data, python):
    """All rounds. Names are OURS_OR_PEER.WORK.FIGURE."""
    report = args.build / "bench/bench_report"
    threads = args.threads
    missing = runner.figures.missing
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if python is None:
        missing["peft"] = missing["llama"] = "not measured: LORAPP_PEERS_PYTHON names no python"

    def ours(prefix, case, **settings):
        runner.run(f"ours.{prefix}", [report, case, *options(settings)])

    def peer(prefix, script, *words):
        if python is not None:
            runner.run(prefix, [python, PEERS / script, *words, "--threads", threads], environment)

    def tutorial():
        if data is None:
            return
        rows = plan["tutorial_rows"]
        ours("tutorial", "tutorial", folder=folders["small"], tokenizer=data["tokenizer"], data=data["rows"], rows=rows, output=args.work / "tutorial-out", threads=threads)  # fmt: skip
        peer("peft.tutorial", "peft_tutorial.py", folders["small"], data["rows"], data["tokenizer"] / "tokenizer.model", "--rows", rows)

    gguf = folders["mistral"].with_suffix(".q4_0.gguf")
    peer("llama.prepare", "llama_cpp_generation.py", folders["mistral"], "--gguf", gguf, "--prepare")
    if "llama.prepare" in missing:
        missing["llama"] = missing.pop("llama.prepare")
    for round_number in range(args.rounds):
        say(f"round {round_number + 1} of {args.rounds}")
        runner.run("ceiling", [args.build / "bench/ceilings", threads])
        if round_number == 0:  # these repeat and compare within one process
            ours("linear", "linear", **plan["linear"], threads=threads)
            ours("quantize", "quantize", **plan["quantize"])
        measure_start(runner, args.build, plan["starts"])
        generation = plan["generation"]
        ours("generation", "generation", folder=folders["mistral"], **generation, rounds=1, threads=threads)
        ours("generation8", "generation", folder=folders["mistral"], head=8, **generation, rounds=1, threads=threads)
        if "llama" not in missing:
            peer("llama.generation", "llama_cpp_generation.py", folders["mistral"], "--gguf", gguf, *flags(generation))
        peer("peft.generation", "peft_generation.py", folders["mistral"], *flags(generation))
        for name, dtype in (("small", "bf16"), ("small", "f32"), ("mistral", "bf16")):
            train = plan["train"]
            ours(f"{name}.{dtype}", "train", folder=folders[name], dtype=dtype, **train, steps=plan["steps"]["ours"], threads=threads)
            peer(f"peft.{name}.{dtype}", "peft_train.py", folders[name], "--dtype", dtype, *flags(train), "--steps", plan["steps"]["peft"])
        if round_number == 0:
            ours("growth", "growth", folder=folders["small"], **plan["growth"], threads=threads)
        if round_number == 0:
            tutorial()
    for _ in range(args.rounds - 1):  # the longest comes last: the budget may leave one sample of it
        tutorial()


def find_data():
    """Real rows and their tokenizer, or None and why."""
    folder = pathlib.Path(os.environ.get("LORAPP_SHARED_DATA") or ROOT.parent / "shared/data").absolute()
    found = {"rows": folder / "dolly/databricks-dolly-15k.jsonl", "tokenizer": folder / "tokenizers/mistral-v1"}
    for path in found.values():
        if not path.exists():
            return None, f"not measured: there is no {path}"
    return found, ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and one round: a smoke test")
    parser.add_argument("--rounds", type=int, help="samples of each figure (default 3; quick: 1)")
    parser.add_argument("--budget", type=int, help="seconds after which no measurement begins anew (default 1400; quick: 220)")
    parser.add_argument("--only", default="", metavar="REGEX", help="run the measurements whose names match, e.g. tutorial")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path(os.environ.get("BUILD_DIR") or ROOT / "build"))
    parser.add_argument("--work", type=pathlib.Path, help="where models are made and kept, 4 GB (default: BUILD/report)")
    parser.add_argument("--output", type=pathlib.Path, help="the report (default: docs/benchmarks.md; with --quick or --only: WORK/partial.md)")
    args = parser.parse_args()
    plan = QUICK if args.quick else FULL
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.budget = args.budget or (220 if args.quick else 1400)
    args.threads = args.threads or report_machine.physical_cores()
    args.build = args.build.resolve()
    args.work = (args.work or args.build / "report").resolve()
    args.output = args.output or (args.work / "partial.md" if args.quick or args.only else ROOT / "docs/benchmarks.md")
    for name in ("bench/bench_report", "bench/ceilings", "bench/link_only", "bin/lorapp"):
        if not (args.build / name).exists():
            sys.exit(f"report.py: {args.build / name} is not built; bash bench/report.sh builds it")
    python = os.environ.get("LORAPP_PEERS_PYTHON")
    if python and not os.access(python, os.X_OK):
        sys.exit(f"report.py: LORAPP_PEERS_PYTHON is {python}, which cannot be run")
    python = os.path.abspath(python) if python else None
    args.work.mkdir(parents=True, exist_ok=True)

    figures = Figures()
    runner = Runner(figures, args.budget, args.work, args.only)
    load = os.getloadavg()[0]
    folders = make_models(runner, args.build / "bench/bench_report", plan, args.work)
    data, why = find_data()
    if data is None:
        figures.missing["ours.tutorial"] = figures.missing["peft.tutorial"] = why
    try:
        measure(runner, plan, args, folders, data, python)
    finally:  # what was measured is kept, whatever came between
        kept = {"samples": figures.samples, "units": figures.units, "missing": figures.missing}
        (args.work / "samples.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")

    machine = report_machine.describe(args.build, args.threads, load, runner.versions)
    rows = report_rows.rows(figures)
    text = report_rows.markdown(rows, figures, machine, runner, args.quick)
    text = without_paths(text, args, python)
    part = args.output.with_name(args.output.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, args.output)
    print(report_rows.table(rows))
    for name, reason in figures.missing.items():
        print(f"missing: {name}: {reason}")
    print(f"\n{runner.elapsed():.0f} s; the report is in {args.output}, every sample in {args.work / 'samples.json'}")


if __name__ == "__main__":
    main()
