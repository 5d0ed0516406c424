"""The table of targets: each row from the figures of bench/report.py.

A figure is named WHO.WORK.FIGURE: ours.small.bf16.train, peft.small.bf16.train, ceiling.read_2mib_pages.threads2."""

import dataclasses

import report_notes

# The products of one layer of Mistral-7B: shape → how many weights have it.
LAYER = {"4096x4096": 2, "1024x4096": 2, "14336x4096": 2, "4096x14336": 1}


@dataclasses.dataclass
class Row:
    number: int
    work: str
    target: str
    measured: str
    verdict: str  # "met", "missed by …" or "not measured: …"


def at_least(value, target):
    short = 100 * (1 - value / target)
    return "met" if short <= 0 else f"missed by {short:.{0 if short >= 1 else 1}f} %"


def share_at_least(least, *shares):
    """Of a ceiling. More than all of it says that something disturbed the run."""
    if max(shares) > 1.05:
        return "not measured: more than the ceiling, so other work disturbed the run"
    return at_least(min(shares), least)


def at_most(value, target):
    return "met" if value <= target else f"missed: {value / target:.2f} × the limit"


def human(value, unit):
    """12.3 GB/s"""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if unit in ("flop/s", "byte/s", "byte", "flop") and value >= size:
            short = {"flop/s": "FLOP/s", "byte/s": "B/s", "byte": "B", "flop": "FLOP"}[unit]
            return f"{value / size:.3g} {prefix}{short}"
    return f"{value:.4g} {unit}"


def absent(figures, *names):
    """"not measured: …" for the first of the names that has no figure; empty if all have one."""
    for name in names:
        if figures.get(name) is None:
            reason = figures.why(name)
            return reason if reason.startswith("not ") else f"not measured: {name}: {reason}"
    return ""


def ratio_row(figures, number, work, target, ours, peer, least):
    """A rate of lorapp over that of a peer; `least` None: no target."""
    missing = absent(figures, ours, peer)
    mine = figures.get(ours)
    if missing:
        return Row(number, work, target, human(mine, figures.units[ours]) if mine is not None else "-", missing)
    other = figures.get(peer)
    counts = f"n = {figures.count(ours)}, {figures.count(peer)}"
    measured = f"{mine / other:.2f} × ({human(mine, figures.units[ours])} : {human(other, figures.units[peer])}; {counts})"
    return Row(number, work, target, measured, at_least(mine / other, least) if least else "-")


class Layer:
    """The products of a layer with one dtype, instruction set and number of tokens, summed over its weights."""

    def __init__(self, figures, dtype, isa, tokens):
        self.figures = figures
        self.prefix = f"ours.linear.linear.{dtype}.{isa}."
        self.suffix = f".rows{tokens}."
        self.shapes = [shape for shape in LAYER if self.rate_of(shape, "forward")]

    def rate_of(self, shape, kind):
        return self.figures.get(self.prefix + shape + self.suffix + kind)

    def rate(self, kind):
        """Operations a second over all shapes that were measured; None where one has none."""
        work = seconds = 0.0
        for shape in self.shapes:
            rate = self.rate_of(shape, kind)
            if rate is None:
                return None
            rows, columns = (float(size) for size in shape.split("x"))
            work += LAYER[shape] * rows * columns
            seconds += LAYER[shape] * rows * columns / rate
        return work / seconds if seconds else None

    def worst_share(self, kind):
        return min(self.rate_of(shape, kind) / self.rate_of(shape, "ceiling") for shape in self.shapes)


def sets_of(figures, dtype):
    """Instruction sets and numbers of tokens that products were measured with."""
    found = {}
    for name in figures.samples:
        parts = name.split(".")
        if parts[:4] == ["ours", "linear", "linear", dtype]:
            isa, rows = parts[4], parts[6]
            tokens = found.setdefault(isa, [])
            count = int(rows.removeprefix("rows"))
            if count not in tokens:
                tokens.append(count)
    return found


