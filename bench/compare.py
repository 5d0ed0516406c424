#!/usr/bin/env python3
"""Compares two result files of Google Benchmark, by the names that both have.

  bench_nf4_quantize --benchmark_out=base.json --benchmark_out_format=json
  …change…
  bench_nf4_quantize --benchmark_out=change.json --benchmark_out_format=json
  bench/compare.py base.json change.json [--filter REGEX] [--fail-above PERCENT]

Where a file has repetitions, their median is taken. With --fail-above the exit status is 1 if
anything became slower by more than that.
"""

import argparse
import json
import re
import statistics
import sys

NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


def read_times(path):
    """name → median real time in nanoseconds."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        runs = content["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"compare.py: {path}: not a result file of Google Benchmark ({error})")
    times = {}
    for run in runs:
        if run.get("run_type") == "aggregate" or run.get("error_occurred"):
            continue
        name = run.get("run_name", run["name"]).removesuffix("/real_time")
        times.setdefault(name, []).append(run["real_time"] * NANOSECONDS[run["time_unit"]])
    return {name: statistics.median(values) for name, values in times.items()}


def human(nanoseconds):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3f} {unit}"
    return f"{nanoseconds:.1f} ns"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("base")
    parser.add_argument("change")
    parser.add_argument("--filter", default="", help="only names that this regular expression matches")
    parser.add_argument("--fail-above", type=float, help="percent of slowdown that is a failure")
    args = parser.parse_args()

    base, change = read_times(args.base), read_times(args.change)
    names = [name for name in base if name in change and re.search(args.filter, name)]
    if not names:
        sys.exit("compare.py: the two files have no benchmark in common")
    width = max(len(name) for name in names)
    print(f"{'benchmark':{width}}  {'base':>11}  {'change':>11}  change/base")
    worst = 0.0
    for name in names:
        ratio = change[name] / base[name]
        worst = max(worst, 100 * (ratio - 1))
        print(f"{name:{width}}  {human(base[name]):>11}  {human(change[name]):>11}  {ratio:.3f}")
    for path, missing in ((args.change, base.keys() - change.keys()), (args.base, change.keys() - base.keys())):
        if missing:
            print(f"not in {path}: {', '.join(sorted(missing))}")
    if args.fail_above is not None and worst > args.fail_above:
        sys.exit(f"compare.py: slower by up to {worst:.1f} %, allowed {args.fail_above} %")


if __name__ == "__main__":
    main()
