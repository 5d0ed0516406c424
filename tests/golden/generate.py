"""Makes the reference files of this folder with transformers, peft and bitsandbytes; README.md says what each holds.

    python tests/golden/generate.py [--data FOLDER] [section ...]

Sections: dtypes codecs int8 adamw_8bit models families training (no input needed), tokenizer stories (need --data, the folder with real files
that README.md names). Without a section, all that can be made are.
"""

import argparse
import contextlib
import pathlib
import shutil
import tempfile

from toy import *  # first: it sets the environment before torch is loaded

import families
import real_files
import torch


def make_dtypes():
    """One tensor of every type that both safetensors and torch have, with bytes that count up."""

    def pattern(shape, dtype):
        count = torch.empty(shape, dtype=dtype).numel() * torch.empty(0, dtype=dtype).element_size()
        data = torch.tensor([(37 * i + 11) & 255 for i in range(count)], dtype=torch.uint8)
        if dtype == torch.bool:
            return (data & 1).bool().reshape(shape)
        return data.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)

    names = """bool uint8 int8 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz int16 uint16
    float16 bfloat16 int32 uint32 float32 complex64 float64 int64 uint64""".split()
    tensors = {name: pattern((3, 5), getattr(torch, name)) for name in names}
    tensors["scalar"] = pattern((), torch.float32)
    tensors["empty"] = pattern((0, 4), torch.bfloat16)
    tensors["ünï"] = pattern((7,), torch.uint8)
    tensors['quote"back\\slash\n\x7f'] = pattern((2,), torch.float32)
    tensors["model.layers.10.x"] = pattern((2,), torch.float32)
    write_tensors("safetensors_dtypes.safetensors", tensors)


def codec_inputs():
    g = torch.Generator().manual_seed(7)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    zero_block = randn(3, 64)
    zero_block[1] = 0
    outliers = randn(4, 96) * 0.02
    outliers[::2, ::17] *= 60
    scales = randn(9, 64) * torch.logspace(-36, 36, 9).unsqueeze(1)
    edges = torch.linspace(-1, 1, 4 * 64 + 1)[:256].reshape(4, 64)
    tiny = randn(2, 64) * 1e-3
    tiny[0, ::2] = 1e-42  # denormal beside normal values
    return {
        "one_block": (randn(1, 64), 64),
        "straddling": (randn(4, 96), 64),
        "odd_tail": (randn(5, 7), 64),
        "odd_columns": (randn(7, 33), 64),
        "single": (torch.tensor([[-0.37]]), 64),
        "zero": (torch.zeros(2, 64), 64),
        "zero_block": (zero_block, 64),
        "outliers": (outliers, 64),
        "scales": (scales, 64),
        "edges": (edges, 64),
        "denormals": (tiny, 64),
        "block_128": (randn(3, 200), 128),
        "block_256": (randn(2, 300), 256),
        "bf16": (randn(6, 80).bfloat16(), 64),
        "fp16": (randn(6, 80).half(), 64),
    }


def make_codecs():
    tensors = {}
    for case, (weight, blocksize) in codec_inputs().items():
        tensors[f"{case}.{blocksize}.weight"] = weight
        for quant_type in ("nf4", "fp4"):
            codes, state = quantize(weight, quant_type, blocksize)
            key = f"{case}.{blocksize}.{quant_type}"
            tensors[f"{key}.codes"] = codes.flatten()
            tensors[f"{key}.absmax"] = state.absmax
            tensors[f"{key}.values"] = dequantize_reference(
                codes, state.absmax, state.code, weight.shape, blocksize, weight.dtype)
    g = torch.Generator().manual_seed(8)
    weight = torch.randn(300, 65, generator=g) * torch.rand(300, 1, generator=g)  # 305 blocks: two of the second level
    codes, state = quantize(weight, "nf4", nested=True)
    absmax = state.state2.code[state.absmax.long()] * state.state2.absmax.repeat_interleave(256)[: state.absmax.numel()]
    absmax = absmax + state.offset
    tensors.update({
        "nested.weight": weight,
        "nested.codes": codes.flatten(),
        "nested.absmax": state.absmax,
        "nested.nested_absmax": state.state2.absmax,
        "nested.nested_quant_map": state.state2.code,
        "nested.offset": state.offset.reshape(1),
        "nested.decoded_absmax": absmax,
        "nested.values": dequantize_reference(codes, absmax, state.code, weight.shape, BLOCKSIZE, torch.float32),
    })
    tensors["nf4.quant_map"] = quantize(torch.ones(1, 64), "nf4")[1].code
    tensors["fp4.quant_map"] = quantize(torch.ones(1, 64), "fp4")[1].code
    write_tensors("codecs.safetensors", tensors)