def linear_rows(figures, number, dtype):
    found = sets_of(figures, dtype)
    name = {"bf16": "4-bit product in bf16", "f32": "4-bit product in f32"}[dtype]
    if not found:
        return [Row(number, name, "-", "-", absent(figures, f"ours.linear.{dtype}"))]
    rows = []
    for isa, counts in found.items():
        for tokens in sorted(counts):
            layer = Layer(figures, dtype, isa, tokens)
            rates = {kind: layer.rate(kind) for kind in ("forward", "gradient", "dense_forward", "dense_gradient", "ceiling")}
            work = f"{name}, {isa}, {tokens} tokens"
            least = 0.80 if dtype == "f32" else 0.85 if tokens >= 128 else 0.75
            limit = "vdpbf16ps" if isa == "avx512bf16" and dtype == "bf16" else "f32 FMA"
            if dtype == "f32" and tokens < 128:
                target, least = "(no target)", None
            else:
                target = f"≥ {100 * least:.0f} % of the {'vdpbf16ps' if dtype == 'bf16' else 'FMA'} ceiling"
            if rates["ceiling"] is None:
                rows.append(Row(number, work, target, f"forward {human(rates['forward'], 'flop/s')}", "not measured: this set has no ceiling"))
                continue
            shares = {kind: rates[kind] / rates["ceiling"] for kind in ("forward", "gradient")}
            worst = {kind: layer.worst_share(kind) for kind in shares}
            measured = (
                f"forward {100 * shares['forward']:.0f} % (worst shape {100 * worst['forward']:.0f} %), "
                f"gradient {100 * shares['gradient']:.0f} % ({100 * worst['gradient']:.0f} %) of {human(rates['ceiling'], 'flop/s')}"
            )
            verdict = share_at_least(least, *shares.values()) if least else "-"
            if dtype == "bf16" and limit == "f32 FMA" and least:
                verdict += " (this CPU or build has no vdpbf16ps: of the f32 FMA ceiling)"
            rows.append(Row(number, work, target, measured, verdict))
            over = {"forward": rates["forward"] / rates["dense_forward"], "gradient": rates["gradient"] / rates["dense_gradient"]}
            measured = f"forward {over['forward']:.2f} ×, gradient {over['gradient']:.2f} × (dense: {human(rates['dense_forward'], 'flop/s')})"
            judged = dtype == "bf16" and tokens >= 128
            target = "≥ 1.05 × at::linear, dense weights" if judged else "(beside at::linear, dense weights)"
            rows.append(Row(number, work, target, measured, at_least(min(over.values()), 1.05) if judged else "-"))
    return rows


def tutorial_rows(figures):
    work = "the tutorial's recipe over real rows"
    rows = [ratio_row(figures, 5, work, "≥ 5 × peft+bnb, rows a second", "ours.tutorial.tutorial.samples", "peft.tutorial.tutorial.samples", 5)]
    names = ("ours.tutorial.tutorial.peak", "peft.tutorial.tutorial.peak")
    mine, other = (figures.get(name) for name in names)
    missing = absent(figures, *names)
    measured = human(mine, "byte") if mine else "-"
    if not missing:
        measured = f"{mine / other:.2f} × ({measured} : {human(other, 'byte')})"
    rows.append(Row(5, work + ", peak memory", "≤ 1/3 of peft+bnb", measured, missing or at_most(mine / other, 1 / 3)))
    return rows


def share_row(figures, number, work, target, rate, of_one, ceiling, least, run="generation"):
    """A rate times what one needs, as a share of a ceiling that was measured in turn with it; `least` None: no target."""
    names = [f"ours.{run}.{name}" for name in (rate, of_one, ceiling)]
    missing = absent(figures, *names)
    if missing:
        return Row(number, work, target, "-", missing)
    speed, need, limit = (figures.get(name) for name in names)
    unit = figures.units[names[2]]
    measured = f"{100 * speed * need / limit:.0f} % ({human(speed, 'token/s')}, {human(speed * need, unit)} of {human(limit, unit)}; n = {figures.count(names[0])})"
    return Row(number, work, target, measured, share_at_least(least, speed * need / limit) if least else "-")


