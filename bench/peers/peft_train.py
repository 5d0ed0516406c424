"""One training step of peft + bitsandbytes on sequences of one length: tokens a second."""

import argparse
import statistics
import time

import common


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = common.load_adapted(args.folder, args.dtype, args.threads)
    import torch

    model.config.use_cache = False
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0)
    ids = torch.randint(0, model.config.vocab_size, (args.sequences, args.length))

    def step():
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - start
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss is {loss.item()}")
        return seconds

    step()  # what the first step alone pays for
    seconds = statistics.median(step() for _ in range(args.steps))
    common.emit("train", ids.numel() / seconds, "token/s")
    common.emit("peak", common.peak_bytes(), "byte")


if __name__ == "__main__":
    main()
