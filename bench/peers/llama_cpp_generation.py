"""Generation by llama.cpp (llama-cpp-python) of a model folder in Q4_0, one sequence: prefill, whose last
token alone reaches the head, and decode. The GGUF files are made beside --gguf where they are missing."""

import argparse
import json
import os
import pathlib
import statistics
import time

import common


def write_f16(folder, path):
    """A Mistral folder as a GGUF file of float16 weights without a tokenizer. The rows of q and k are not
    reordered for llama.cpp's rotation: the text would be another, the work is the same."""
    gguf, safetensors, torch = common.need("gguf", "safetensors", "torch")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("no_vocab")
    for shard in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(shard, "pt") as file:
            for key in file.keys():
                name = names.get_name(key, try_suffixes=(".weight",))
                if name is None:
                    raise SystemExit(f"{shard}: llama.cpp has no tensor for {key}")
                tensor = file.get_tensor(key)
                writer.add_tensor(name, tensor.to(torch.float32 if tensor.dim() == 1 else torch.float16).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, path)


def quantize(llama, source, path, threads):
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = llama.LLAMA_FTYPE_MOSTLY_Q4_0
    settings.nthread = threads
    part = path.with_suffix(".part")
    if llama.llama_model_quantize(str(source).encode(), str(part).encode(), settings) != 0:
        raise SystemExit(f"llama.cpp could not quantize {source}")
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path, required=True, help="NAME.gguf, in Q4_0")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="make the files and measure nothing")
    args = parser.parse_args()
    llama, numpy = common.need("llama_cpp", "numpy")
    common.versions("llama_cpp")
    llama.llama_backend_init()
    if not args.gguf.exists():
        plain = args.gguf.with_suffix(".f16")
        if not plain.exists():
            write_f16(args.folder, plain)
        quantize(llama, plain, args.gguf, args.threads)
        plain.unlink()
    if args.prepare:
        return
    model = llama.llama_model_load_from_file(str(args.gguf).encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp could not load {args.gguf}")
    settings = llama.llama_context_default_params()
    settings.n_ctx = args.prompt + args.context + args.tokens + 64
    settings.n_batch = settings.n_ubatch = args.prompt
    settings.n_threads = settings.n_threads_batch = args.threads
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit("llama.cpp could not make a context")

    def decode(ids):
        array = (llama.llama_token * len(ids))(*ids)
        if llama.llama_decode(context, llama.llama_batch_get_one(array, len(ids))) != 0:
            raise SystemExit("llama_decode failed")
        llama.llama_synchronize(context)

    vocab_size = json.loads((args.folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    prompt = [int(i) for i in numpy.random.default_rng(7).integers(0, vocab_size, args.prompt)]

    def once(tokens):
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        start = time.perf_counter()
        decode(prompt)
        prefill = len(prompt) / (time.perf_counter() - start)
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        decode(prompt[: args.context])
        start = time.perf_counter()
        for i in range(tokens):
            decode([prompt[i % len(prompt)]])
        return prefill, tokens / (time.perf_counter() - start)

    once(2)
    rates = [once(args.tokens) for _ in range(args.rounds)]
    common.emit("prefill", statistics.median(rate[0] for rate in rates), "token/s")
    common.emit("decode", statistics.median(rate[1] for rate in rates), "token/s")


if __name__ == "__main__":
    main()
