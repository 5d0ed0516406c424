"""Makes pre_tokenizer_goldens.json: the pieces and ids that the pre-tokenizers of known models give.

Needs the Python package tokenizers 0.23; run once, the result is committed:
    python3 tests/data/make_pre_tokenizer_goldens.py
"""
import json, os, random

from tokenizers import Regex, Tokenizer, pre_tokenizers

here = os.path.dirname(os.path.abspath(__file__))
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + CONTRACTIONS + "?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + CONTRACTIONS + "?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
TEKKEN = O200K.replace(CONTRACTIONS + "?", "").replace("{1,3}", "")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2_BYTES = dict(BYTES, use_regex=True)
STEPS = {
    "o200k": [split(O200K), BYTES],
    "tekken": [split(TEKKEN), BYTES],
    "cl100k": [split(CL100K), BYTES],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK3), BYTES],
    "deepseek-llm": [split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\ud7ff]+"),
                     {"type": "Digits", "individual_digits": True}, BYTES],
    "starcoder": [{"type": "Digits", "individual_digits": True}, GPT2_BYTES],
    "falcon": [{"type": "Punctuation", "behavior": "Contiguous"}, GPT2_BYTES, {"type": "Digits", "individual_digits": False},
               split("[0-9][0-9][0-9]")],
    "llama3, another spelling": [split("(?:" + LLAMA3 + ")"), BYTES],
    "llama3, matches between": [split(LLAMA3, "Removed", True), BYTES],
    "words": [{"type": "Whitespace"}, BYTES],
    "bert": [{"type": "BertPreTokenizer"}, BYTES],
    "spaces and digits": [{"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": False}, BYTES],
    "delimiter": [{"type": "CharDelimiterSplit", "delimiter": "é"}, {"type": "Punctuation", "behavior": "MergedWithPrevious"}, BYTES],
    "texts": [{"type": "Split", "pattern": {"String": "ab"}, "behavior": "MergedWithNext", "invert": False}, BYTES],
    "words of a regex": [split(r"\w+|[^\w\s]+", "Removed", True), BYTES],
    "vowels": [split("[aeiou]+", "MergedWithPrevious"), split("(?<=n)[^aeiou]", "MergedWithNext", True), BYTES],
}
PATTERNS = [
    r"a+?b|\w{2,3}?", r"a?+b|\d++1|\s*+x|\w++", r"(?>a+|b)c|\w", r"(?:ab|a)(?:bc|c)?|(?:x(?:y|z)*)+", r"\w+(?=\s)|(?!a)\w(?!b)",
    r"(?<=a)b|(?<!a)c|(?<!\s)\d", r"^\w+|\w+$|\A.|.\z", r"(?:ab){2}|(?:a|bc){1,3}|x{2,}|y{,2}z|(?:\d{2}){1,2}+",
    r"[\d\-x]+|[^\W\d]+", r"(?i)[a-k]+|k|x1", r"[^\S\n]+|[\P{L}]|\p{^Lu}+", r"\x41|\x{e9}|\u65e5|\t|\.|\\|\-", r"(a|b(c|d)*)+x?", "..",
    r" ?[\p{Pc}\p{Pd}\p{Ps}]+|\p{Sc}|\p{Cc}|\p{Co}|\p{Zs}|\p{Nl}|\p{No}",
]
PARTS = ["a", "b", "c", "ab", "abc", "x", "y", "z", " ", " ", "  ", "\n", "\r\n", "\t", "0", "1", "12", "345", "1234", "'s", "'LL", "'ſ", "K", "\u212a",
         "é", "É", "ß", "日", "本語", "の", "ー", "カ", "ǅ", "ʰ", "ª", "\u0301", "\u0e01\u0e31", ".", ",", "!", "-", "_", "(", "[", "\\", "$", "€", "+", "😀",
         "\u00a0", "\u3000", "\u2028", "\x85", "\x00", "\x1c", "½", "²", "Ⅷ", "٣", "/", "//", "Hello", "WORLD", "camelCase", "don't", "\u200d",
         "\U0001F1E9", "한국", "Жук", "’s", "\ufeff", "\u166d", "\u2e43", "The river"]


def pieces(pre_tokenizer, text):
    """Byte offsets of the pieces."""
    places = [0]
    for character in text:
        places.append(places[-1] + len(character.encode()))
    return [places[at] for _, span in pre_tokenizer.pre_tokenize_str(text) for at in span]


def main():
    rng = random.Random(3)
    texts = ["".join(rng.choice(PARTS) for _ in range(rng.randrange(1, 16))) for _ in range(70)]
    texts += ["", " " * 40 + "\n" + " " * 40 + "x", "a" * 200, "The old house stands near the river. How many rivers are there?\n\nThere are 12345 of them; I'll count.",
              "def f(x):\n    return x + 100  # naïve\r\n\tcafé", "https://a.b/c?d=1&e=%20", "HTTPServer's XMLHttpRequest isn'T IT'LL"]
    with open(os.path.join(here, "tokenizers/json_llama3/tokenizer.json"), encoding="utf-8") as file:
        base = json.load(file)
    families = []
    for name, steps in STEPS.items():
        pre_tokenizer = {"type": "Sequence", "pretokenizers": steps}
        tokenizer = Tokenizer.from_str(json.dumps({**base, "pre_tokenizer": pre_tokenizer, "post_processor": None}))
        tokenizer.encode_special_tokens = True
        families.append({"name": name, "pre_tokenizer": pre_tokenizer, "ids": [tokenizer.encode(text).ids for text in texts]})
    patterns = [{"pattern": pattern, "pieces": [pieces(pre_tokenizers.Split(Regex(pattern), "isolated"), text) for text in texts]}
                for pattern in PATTERNS]
    with open(os.path.join(here, "pre_tokenizer_goldens.json"), "w", encoding="utf-8") as file:
        rows = {"texts": texts, "families": families, "patterns": patterns}
        file.write("{" + ",\n".join(f'"{key}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]"
                                    for key, value in rows.items()) + "}\n")


if __name__ == "__main__":
    main()
