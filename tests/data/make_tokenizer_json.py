"""Makes the tokenizers that tokenizer_json_test.cpp reads (tokenizers/json_*/) and their reference values
(tokenizer_json_goldens.json).

Needs the Python package tokenizers 0.23; run once, the results are committed:
    python3 tests/data/make_tokenizer_json.py
Prints also the checksum of real_data_test.cpp when the folder with the real files is given:
    python3 tests/data/make_tokenizer_json.py DATA_FOLDER
"""
import json, os, random, sys, unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

here = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def corpus():
    """Plain sentences of our own: enough text for a vocabulary of a few hundred tokens."""
    rng = random.Random(5)
    things = "river house garden window table letter morning winter engine number forest doctor".split()
    kinds = "old small green quiet heavy open warm early narrow bright empty plain".split()
    verbs = "stands near, runs behind, looks like, is older than, was built before, belongs to".split(", ")
    for _ in range(2000):
        a, b = rng.sample(things, 2)
        yield f"The {rng.choice(kinds)} {a} {rng.choice(verbs)} the {rng.choice(kinds)} {b}."
        yield f"How many {a}s are there?\n\nThere are {rng.randrange(100000)} of them; I'll count, don't you?"
        yield f"def {a}(x):\n    return x + {rng.randrange(100)}  # {b}\r\n\tcafé naïve"
        yield rng.choice(["日本語のテキスト", "中文文本", "текст по-русски", "한국어 문장", "👩‍👩‍👧 😀😀", "   ...   !!!   "])