def generation_rows(figures):
    rows = [
        share_row(figures, 6, "decode, one sequence", "≥ 85 % of read bandwidth, 2 MiB pages", "decode", "bytes_per_token", "read_bandwidth", 0.85),
        ratio_row(figures, 6, "decode with an adapter", "≥ 2.5 × peft+bnb", "ours.generation.decode_adapter", "peft.generation.decode_adapter", 2.5),
    ]
    rows.append(ratio_row(figures, 7, "decode with the head in 8 bits", "≥ 1.4 × llama.cpp Q4_0", "ours.generation8.decode", "llama.generation.decode", 1.4))
    rows.append(ratio_row(figures, 7, "decode with the head in bf16", "(beside llama.cpp Q4_0)", "ours.generation.decode", "llama.generation.decode", None))
    rows.append(share_row(figures, 7, "decode with the head in 8 bits", "(of read bandwidth, 2 MiB pages)", "decode", "bytes_per_token", "read_bandwidth", None, "generation8"))
    rows.append(share_row(figures, 8, "prefill", "≥ 85 % of the bf16 ceiling", "prefill", "flops_per_prompt_token", "flops_ceiling", 0.85))
    rows.append(ratio_row(figures, 8, "prefill", "≥ llama.cpp Q4_0", "ours.generation.prefill", "llama.generation.prefill", 1.0))
    rows.append(ratio_row(figures, 8, "prefill with an adapter", "(beside peft+bnb)", "ours.generation.prefill_adapter", "peft.generation.prefill_adapter", None))
    return rows


def quantize_row(figures):
    names = [name for name in figures.samples if name.startswith("ours.quantize.")]
    if not names:
        return Row(9, "quantize bf16 → NF4, one core", "≥ 4 GB/s of input", "-", absent(figures, "ours.quantize"))
    rates = [figures.get(name) for name in names]
    measured = f"{human(min(rates), 'byte/s')} to {human(max(rates), 'byte/s')} over {len(rates)} shapes"
    return Row(9, "quantize bf16 → NF4, one core", "≥ 4 GB/s of input", measured, at_least(min(rates), 4e9))


def start_row(figures):
    work, target = "`lorapp generate`, start to first token", "≤ 0.15 s beyond linking LibTorch"
    missing = absent(figures, "start.generate", "start.linked")
    if missing:
        return Row(10, work, target, "-", missing)
    ours, linked = figures.get("start.generate"), figures.get("start.linked")
    measured = f"{ours - linked:.3f} s ({ours:.3f} s, linking alone {linked:.3f} s; n = {figures.count('start.generate')})"
    return Row(10, work, target, measured, at_most(ours - linked, 0.15))


def growth_rows(figures):
    prefix = "ours.growth.growth.tokens"
    rates = {int(name.removeprefix(prefix)): figures.get(name) for name in figures.samples if name.startswith(prefix)}
    work, target = "growth of the batch, 8 layers", "tokens/s flat within 15 % from 512 up"
    if not rates:
        return [Row(11, work, target, "-", absent(figures, "ours.growth"))]
    measured = ", ".join(f"{count}: {rate:.0f}" for count, rate in sorted(rates.items()))
    large = [rate for count, rate in rates.items() if count >= 512]
    rows = [Row(11, work, target, measured + " token/s", at_least(min(large) / max(large), 0.85) if len(large) > 1 else "not measured: one size")]
    prefix = "ours.growth.growth.threads"
    rates = {int(name.removeprefix(prefix)): figures.get(name) for name in figures.samples if name.startswith(prefix)}
    work, most = "growth of the threads", max(rates, default=1)
    target = "≥ 1.9 × with 2 threads" if most in (1, 2) else f"(1 → {most} threads)"
    if most == 1:
        rows.append(Row(11, work, target, "-", "not measured: one thread"))
    else:
        gain = rates[most] / rates[1]
        verdict = at_least(gain, 1.9) if most == 2 else "-"
        ceilings = [figures.get(f"ceiling.fma_f32_avx512.threads{count}") or figures.get(f"ceiling.fma_f32_avx2.threads{count}") for count in (1, most)]
        beside = f"; the f32 FMA ceiling grows {ceilings[1] / ceilings[0]:.2f} ×" if all(ceilings) else ""
        rows.append(Row(11, work, target, f"{gain:.2f} × ({rates[1]:.0f} → {rates[most]:.0f} token/s{beside})", verdict))
    return rows


