"""Makes the tokenizers and reference values of this folder's tests: tokenizers/*/ and goldens.json.

Needs numpy, torch, sentencepiece and transformers; run once, the results are committed:
    python3 tests/data/make_goldens.py
Prints also the checksums of tokenizer_real_test.cpp when the folder with the real files is given:
    python3 tests/data/make_goldens.py DATA_FOLDER
"""
import io, json, os, random, sys, tempfile

import numpy, sentencepiece, torch

here = os.path.dirname(os.path.abspath(__file__))


def corpus():
    """Plain sentences of our own: enough text for a vocabulary of a few hundred pieces."""
    rng = random.Random(7)
    things = "river house garden window table letter morning winter engine number forest doctor".split()
    kinds = "old small green quiet heavy open warm early narrow bright empty plain".split()
    verbs = "stands near, runs behind, looks like, is older than, was built before, belongs to".split(", ")
    for _ in range(3000):
        a, b = rng.sample(things, 2)
        yield f"The {rng.choice(kinds)} {a} {rng.choice(verbs)} the {rng.choice(kinds)} {b}."
        yield f"How many {a}s are there? There are {rng.randrange(1000)} of them, said the {rng.choice(kinds)} {b}!"


def train(name, **options):
    folder = os.path.join(here, "tokenizers", name)
    os.makedirs(folder, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(list(corpus())), model_writer=model, num_threads=1,
                                             minloglevel=2, unk_id=0, bos_id=1, eos_id=2, **options)
    with open(os.path.join(folder, "tokenizer.model"), "wb") as file:
        file.write(model.getvalue())
    return folder


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def make_tokenizers():
    llama = train("llama_like", model_type="bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity",
                  remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
                  user_defined_symbols=["<user>"], pad_id=-1)
    token = dict(lstrip=False, normalized=False, rstrip=False, single_word=False)
    write_json(os.path.join(llama, "tokenizer_config.json"), {
        "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False, "legacy": False,
        "added_tokens_decoder": {
            "0": {"content": "<unk>", "special": True, **token},
            "1": {"content": "<s>", "special": True, **token},
            "2": {"content": "</s>", "special": True, **token},
            "420": {"content": "<|end|>", "special": True, **token},
            "421": {"content": "<tool>", "special": False, **token}},
        "bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>", **token}, "unk_token": "<unk>",
        "pad_token": None, "additional_special_tokens": ["<|end|>"], "tokenizer_class": "LlamaTokenizer",
        "model_max_length": 1000000000000000019884624838656})
    write_json(os.path.join(llama, "special_tokens_map.json"),
               {"bos_token": {"content": "<s>", **token}, "eos_token": "</s>", "unk_token": "<unk>"})

    # A normalizer of four rules: ligature to two letters, unit to two letters, e + accent to one character, full width.
    # The model keeps the name of the rule file, so it is given without a folder.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with open("rules.tsv", "w") as rules:
            for source, target in (("ﬁ", "fi"), ("㎏", "kg"), ("e\u0301", "\u00e9"), ("Ａ", "A")):
                rules.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        train("normalizing", model_type="unigram", vocab_size=340, byte_fallback=True, remove_extra_whitespaces=True,
              normalization_rule_tsv="rules.tsv")
        os.chdir(here)
    train("bare", model_type="unigram", vocab_size=100, byte_fallback=False, add_dummy_prefix=False,
          normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False)


TEXTS = [
    "", " ", "a", " a", "  a", "a ", "The river.", "The old house stands near the river.", "two\nlines\n\nthree\ttab\r\n",
    "   spaces   within   ", "0123456789 3.14159 1,000", "naïve café — “quotes” … ½", "日本語のテキスト", "Ünïcödé Straße",
    "😀", "a😀b", "👩‍👩‍👧‍👦 family", "🇩🇪", "e\u0301 ﬁn 5㎏ Ａ", "\u00a0\u2003\u200b", "\x00", "a\x00b\x01\x7f", "\u0085\u2028",
    "</s>", "<s>The</s>", "<unk>", "<pad>", "<|end|>", "<0x0A>", "<0x41>", "[INST] The [/INST]", "<user> said", "the<user>the",
    "▁The▁river", "\ufffd", "\U0010ffff\ue000", "ﷺ", "{response}", "\\u0041 \"quoted\" 'single'", "x" * 300,
]
INVALID = ["ff", "c3", "61c3", "c328", "e282", "f09f98", "eda080", "c080", "f5808080", "6180e282ac62", "54686520fe20726976657220"]


