"""Why rows of the table are missed: what limits them on a kind of CPU, and what was tried. Written by those who tuned
the kernels; docs/performance.md says how the kernels work."""

import dataclasses
import re


@dataclasses.dataclass
class Note:
    numbers: tuple  # of rows
    work: str  # a regular expression
    applies: object  # figures → whether it is true of this machine
    text: str


def without_bf16(figures):
    """Whether the CPU has no product of bf16, so that those run as f32."""
    return figures.get("ceiling.dot_bf16_avx512.threads1") is None and figures.get("ceiling.fma_f32_avx512.threads1") is not None


def anywhere(_):
    return True


NOTES = [
    Note((1, 8), "bf16|prefill$", without_bf16,
         "The target counts on vdpbf16ps, which does two multiply-adds where an FMA does one. This CPU has none, so bf16 runs through f32 FMAs and their rate is "
         "the ceiling; every share below 100 % of it that the other notes explain is seen here too."),
    Note((1, 2, 8), ", (128|512) tokens|prefill$", anywhere,
         "Of a product of 480 rows the inner tiles of multiply-adds are 95 %, and alone, on operands in the caches, they reach 97 % of the ceiling. The rest is decoding (once for "
         "up to 480 rows; of 128 rows about 6 %), copying x into tiles, tiles of twelve rows that 128 or 512 do not fill, and reading x again from further caches. Tried: blocks of 128 to 320 along the "
         "summed dimension (192 is kept), 128 to 2048 columns at a time, prefetching the next block, writing results row by row; all within 2 % or slower. Kept: the gradient sums as many "
         "columns at a time as the cache holds (2 to 8 % faster at 32 and 128 tokens). The same binary varies by 10 % from run to run where other machines share the CPU."),
    Note((1, 2), ", 32 tokens", anywhere,
         "With 32 rows a decoded weight is used 32 times: three tiles of eleven rows, of which 22 of 24 registers work, behind each decoding of five operations for 16 weights. That is a fifth of the time, "
         "which no order of the loops takes away."),
    Note((4,), "f32", without_bf16,
         "The peer multiplies by MKL, which runs at the full rate of Intel's CPUs (the target was set on one where it reaches 40 % of it). 78 % of a step here is the "
         "inner tile of multiply-adds: with all else free the row would read about 1.5 ×."),
    Note((6, 7), "decode", anywhere,
         "Half of the bytes are the head's, read as they are; the 4-bit half takes 13 instructions for 128 weights, about what reading them takes. What is left is between the products: a "
         "token crosses 15 of them, each begins anew in memory and ends when its slower thread does. Tried: sums in floats (slower, see docs/performance.md), parts that threads take in turn "
         "instead of halves (1, 4, 8, 16 parts a thread: no difference beyond noise)."),
    Note((8,), r"prefill$", anywhere,
         "llama.cpp rounds what it multiplies to 8-bit integers, whose instructions (VPDPBUSD) do four multiply-adds where an FMA does one. Products here are those of the dequantized weights and of x as it is."),
    Note((9,), "quantize", anywhere,
         "An element takes four comparisons, against thresholds that are looked up (a bisection of the sixteen codes), exactly bitsandbytes' choice. Shapes differ by how memory delivers them: one core, no second thread to wait for less."),
    Note((11,), "threads", anywhere,
         "Beside it stands what the ceiling itself gains by the second thread: two virtual CPUs share what the host gives them. The rest is what one thread does alone between the kernels, and waiting for the slower one."),
]


def lines(rows, figures):
    """The notes of the rows that were missed, each with the numbers of the rows it is about."""
    result = []
    for note in NOTES:
        about = [row for row in rows if row.number in note.numbers and row.verdict.startswith("missed") and re.search(note.work, row.work)]
        if about and note.applies(figures):
            numbers = ", ".join(str(number) for number in sorted({row.number for row in about}))
            result.append(f"- Row{'s' if ',' in numbers else ''} {numbers}: {note.text}")
    return result