def byte_level(vocab_size, normalizer=None, pre_tokenizer=None, special=()):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(list(corpus()), trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return json.loads(tokenizer.to_str())


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def sentencepiece_like(vocab_size, byte_tokens=BYTES):
    """A vocabulary as sentencepiece makes it: <unk>, <s>, </s>, bytes, characters, what merges make."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    first = ["<unk>", "<s>", "</s>", *byte_tokens]
    tokenizer.train_from_iterator(list(corpus()), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=first, limit_alphabet=90, show_progress=False))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = file["added_tokens"][:3]
    # Runs of spaces, which a vocabulary of sentencepiece has.
    for count in (2, 3, 4, 8):
        half = "▁" * (count // 2)
        file["model"]["vocab"]["▁" * count] = len(file["model"]["vocab"])
        file["model"]["merges"].append([half, "▁" * (count - count // 2)])
    return file


def added(id, content, **flags):
    return dict({"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                 "special": False}, **flags)


def make_files():
    files, configs = {}, {}
    gpt2 = byte_level(600, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<|endoftext|>"])
    gpt2["post_processor"] = json.loads(Tokenizer.from_str(json.dumps(gpt2)).to_str())["post_processor"] or {
        "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    # As files of the first versions are: no type, merges as texts.
    del gpt2["model"]["type"]
    gpt2["model"]["merges"] = [" ".join(pair) for pair in gpt2["model"]["merges"]]
    files["json_gpt2"] = gpt2
    configs["json_gpt2"] = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
                            "add_bos_token": False, "add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer"}

    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    llama3 = byte_level(600, pre_tokenizer=split(LLAMA3), special=names)
    llama3["model"]["ignore_merges"] = True
    # Words that no merge makes: found whole, and only there.
    for word in ("Ġzebra", "xyzzy", "!!!!"):
        llama3["model"]["vocab"][word] = len(llama3["model"]["vocab"])
    for index, token in enumerate(llama3["added_tokens"]):
        token["id"] = len(llama3["model"]["vocab"]) + index
    bos = llama3["added_tokens"][0]["id"]
    llama3["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": names[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"SpecialToken": {"id": names[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                  {"SpecialToken": {"id": names[0], "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {names[0]: {"id": names[0], "ids": [bos], "tokens": [names[0]]}}}]}
    files["json_llama3"] = llama3
    configs["json_llama3"] = {"bos_token": names[0], "eos_token": names[4], "tokenizer_class": "PreTrainedTokenizerFast",
                              "added_tokens_decoder": {str(t["id"]): {k: t[k] for k in t if k != "id"}
                                                       for t in llama3["added_tokens"]}}

    qwen2 = byte_level(600, normalizers.NFC(), split(QWEN2), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    size = len(qwen2["model"]["vocab"]) + 3
    qwen2["added_tokens"] += [added(size, "<tool_call>"), added(size + 1, "dé", normalized=True),
                              added(size + 2, "word", single_word=True, normalized=True)]
    files["json_qwen2"] = qwen2
    configs["json_qwen2"] = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None,
                             "add_bos_token": False, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                             "tokenizer_class": "Qwen2Tokenizer"}

    mistral = sentencepiece_like(600)
    mistral["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    files["json_mistral"] = mistral
    configs["json_mistral"] = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "unk_token": "<unk>",
                               "add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizer"}

    llama2 = sentencepiece_like(600)
    llama2["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    llama2["pre_tokenizer"] = None
    size = len(llama2["model"]["vocab"])
    llama2["added_tokens"] += [added(size, "<sep>", special=True, lstrip=True, rstrip=True),
                               added(size + 1, "<note>", normalized=True),
                               added(size + 2, "whole", single_word=True),
                               added(size + 3, "<sep>>", special=True)]
    files["json_llama2"] = llama2

    plain = sentencepiece_like(420, ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"])
    plain["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    plain["decoder"] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "always"}
    plain["post_processor"] = None
    files["json_plain"] = plain
    return files, configs


TEXTS = [
    "", " ", "a", " a", "  a", "a ", "The river.", "The old house stands near the river.", "two\nlines\n\nthree\ttab\r\n",
    "   spaces   within   ", "0123456789 3.14159 1,000 12 123 1234 12345", "naïve café — “quotes” … ½", "日本語のテキスト中文",
    "😀", "a😀b", "👩‍👩‍👧‍👦 family", "🇩🇪", "e\u0301 ﬁn 5㎏ Ａ d\u0301e de\u0301 dé", "\u00a0\u2003\u200b\u3000x", "\x00",
    "a\x00b\x01\x7f\x1b[0m", "\u0085\u2028x\u2029", "</s>", "<s>The</s>", "<unk>", "<|endoftext|>x", "<|im_start|>user\nhi<|im_end|>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>", "<0x0A>", "<0x41>", "[INST] The [/INST]",
    "▁The▁river▁", "\ufffd", "\U0010ffff\ue000", "ﷺ", "I'll don't WE'VE you'RE it'S 'tis x'd 'M ''s '", "it'ſ x'ſy", "K\u212a Å\u212b",
    "\r\n\r\n a\n \n\t b  \n\n   c\r\r\n", "x" * 300, " \t \n  \r x", "zebra zebra xyzzy !!!!", "!!! ... ##--==\n\n//", "한국어\u1112\u1161\u11ab문장",
    "a\u0323\u0307 a\u0307\u0323 \u0344 \u0958 \u2126", "Ṩ Ṩ s\u0307\u0323 q\u0307\u0323", "\u0301start", "ก้าวหน้า ١٢٣ ⅷ ²³ Ⅻ",
    "a <sep>  b<sep><sep>>c", "<note> x<note>y", "whole wholes awhole whole-whole", "word words sword word", "<tool_call>{}</tool_call>",
    "a   <sep>\n\t\u3000b", "def f(x):\n    return x + 1  # note\n", "ǅ ʼn ŉ ß ẞ İ i̇", "\U0001f1e9\u200d\ufe0f\U000e0067", "𝔘𝔫𝔦 𝟙𝟚 𐍈",
    "it's 5'6\" o'clock", "a\u0300\u0301\u0302\u0303\u0304\u0323b", "‘s ’s", "\ufeffbom", "tab\t\ttab\tx", "中 文 a中b1文2",
]
INVALID = ["ff", "c3", "61c3", "c328", "e282", "f09f98", "eda080", "c080", "f5808080", "6180e282ac62", "54686520fe20726976657220",
           "20ff20", "65cc", "65cc81cc"]
REPEATED = [("20", 100000), ("0a20", 20000), ("65cc81", 5000), ("f09f9880", 5000), ("616161206120", 10000), ("31", 30000), ("cc81cca3", 4000)]


def decode_bytes(raw):
    """The text, each byte that is not UTF-8 as U+FFFD, and the byte offset of each character (and of the end)."""
    text, offsets, at = "", [], 0
    while at < len(raw):
        for length in (1, 2, 3, 4):
            try:
                character = raw[at:at + length].decode()
                break
            except UnicodeDecodeError:
                character = None
        if character is None or len(character) != 1:
            character, length = "\ufffd", 1
        offsets.append(at)
        text += character
        at += length
    return text, offsets + [len(raw)]


def fnv1a(hash_value, ids):
    for token in ids:
        for byte in int(token).to_bytes(4, "little"):
            hash_value = ((hash_value ^ byte) * 0x100000001B3) % 2**64
    return hash_value


def untrimmed(file):
    """The tokenizer without its post-processor, which trims spaces off offsets."""
    return Tokenizer.from_str(json.dumps({**file, "post_processor": None}))


def goldens(files):
    result = {"encode": [], "repeated": [], "with_special": [], "decode": []}
    for name, file in files.items():
        tokenizer, whole = untrimmed(file), Tokenizer.from_str(json.dumps(file))
        tokenizer.encode_special_tokens = True
        assert all(whole.token_to_id(token["content"]) == token["id"] for token in file["added_tokens"])
        raws = [text.encode() for text in TEXTS] + [bytes.fromhex(x) for x in INVALID]
        for raw in raws:
            text, offsets = decode_bytes(raw)
            encoding = tokenizer.encode(text)
            spans = [offset for begin, end in encoding.offsets for offset in (offsets[begin], offsets[end])]
            composed = file["normalizer"] == {"type": "NFC"} and not unicodedata.is_normalized("NFC", text)
            result["encode"].append({"tokenizer": name, "hex": raw.hex(), "ids": encoding.ids, "spans": spans, "composed": composed})
            ids = whole.encode(text).ids
            result["with_special"].append({"tokenizer": name, "hex": raw.hex(), "ids": ids})
        for unit, times in REPEATED:
            ids = tokenizer.encode(decode_bytes(bytes.fromhex(unit) * times)[0]).ids
            result["repeated"].append({"tokenizer": name, "hex": unit, "times": times, "count": len(ids),
                                       "fnv1a": str(fnv1a(0xCBF29CE484222325, ids))})
        rng = random.Random(11)
        known = sorted(tokenizer.get_vocab().values())
        special = [token["id"] for token in file["added_tokens"]]
        lists = [whole.encode(text).ids for text in TEXTS[:40]]
        for _ in range(60):
            lists.append([rng.choice([rng.choice(known), rng.choice(known[:260]), rng.choice(special)] if rng.random() < 0.5
                                     else known[3:259]) for _ in range(rng.randrange(1, 10))])
        result["decode"] += [{"tokenizer": name, "ids": ids, "text": whole.decode(ids, skip_special_tokens=False),
                              "without_special": whole.decode(ids)} for ids in lists]
    return result


def write(path, value, **options):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, **options)
        file.write("\n")


def write_goldens(path, value):
    """One golden a line."""
    with open(path, "w", encoding="utf-8") as file:
        parts = [f'"{key}": [\n' + ",\n".join(json.dumps(row, ensure_ascii=True, separators=(",", ":")) for row in rows) + "\n]"
                 for key, rows in value.items()]
        file.write("{" + ",\n".join(parts) + "}\n")


def real_checksums(data):
    tokenizer = untrimmed(json.load(open(os.path.join(data, "tokenizers/mistral-v1/tokenizer.json"), encoding="utf-8")))
    tokenizer.encode_special_tokens = True
    hash_value, all_tokens = 0xCBF29CE484222325, 0
    with open(os.path.join(data, "dolly/databricks-dolly-15k.jsonl"), encoding="utf-8") as file:
        for number, line in enumerate(file):
            row = json.loads(line)
            for field in ("instruction", "context", "response"):
                ids = tokenizer.encode(row[field]).ids
                all_tokens += len(ids)
                if number < 2500:
                    hash_value = fnv1a(hash_value, ids)
    print(f"2500 rows, FNV-1a of the ids: 0x{hash_value:016x}; all rows: {all_tokens} tokens")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        real_checksums(sys.argv[1])
    else:
        files, configs = make_files()
        for name, file in files.items():
            write(os.path.join(here, "tokenizers", name, "tokenizer.json"), file, separators=(",", ":"))
            if name in configs:
                write(os.path.join(here, "tokenizers", name, "tokenizer_config.json"), configs[name], indent=1)
        write_goldens(os.path.join(here, "tokenizer_json_goldens.json"), goldens(files))