def interval_draws(last, seed):
    """RandomState draws integers as numpy's shuffles do: by masking, which Generator.integers does not."""
    random_state = numpy.random.RandomState(numpy.random.PCG64(seed))
    return [str(random_state.randint(0, last + 1, dtype=numpy.uint64)) for _ in range(6)]


def goldens():
    result = {}
    result["numpy_permutation"] = [
        {"n": n, "seed": seed, "order": numpy.random.default_rng(seed).permutation(n).tolist()}
        for n, seed in [(0, 1), (1, 1), (2, 0), (3, 7), (10, 42), (10, 0), (17, 123456789), (64, 2**32), (33, 2**64 - 1), (100, 42)]]
    result["numpy_intervals"] = [
        {"last": str(last), "seed": seed,
         "draws": interval_draws(last, seed)}
        for last in (9, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**33 + 5, 2**63 + 11, 2**64 - 1) for seed in (0, 42)]
    big = numpy.random.default_rng(42).permutation(15015)
    result["numpy_15015_seed_42"] = {"first": big[:8].tolist(), "last": big[-4:].tolist(),
                                     "weighted_sum": int((big * numpy.arange(15015)).sum())}
    order = lambda n, seed: torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    result["torch_randperm"] = [{"n": n, "seed": seed, "order": order(n, seed).tolist()}
                                for n, seed in [(0, 1), (1, 1), (2, 0), (10, 42), (17, 43), (64, 2**32 + 5), (100, 42)]]
    big = order(15015, 42)
    result["torch_15015_seed_42"] = {"first": big[:8].tolist(), "last": big[-4:].tolist(),
                                     "weighted_sum": int((big * torch.arange(15015)).sum())}

    result["encode"] = []
    for name in ("llama_like", "normalizing", "bare"):
        model = sentencepiece.SentencePieceProcessor(os.path.join(here, "tokenizers", name, "tokenizer.model"))
        for raw in [text.encode() for text in TEXTS] + [bytes.fromhex(x) for x in INVALID]:
            result["encode"].append({"tokenizer": name, "hex": raw.hex(), "ids": model.encode(raw)})

    from transformers import LlamaTokenizer
    folder = os.path.join(here, "tokenizers", "llama_like")
    hf = LlamaTokenizer.from_pretrained(folder)
    model = sentencepiece.SentencePieceProcessor(os.path.join(folder, "tokenizer.model"))
    rng = random.Random(11)
    lists = [model.encode(text) for text in TEXTS] + [[1] + model.encode(text) + [2] for text in TEXTS[5:12]]
    for _ in range(60):  # random ids: byte runs that are not UTF-8, special tokens within runs
        lists.append([rng.choice([rng.randrange(0, 422), rng.randrange(4, 260)]) for _ in range(rng.randrange(1, 12))])
    emoji = model.encode("😀")[1:]
    lists += [emoji[:2], [model.encode("\n")[1]] + emoji[:3], emoji[:2] + [2] + emoji[2:], emoji[:2] + [270] + emoji[2:]]
    result["decode"] = [{"ids": ids, "text": hf.decode(ids), "without_special": hf.decode(ids, skip_special_tokens=True)}
                        for ids in lists]
    result["encode_with_special"] = [
        {"text": text, "ids": hf.encode(text)}
        for text in ["<s>The</s>", "The<|end|>the", "The <|end|> the", "<|end|><|end|>x", "a</s>", "<tool>the", "the <tool>", "no"]]
    write_json(os.path.join(here, "goldens.json"), result)


def fnv1a(hash_value, ids):
    for token in ids:
        for byte in int(token).to_bytes(4, "little"):
            hash_value = ((hash_value ^ byte) * 0x100000001B3) % 2**64
    return hash_value


def real_checksums(data):
    model = sentencepiece.SentencePieceProcessor(os.path.join(data, "tokenizers/mistral-v1/tokenizer.model"))
    first = ("Below is an instruction that describes a task, paired with an input that provides further context. "
             "Write a response that appropriately completes the request.\n\n",
             "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n")
    hash_value, tokens = 0xCBF29CE484222325, 0
    with open(os.path.join(data, "dolly/databricks-dolly-15k.jsonl"), encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            section = f"### Input:\n{row['context']}\n\n" if row["context"] else ""
            text = f"{first[not row['context']]}### Instruction:\n{row['instruction']}\n\n{section}### Response:\n{row['response']}"
            ids = [1] + model.encode(text) + [2]
            tokens += len(ids)
            if number < 2000:
                hash_value = fnv1a(hash_value, ids)
    print(f"2000 rows, FNV-1a of the ids: 0x{hash_value:016x}; all rows: {tokens} tokens")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        real_checksums(sys.argv[1])
    else:
        make_tokenizers()
        goldens()
