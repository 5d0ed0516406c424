"""Makes unicode_*.inl, the Unicode data of the tokenizers and chat templates.

Needs the packages unicodedata2 (16.0.0) and tokenizers (0.23), whose ids are the reference. Its character classes are those of
Unicode 16, its normalization that of Unicode 9: characters that came later neither decompose nor are put in order. Upper and
lower case are those of the Python that runs this (3.11: Unicode 14).
    python3 src/data/make_unicode_tables.py
"""
import itertools, os

import unicodedata2 as unicodedata
from tokenizers import Regex, normalizers, pre_tokenizers

here = os.path.dirname(os.path.abspath(__file__))
LETTER, NUMBER, SPACE, WORD, REGEX_WORD, PUNCTUATION = 1, 2, 4, 8, 16, 32
WHITE_SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
# Alphabetic symbols (circled and squared letters), and the joiners: \w counts them, their categories do not show it.
OTHER_WORD = {0x200C, 0x200D, *range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)  # composed by arithmetic


NFC, NFD = normalizers.NFC(), normalizers.NFD()


def combining_class(code):
    value = unicodedata.combining(chr(code))
    behind_higher = "q\u0345" + chr(code)  # U+0345 has class 240, the highest: a lower one goes before it
    return 0 if 0 < value < 240 and NFC.normalize_str(behind_higher) == behind_higher else value


def members(pre_tokenizer):
    """The code points that a pre-tokenizer keeps."""
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    pieces = pre_tokenizer.pre_tokenize_str("".join(map(chr, codes)))
    return {code for _, (begin, end) in pieces for code in codes[begin:end]}


REGEX_WORDS = members(pre_tokenizers.Split(Regex(r"[\w]"), "removed", invert=True))
NO_PUNCTUATION = members(pre_tokenizers.Punctuation("removed"))


def class_of(code):
    category = unicodedata.category(chr(code))
    word = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code in OTHER_WORD
    return LETTER * (category[0] == "L") + NUMBER * (category[0] == "N") + SPACE * (code in WHITE_SPACE) + WORD * word + \
        REGEX_WORD * (code in REGEX_WORDS) + PUNCTUATION * (code not in NO_PUNCTUATION and not 0xD800 <= code < 0xE000)


def runs(function):
    """(length, value) of the stretches of equal value over all code points."""
    return [(len(list(group)), value) for value, group in itertools.groupby(range(0x110000), key=function)]


def decomposition(code):
    text = unicodedata.decomposition(chr(code))
    if not text or "<" in text or code in HANGUL_SYLLABLES or NFD.normalize_str(chr(code)) == chr(code):
        return None
    return [int(part, 16) for part in text.split()]


def composes(code, parts):
    return len(parts) == 2 and NFC.normalize_str(chr(parts[0]) + chr(parts[1])) == chr(code)


def write(name, about, version, arrays):
    lines = [f"// {about}", f"// {version}; made by make_unicode_tables.py, not edited by hand.", ""]
    for declaration, numbers in arrays:
        lines.append(f"{declaration} = {{")
        line = " "
        for number in numbers:
            if len(line) + len(f" {number},") > 120:
                lines.append(line)
                line = " "
            line += f" {number},"
        lines += [line, "};", ""]
    with open(os.path.join(here, name), "w", encoding="ascii") as file:
        file.write("\n".join(lines[:-1]) + "\n")


flat = itertools.chain.from_iterable
write("unicode_classes.inl", "Stretches of code points from 0 on: length, class (as in enum CharacterClass).",
      f"Unicode {unicodedata.unidata_version}",
      [("inline constexpr std::uint32_t kClassRuns[]", flat(runs(class_of)))])
parts = {code: decomposition(code) for code in range(0x110000) if decomposition(code)}
rows, last = [], 0
for code, pair in parts.items():
    rows += [code - last, pair[0], pair[1] if len(pair) == 2 else 0]
    last = code
write("unicode_compositions.inl", "Canonical decompositions, exclusions from composition, and combining classes.", "Unicode 9.0",
      [("// Code point minus the one before, first part, second part (0: none).\ninline constexpr std::uint32_t kDecompositions[]", rows),
       ("// Code points with two parts that do not compose to them.\ninline constexpr std::uint32_t kExclusions[]",
        [code for code, pair in parts.items() if len(pair) == 2 and not composes(code, pair)]),
       ("// Stretches of code points from 0 on: length, combining class.\ninline constexpr std::uint32_t kCombiningRuns[]",
        flat(runs(lambda code: 0 if 0xD800 <= code < 0xE000 else combining_class(code))))])

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()
write("unicode_categories.inl", "Stretches of code points from 0 on: length, general category (numbered as in enum Category).",
      f"Unicode {unicodedata.unidata_version}",
      [("inline constexpr std::uint32_t kCategoryRuns[]", flat(runs(lambda code: CATEGORIES.index(unicodedata.category(chr(code))))))])


def case_runs(change):
    """first, count, step (1 or 2), difference: stretches of characters whose other case lies equally far away."""
    rows = []
    for code in range(0x110000):
        other = change(chr(code))
        if len(other) != 1 or ord(other) == code:
            continue
        difference = (ord(other) - code) % 2**32
        if rows and rows[-1][3] == difference and code - rows[-1][4] in (1, 2) and (rows[-1][1] == 1 or rows[-1][2] == code - rows[-1][4]):
            rows[-1][2] = code - rows[-1][4]
            rows[-1][1] += 1
            rows[-1][4] = code
        else:
            rows.append([code, 1, 1, difference, code])
    return flat(row[:4] for row in rows)


def long_cases(change):
    """Characters whose other case is several: the character, and three of them (0: none)."""
    return flat([code, *map(ord, change(chr(code))), 0][:4] for code in range(0x110000) if len(change(chr(code))) > 1)


write("unicode_cases.inl", "The other case of characters.", f"Unicode {__import__('unicodedata').unidata_version}",
      [("// Stretches: first, how many, step, difference.\ninline constexpr std::uint32_t kUpperRuns[]", case_runs(str.upper)),
       ("inline constexpr std::uint32_t kLowerRuns[]", case_runs(str.lower)),
       ("// A character, and the characters that are its other case (0: none).\ninline constexpr std::uint32_t kLongUpper[]", long_cases(str.upper)),
       ("inline constexpr std::uint32_t kLongLower[]", long_cases(str.lower))])
