"""The rules of bench/gpu/peers.py's table: what is met, what is missed, which results agree."""

import sys
import unittest
from pathlib import Path

import torch

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "gpu"))

from peers_pairs import Pair  # noqa: E402
from peers_table import differences, row  # noqa: E402


def pair(**targets):
    return Pair("work", None, {"slow": None, "fast": None}, {"y": 0.01}, **targets)


def cells(of, seconds, copying=100.0, peaks=None, single=()):
    return [cell.strip() for cell in row(of, seconds, copying, peaks or {}, single).strip("|").split("|")]


class Rows(unittest.TestCase):
    def test_the_fastest_peer_is_the_one_that_counts(self):
        seconds = {"ours": 1.0, "slow": 3.0, "fast": 1.49}
        work, target, measured, verdict = cells(pair(faster=1.5), seconds)
        self.assertEqual((work, target, verdict), ("work", "≥ 1.5 × the fastest peer", "missed"))
        self.assertTrue(measured.startswith("1.49 × fast: 1000.00 ms to 1490.00 ms; 3.00 × slow"), measured)
        self.assertEqual(cells(pair(faster=1.5), seconds | {"fast": 1.5})[3], "met")

    def test_every_target_has_to_be_met(self):
        seconds = {"ours": 1.0, "slow": 3.0, "fast": 2.0}
        for bytes, verdict in ((79.0, "missed"), (81.0, "met")):
            self.assertEqual(cells(pair(faster=1.5, copying=0.8, bytes=bytes), seconds)[3], verdict)
        for peak, verdict in ((257e6, "missed"), (255e6, "met")):
            peaks = {"ours": peak, "slow": 1e9, "fast": 1e9}
            self.assertEqual(cells(pair(faster=1.5, memory=256e6), seconds, peaks=peaks)[3], verdict)

    def test_what_was_not_captured_is_named(self):
        seconds = {"ours": 1.0, "slow": 3.0, "fast": 2.0}
        self.assertIn("not in a graph: slow", cells(pair(faster=1.0), seconds, single=["slow"])[2])


class Results(unittest.TestCase):
    def wrong(self, ours, peer):
        return differences(pair(), ours, peer, "fast")

    def test_a_difference_within_the_limit_passes_and_one_beyond_does_not(self):
        y = torch.ones(8)
        self.assertEqual(self.wrong({"y": y * 1.009}, {"y": y}), [])
        self.assertEqual(len(self.wrong({"y": y * 1.011}, {"y": y})), 1)

    def test_a_nan_a_shape_or_a_missing_result_is_a_difference(self):
        y = torch.ones(8)
        for ours in ({"y": y * float("nan")}, {"y": y[:7]}, {}, {"y": y, "more": y}):
            self.assertEqual(len(self.wrong(ours, {"y": y})), 1)


if __name__ == "__main__":
    unittest.main()