def make_int8():
    """Rows in 8 bits with one absmax each, by bitsandbytes' own functions on the CPU."""
    import bitsandbytes.functional as bnb

    g = torch.Generator().manual_seed(9)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    halves = torch.arange(-127, 127).reshape(2, 127) + 0.5  # ties: beside an absmax of 127 the factor is 1
    halves[:, 0] = 127
    weights = {
        "plain": randn(9, 67),
        "one_column": randn(5, 1),
        "one_row": randn(1, 130),
        "ties": halves,
        "sizes": randn(9, 40) * torch.logspace(-30, 36, 9).unsqueeze(1),
        "outliers": randn(4, 96) * torch.where(torch.rand(4, 96, generator=g) < 0.05, 60.0, 0.02),
        "bf16": (randn(7, 80) * 0.02).bfloat16(),
        "fp16": (randn(7, 80) * 0.02).half(),
    }
    tensors = {}
    for case, weight in weights.items():
        codes, absmax, _ = bnb.int8_vectorwise_quant(weight.clone())
        tensors[f"{case}.weight"] = weight
        tensors[f"{case}.codes"] = codes
        tensors[f"{case}.absmax"] = absmax
        tensors[f"{case}.values"] = bnb.int8_vectorwise_dequant(codes, absmax)
    write_tensors("int8.safetensors", tensors)


