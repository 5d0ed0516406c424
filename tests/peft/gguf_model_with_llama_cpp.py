"""Runs models that lorapp wrote as GGUF in llama.cpp.

usage: gguf_model_with_llama_cpp.py FOLDER
reads  FOLDER/cases.json: a list of {file, and texts with ids, or greedy texts, or logits of logit_ids}
"""
import json
import sys

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

root = sys.argv[1]
for case in json.load(open(f"{root}/cases.json", encoding="utf-8")):
    model = llama_cpp.Llama(
        f"{root}/{case['file']}", logits_all=True, n_ctx=512, n_threads=1, n_batch=512, type_k=0, type_v=0, verbose=False
    )
    line = case["file"] + ":"
    for text, ids in zip(case.get("texts", []), case.get("ids", [])):
        got = model.tokenize(text.encode("utf-8"), add_bos=False, special=False)
        assert got == ids, (case["file"], text, got, ids)
    line += f" {len(case.get('texts', []))} texts;"
    for greedy in case.get("greedy", []):
        prompt = model.tokenize(greedy["prompt"].encode("utf-8"), add_bos=True, special=False)
        assert prompt == greedy["prompt_ids"], (case["file"], prompt, greedy["prompt_ids"])
        model.reset()
        model.eval(prompt)
        tokens, margin = [], np.inf
        for _ in greedy["new_ids"]:
            scores = np.array(model.scores[model.n_tokens - 1])
            first, second = np.argsort(scores)[::-1][:2]
            margin = min(margin, scores[first] - scores[second])
            tokens.append(int(first))
            model.eval([int(first)])
        assert tokens == greedy["new_ids"], (case["file"], greedy["prompt"], tokens, greedy["new_ids"])
        line += f" {len(tokens)} greedy tokens (closest call {margin:.2g});"
    if "logits" in case:
        want = load_file(f"{root}/{case['logits']}")["logits"]
        model.reset()
        model.eval(case["logit_ids"])
        got = np.array(model.scores[: len(case["logit_ids"])])
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        line += f" relative error of the logits {error:.1e};"
        assert error < 1e-4, line
    print(line)
