"""The tutorial's recipe by transformers' Trainer, peft and bitsandbytes over the first rows of a Dolly
file: batches of 4 padded to their longest row, accumulated 4 times, one epoch."""

import argparse
import json
import tempfile
import time

import common

HEAD = "Below is an instruction that describes a task"
ALONE = HEAD + ". Write a response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n{response}"
PAIRED = HEAD + (
    ", paired with an input that provides further context. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n{response}"
)


def read_rows(path, count):
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if len(rows) == count:
                break
            rows.append(json.loads(line))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("data")
    parser.add_argument("tokenizer_model")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    (sentencepiece,) = common.need("sentencepiece")
    model = common.load_adapted(args.folder, "bf16", args.threads)
    common.need("accelerate")
    import torch
    from transformers import Trainer, TrainingArguments

    model.config.use_cache = False
    processor = sentencepiece.SentencePieceProcessor(model_file=args.tokenizer_model)
    examples = []
    for row in read_rows(args.data, args.rows):
        text = (PAIRED if row.get("context") else ALONE).format(**row)
        ids = [processor.bos_id(), *processor.encode(text), processor.eos_id()][: args.max_length]
        examples.append({"input_ids": ids})
    padded = 0

    def collate(batch):
        nonlocal padded
        longest = max(len(example["input_ids"]) for example in batch)
        ids = torch.full((len(batch), longest), processor.eos_id())
        mask = torch.zeros_like(ids)
        for row, example in enumerate(batch):
            count = len(example["input_ids"])
            ids[row, :count] = torch.tensor(example["input_ids"])
            mask[row, :count] = 1
        padded += ids.numel()
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=4,
            learning_rate=2e-4,
            num_train_epochs=1,
            logging_steps=10,
            bf16=True,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collate)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    tokens = sum(len(example["input_ids"]) for example in examples)
    common.emit("tutorial.samples", len(examples) / seconds, "sample/s")
    common.emit("tutorial.tokens", tokens / seconds, "token/s")
    common.emit("tutorial.padded", padded / tokens, "positions a token")
    common.emit("tutorial.peak", common.peak_bytes(), "byte")


if __name__ == "__main__":
    main()