def make_adamw_8bit():
    """Steps of bitsandbytes' AdamW with moments in 8 bits, by its own reference in PyTorch: what it registers for a CPU
    looks codes up in a table of 65536 entries, which is too coarse for small second moments."""
    import torch._dynamo

    torch._dynamo.config.disable = True
    import bitsandbytes as bnb
    from bitsandbytes.backends.triton.kernels_optim import optimizer_update_8bit_blockwise_pytorch as step_of

    g = torch.Generator().manual_seed(10)
    n = 4096 + 300  # the last block is a short one
    blocks = -(-n // 256)
    p = torch.randn(n, generator=g)
    signed, unsigned = bnb.functional.create_dynamic_map(True), bnb.functional.create_dynamic_map(False)
    m, v = torch.full((n,), 127, dtype=torch.uint8), torch.zeros(n, dtype=torch.uint8)
    m_absmax, v_absmax = torch.zeros(blocks), torch.zeros(blocks)
    sizes = torch.logspace(-9, 6, blocks).repeat_interleave(256)[:n]
    tensors = {"parameter.0": p, "signed_map": signed, "unsigned_map": unsigned}
    for step in range(1, 5):
        gradient = torch.randn(n, generator=g) * sizes * torch.where(torch.rand(n, generator=g) < 0.1, 0.0, 1.0)
        gradient = gradient.bfloat16()
        p = p.clone()
        step_of(p, gradient.float(), m, v, 0.9, 0.999, 0.0, 0.0, 1e-8, step, 1e-2, signed, unsigned, m_absmax, v_absmax,
                0.1, 0.5, False, optimizer_name="adam")
        tensors |= {f"gradient.{step}": gradient, f"parameter.{step}": p, f"exp_avg.{step}": m.clone(),
                    f"exp_avg_sq.{step}": v.clone(), f"exp_avg_absmax.{step}": m_absmax.clone(),
                    f"exp_avg_sq_absmax.{step}": v_absmax.clone()}

    # A file of states: codes, and float32 for a small parameter.
    large, small = torch.nn.Parameter(torch.randn(60, 70, generator=g)), torch.nn.Parameter(torch.randn(8, generator=g))
    groups = [{"params": [large], "weight_decay": 0.1}, {"params": [small], "weight_decay": 0.0}]
    optimizer = bnb.optim.AdamW(groups, lr=1e-2, optim_bits=8)
    for _ in range(2):
        large.grad, small.grad = torch.randn(60, 70, generator=g), torch.randn(8, generator=g)
        optimizer.step()
    torch.save(optimizer.state_dict(), HERE / "adamw_8bit.pt")
    for name, parameter in {"large": large, "small": small}.items():
        state = optimizer.state[parameter]
        tensors |= {f"file.exp_avg.{name}": state["state1"], f"file.exp_avg_sq.{name}": state["state2"]}
    state = optimizer.state[large]
    tensors |= {"file.exp_avg_absmax.large": state["absmax1"], "file.exp_avg_sq_absmax.large": state["absmax2"]}
    write_tensors("adamw_8bit.safetensors", tensors)


def make_models():
    for name in MODELS:
        model = build(name)
        save_model(name, model)
        batch = batch_of(model)
        tensors = dict(zip(("input_ids", "attention_mask", "labels"), batch))
        tensors["lengths"] = torch.tensor(LENGTHS)

        def record(case, model, gradients):
            out = run(model, batch)
            model.zero_grad()
            out.loss.backward()
            tensors[f"{case}.loss"] = out.loss
            tensors[f"{case}.logits"] = packed(out.logits)
            tensors[f"{case}.hidden"] = packed(out.hidden_states[-1])
            if gradients:
                for key, parameter in model.named_parameters():
                    if parameter.requires_grad:
                        key = key.replace(".default", "")
                        tensors[f"{case}.grad.{key}"] = parameter.grad

        # Gradients of all parameters only for the smallest model, to keep the files small.
        record("base", model, gradients=name == "llama")
        record("lora", adapt(build(name), name, HERE / name / "adapter"), gradients=True)
        record("nf4", with_nf4_weights(build(name)), gradients=False)
        record("nf4_lora", adapt(with_nf4_weights(build(name)), name), gradients=True)
        write_tensors(f"{name}.safetensors", tensors)
    check_against_bitsandbytes()


def check_against_bitsandbytes():
    """Where every row is a multiple of the block size, bitsandbytes' own layers must agree with with_nf4_weights."""
    import transformers

    MODELS["_check"] = dict(MODELS["mistral"], intermediate_size=128)
    try:
        model = build("_check")
        batch = batch_of(model)
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            loaded = transformers.AutoModelForCausalLM.from_pretrained(
                folder, device_map={"": "cpu"}, dtype=torch.float32, attn_implementation="eager",
                quantization_config=transformers.BitsAndBytesConfig(
                    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32))
        got = adapt(loaded, "mistral")
        want = adapt(with_nf4_weights(model), "mistral")
        losses = [m(input_ids=batch[0], attention_mask=batch[1], labels=batch[2]).loss for m in (got, want)]
        for loss in losses:
            loss.backward()
        worst = abs(losses[0] - losses[1]).item()
        wanted = {k: p for k, p in want.named_parameters() if p.requires_grad}
        for key, parameter in got.named_parameters():
            if parameter.requires_grad:
                difference = (parameter.grad - wanted[key].grad).norm() / wanted[key].grad.norm()
                worst = max(worst, difference.item())
        print(f"bitsandbytes Linear4bit against the reference: {worst:.1e}")
        assert worst < 1e-5
    finally:
        del MODELS["_check"]


@contextlib.contextmanager
def wide_model():
    """A toy whose rows are multiples of the block size, which bitsandbytes dequantizes rightly. Its name comes last, since
    the weights follow from a name's place."""
    name = "mistral_wide"
    MODELS[name] = dict(MODELS["mistral"], intermediate_size=128)
    try:
        yield name
    finally:
        del MODELS[name]


def make_double_quantized():
    """A folder that transformers and bitsandbytes wrote: the second-level codes are its own."""
    import transformers

    target = HERE / "mistral_4bit"
    shutil.rmtree(target, ignore_errors=True)
    with wide_model() as name, tempfile.TemporaryDirectory() as folder:
        build(name).save_pretrained(folder)
        quantization = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", quantization_config=quantization)
        model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    for file in target.iterdir():
        file.chmod(0o644)
    model.config.use_cache = False
    return model.train()


def make_training():
    g = torch.Generator().manual_seed(400)
    vocab = MODELS["mistral"]["vocab_size"]
    examples = []
    for index, length in enumerate([7, 14, 3, 10, 2, 12, 5, 9, 6]):
        ids = torch.randint(3, vocab, (length,), generator=g).tolist()
        prompt = min(length - 1, [0, 4, 1][index % 3])
        examples.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    # 9 examples in batches of 2, windows of 2 batches: the last window of an epoch is one batch of one example.
    settings = dict(per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=0.01, max_steps=20,
                    warmup_steps=3, lr_scheduler_type="linear", weight_decay=0.1, max_grad_norm=3.0, seed=42,
                    adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8)
    result = {"model": "mistral", "adapter": "mistral/adapter", "settings": settings, "examples": examples}
    tensors = {}
    bases = {
        "fp32": lambda: build("mistral"),
        "nf4": lambda: with_nf4_weights(build("mistral")),
        "nf4_double": make_double_quantized,
    }
    for case, make_base in bases.items():
        model = adapt(make_base(), "mistral")
        log, seen = train(model, examples, settings, pad_id=2)
        order = [index for batch in seen for index in batch][: 9 * 6]
        for epoch in range(6):
            expected = torch.randperm(9, generator=torch.Generator().manual_seed(42 + epoch)).tolist()
            assert order[9 * epoch : 9 * epoch + 9] == expected, "the data order is not the documented one"
        norms = log["grad_norm"]
        assert max(norms) > settings["max_grad_norm"] > min(norms), "clipping should be active in some steps only"
        assert len(log["loss"]) == 20
        result[case] = log
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                tensors[f"{case}.{key.replace('.default', '')}"] = parameter
    write_json("training.json", result)
    write_tensors("training.safetensors", tensors)


def main():
    sections = {"dtypes": make_dtypes, "codecs": make_codecs, "int8": make_int8, "adamw_8bit": make_adamw_8bit,
                "models": make_models, "families": families.make_families, "training": make_training}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="the folder with real models, tokenizers and data")
    parser.add_argument("sections", nargs="*")
    arguments = parser.parse_args()
    if arguments.data is not None:
        sections["tokenizer"] = lambda: real_files.make_tokenizer(arguments.data)
        sections["stories"] = lambda: real_files.make_stories(arguments.data)
    for name in arguments.sections or sections:
        if name not in sections:
            parser.error(f"no section {name}; there are {', '.join(sections)} (tokenizer and stories need --data)")
        print(name, flush=True)
        sections[name]()
    total = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"{total} bytes in all")
    assert total < 2_000_000


if __name__ == "__main__":
    main()