def rows(figures):
    result = linear_rows(figures, 1, "bf16") + linear_rows(figures, 2, "f32")
    for number, model, dtype, work, least, stretch in (
        (3, "mistral", "bf16", "train step, 2 layers of 7B shape, bf16", 1.4, 1.55),
        (4, "small", "bf16", "train step, 8 layers hidden 1024, bf16", 1.8, 2),
        (4, "small", "f32", "train step, 8 layers hidden 1024, f32", 2.4, 2.7),
    ):
        name = f"{model}.{dtype}.train"
        result.append(ratio_row(figures, number, work, f"≥ {least} × peft+bnb (stretch {stretch} ×)", f"ours.{name}", f"peft.{name}", least))
    return [*result, *tutorial_rows(figures), *generation_rows(figures), quantize_row(figures), start_row(figures), *growth_rows(figures)]


def table(all_rows):
    lines = ["| # | work | target | measured | |", "|---|---|---|---|---|"]
    lines += [f"| {row.number} | {row.work} | {row.target} | {row.measured} | {row.verdict} |" for row in all_rows]
    return "\n".join(lines)


def markdown(all_rows, figures, machine, runner, quick):
    """The whole report."""
    counted = [row for row in all_rows if row.verdict != "-"]
    met = sum(row.verdict.startswith("met") for row in counted)
    missed = sum(row.verdict.startswith("missed") for row in counted)
    lines = ["# Benchmarks", ""]
    if quick:
        lines += ["**A smoke test on small models: no figure here means anything.**", ""]
    lines += [
        f"Written by `bash bench/report.sh`, which took {runner.elapsed() / 60:.0f} minutes. Everything is measured in turn, ceilings and peers too: ratios are of one run on one machine.",
        "A figure is the median of its samples; n says how many. Models have random weights; the rows of the tutorial are the first of databricks-dolly-15k.",
        "The peers are transformers + peft + bitsandbytes (\"peft+bnb\") and llama.cpp, on the same folders, tokens and threads.",
        "",
        *(f"- {line}" for line in machine),
        "",
        f"{met} of {len(counted)} targets are met, {missed} missed, {len(counted) - met - missed} not measured.",
        "",
        table(all_rows),
        "",
        "Products are those of one layer of Mistral-7B, each shape as often as a layer has it; shares are of the ceiling measured between them with the same threads.",
        "Products, quantizing and growth repeat within their own process, where n is 1: those figures are medians of its rounds.",
        "A decoded token is counted as reading every 4-bit weight with its scales, and the head, once.",
    ]
    why = report_notes.lines(all_rows, figures)
    if why:
        lines += ["", "## Why rows are missed, and what was tried", "", *why]
    if figures.missing:
        lines += ["", "## What is missing", "", *(f"- {name}: {reason}" for name, reason in figures.missing.items())]
    lines += ["", "## Commands", "", "WORK is the folder with the models, which bench/report.sh makes.", "", "```sh"]
    lines += [f"{command}  # {prefix}" for prefix, command in runner.commands.items()]
    lines += ["```"]
    lines += ["", "## Every figure", "", "| figure | median | lowest | highest | n |", "|---|---|---|---|---|"]
    for name in sorted(figures.samples):
        samples, unit = figures.samples[name], figures.units[name]
        low, high = human(min(samples), unit), human(max(samples), unit)
        lines.append(f"| {name} | {human(figures.get(name), unit)} | {low} | {high} | {len(samples)} |")
    return "\n".join(lines) + "\n"
