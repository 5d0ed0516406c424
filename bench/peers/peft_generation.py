"""Generation by peft + bitsandbytes, one sequence, with the adapter and without it: prefill, whose last
token alone reaches the head, and decode. The loop calls the model itself, without what generate() adds."""

import argparse
import contextlib
import statistics
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = common.load_adapted(args.folder, args.dtype, args.threads)
    import torch

    model.eval()
    prompt = torch.randint(0, model.config.vocab_size, (1, args.prompt))

    def forward(ids, cache=None):
        result = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return result.logits[:, -1].argmax(-1, keepdim=True), result.past_key_values

    def once(tokens):
        start = time.perf_counter()
        forward(prompt)
        prefill = args.prompt / (time.perf_counter() - start)
        token, cache = forward(prompt[:, : args.context])
        start = time.perf_counter()
        for _ in range(tokens):
            token, cache = forward(token, cache)
        return prefill, tokens / (time.perf_counter() - start)

    rates = {"": [], "_adapter": []}
    with torch.inference_mode():
        once(2)
        for _ in range(args.rounds):
            for name, found in rates.items():
                with contextlib.nullcontext() if name else model.disable_adapter():
                    found.append(once(args.tokens))
    for name, found in rates.items():
        common.emit("prefill" + name, statistics.median(rate[0] for rate in found), "token/s")
        common.emit("decode" + name, statistics.median(rate[1] for rate in found), "token/s")
    common.emit("peak", common.peak_bytes(), "byte")


if __name__ == "__main__":
    main()
