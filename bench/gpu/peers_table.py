"""Whether the results of a pair agree, and its row of the table."""


def differences(pair, ours, peer, name):
    """What is wrong with two calls' results, in words; empty where they agree."""
    wrong = []
    if set(ours) != set(pair.limits) or set(peer) != set(pair.limits):
        return [f"{name} has the results {sorted(peer)}, ours {sorted(ours)}, expected {sorted(pair.limits)}"]
    for what, limit in pair.limits.items():
        limit = pair.limits_of.get((name, what), limit)
        a, b = ours[what].double(), peer[what].double()
        if a.shape != b.shape:
            wrong.append(f"{what} is {tuple(a.shape)}, {name}'s {tuple(b.shape)}")
            continue
        error = float((a - b).norm() / b.norm())
        if not error <= limit:  # which NaN is not
            wrong.append(f"{what} differs from {name}'s by {error:.2g} of its norm, at most {limit:.2g} expected")
    return wrong


def mismatches(pair):
    """The differences from every peer, for two copies of the weights."""
    wrong = []
    for i in range(min(2, pair.copies)):
        ours = {what: result.clone() for what, result in pair.ours(i).items()}
        for name, call in pair.peers.items():
            wrong += differences(pair, ours, call(i), name)
    return wrong


def spoiled(pair):
    """Results that differences() lets pass with an error of four times their limit: there must be none."""
    ours = {what: result.clone() for what, result in pair.ours(0).items()}
    passed = []
    for what, limit in pair.limits.items():
        bad = ours[what].double() * (1 + 4 * limit)
        if not differences(pair, ours | {what: bad}, ours, "itself"):
            passed.append(what)
    return passed


def readable(seconds):
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def row(pair, seconds, copying, peaks, single):
    """The row of a pair that agrees: medians by name ("ours" among them), the copy bandwidth in bytes a second, peaks
    in bytes by name, and the names of calls that could not be captured."""
    ours = seconds["ours"]
    fastest = min(pair.peers, key=seconds.get)
    targets, met = [], []
    if pair.faster:
        targets.append(f"≥ {pair.faster:g} × the fastest peer")
        met.append(seconds[fastest] >= pair.faster * ours)
    measured = [f"{seconds[fastest] / ours:.2f} × {fastest}: {readable(ours)} to {readable(seconds[fastest])}"]
    measured += [
        f"{seconds[name] / ours:.2f} × {name} ({readable(seconds[name])})"
        for name in (*pair.peers, *pair.beside)
        if name != fastest
    ]
    if pair.bytes:
        share = pair.bytes / ours / copying
        measured.append(f"{100 * share:.0f} % of copying ({pair.bytes / ours / 1e9:.0f} of {copying / 1e9:.0f} GB/s)")
        if pair.copying:
            targets.append(f"≥ {100 * pair.copying:.0f} % of copying")
            met.append(share >= pair.copying)
    if pair.memory:
        targets.append(f"≤ {pair.memory / 1e6:.0f} MB beyond the inputs")
        met.append(peaks["ours"] <= pair.memory)
        theirs = ", ".join(f"{name} {peak / 1e6:.0f} MB" for name, peak in peaks.items() if name != "ours")
        measured.append(f"{peaks['ours'] / 1e6:.0f} MB; {theirs}")
    if single:
        measured.append(f"not in a graph: {', '.join(sorted(single))}")
    verdict = "met" if all(met) else "missed"
    return f"| {pair.work} | {', '.join(targets)} | {'; '.join(measured)} | {verdict} |"
