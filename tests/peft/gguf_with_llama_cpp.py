"""Runs an adapter that lorapp wrote as GGUF in llama.cpp, beside a base that this script writes as GGUF.

usage: gguf_with_llama_cpp.py FOLDER
reads  FOLDER/model (a small Llama or Mistral as a Hugging Face folder), FOLDER/adapter.gguf, FOLDER/ours.safetensors (ids, base, tuned: logits)
"""
import json
import sys

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import load_file

folder = sys.argv[1]
config = json.load(open(f"{folder}/model/config.json"))
weights = load_file(f"{folder}/model/model.safetensors")
ours = load_file(f"{folder}/ours.safetensors")
heads, kv_heads, vocab = config["num_attention_heads"], config["num_key_value_heads"], config["vocab_size"]


def interleaved(weight, n):
    """Rows of q and k in llama.cpp's order: the halves of each head one from each in turn."""
    return weight.reshape(n, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


writer = gguf.GGUFWriter(f"{folder}/model.gguf", "llama")
writer.add_context_length(128)
writer.add_embedding_length(config["hidden_size"])
writer.add_block_count(config["num_hidden_layers"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_rope_dimension_count(config["hidden_size"] // heads)
writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_vocab_size(vocab)
writer.add_tokenizer_model("llama")
writer.add_token_list([b"<unk>", b"<s>", b"</s>"] + [f"t{i}".encode() for i in range(3, vocab)])
writer.add_token_scores([0.0] * vocab)
writer.add_token_types([2, 3, 3] + [1] * (vocab - 3))
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
for name, weight in weights.items():
    if name.endswith("q_proj.weight"):
        weight = interleaved(weight, heads)
    if name.endswith("k_proj.weight"):
        weight = interleaved(weight, kv_heads)
    writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(weight))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

keys = {key: field for key, field in gguf.GGUFReader(f"{folder}/adapter.gguf").fields.items()}
assert "adapter.lora.alpha" in keys, list(keys)


def relative_error(want, **options):
    model = llama_cpp.Llama(
        f"{folder}/model.gguf", logits_all=True, n_ctx=128, n_threads=1, type_k=0, type_v=0, verbose=False, **options
    )
    model.eval(ours["ids"].tolist())
    got = np.array(model.scores[: len(ours["ids"])])
    return np.linalg.norm(got - want) / np.linalg.norm(want)


base = relative_error(ours["base"])
tuned = relative_error(ours["tuned"], lora_path=f"{folder}/adapter.gguf")
print(f"llama.cpp: relative error {base:.1e} of the base, {tuned:.1e} of the adapter; it changes {np.linalg.norm(ours['tuned'] - ours['base']):.1e}")
assert base < 1e-4 and tuned < 1e-4
