"""Golden files of the model families: weights by a rule that needs no file, an adapter, what transformers makes of them."""

import json

from toy import *  # first: it sets the environment before torch is loaded

import numpy
import torch

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = dict(hidden_size=32, intermediate_size=44, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=48, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)

# name: family, whether config.json is spelled as transformers 4 did, fields
FAMILIES = {
    "llama3": ("Llama", True, dict(head_dim=16, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "llama_linear": ("Llama", True, dict(attention_bias=True, rope_parameters=dict(
        rope_type="linear", factor=2.0, rope_theta=10000.0))),
    "llama_dynamic": ("Llama", False, dict(mlp_bias=True, max_position_embeddings=8, rope_parameters=dict(
        rope_type="dynamic", factor=2.5, rope_theta=10000.0))),
    "llama_yarn": ("Llama", False, dict(head_dim=16, rope_parameters=YARN)),
    "mistral_yarn": ("Mistral", False, dict(head_dim=12, sliding_window=4, rope_parameters=dict(
        YARN, mscale=0.9, mscale_all_dim=0.4, beta_fast=6, beta_slow=0.5, truncate=False))),
    # The second layer has a window: by max_window_layers, and by layer_types.
    "qwen2": ("Qwen2", True, dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=5,
                                  max_window_layers=1)),
    "qwen3": ("Qwen3", False, dict(head_dim=10, attention_bias=True, use_sliding_window=True, sliding_window=3,
                                   layer_types=["sliding_attention", "full_attention"])),
}

# head size, max_position_embeddings, rope_parameters, length of the text (0: none seen yet)
FREQUENCIES = [
    (128, 4096, dict(rope_type="default", rope_theta=10000.0), 0),
    (64, 32768, dict(rope_type="default", rope_theta=1000000.0), 0),
    (128, 4096, dict(rope_type="linear", rope_theta=10000.0, factor=2.5), 0),
    (128, 131072, dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                       original_max_position_embeddings=8192), 0),
    (64, 131072, dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=8192), 0),
    (96, 2048, dict(rope_type="dynamic", rope_theta=10000.0, factor=1.1), 0),
    (128, 2048, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 2048),
    (128, 2048, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0), 2049),
    (128, 4096, dict(rope_type="dynamic", rope_theta=1000000.0, factor=3.7), 10001),
    (128, 131072, dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768), 0),
    (128, 65536, dict(rope_type="yarn", rope_theta=10000.0, factor=16, original_max_position_embeddings=4096,
                      attention_factor=1.25), 0),
    (64, 163840, dict(rope_type="yarn", rope_theta=10000.0, factor=40, original_max_position_embeddings=4096, mscale=1.0,
                      mscale_all_dim=0.707, beta_fast=32, beta_slow=1), 0),
    (80, 8192, dict(rope_type="yarn", rope_theta=10000.0, factor=None, original_max_position_embeddings=2048,
                    beta_fast=24.5, beta_slow=0.75, truncate=False), 0),
]


def uniform(name, shape):
    """Numbers in [-1, 1) from a tensor's name alone: SplitMix64 of the name's FNV-1a hash, 24 bits of each word."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    count = torch.Size(shape).numel()
    z = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    z = z ^ (z >> numpy.uint64(31))
    numbers = (z >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**23) - numpy.float32(1)
    return torch.from_numpy(numbers).reshape(shape)


def fill(model):
    """Weights and biases u / 4, norms 1 + u / 4. The name is that of the tensor in a file."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            name = key.replace(".default", "").replace(".base_layer", "")
            if "lora_" not in name:
                name = name.removeprefix("base_model.model.")
            value = uniform(name, parameter.shape) / 4
            parameter.copy_(1 + value if name.endswith("norm.weight") else value)


def spell_as_v4(config):
    config["torch_dtype"] = config.pop("dtype", "float32")
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else dict(rope, **{"type" if kind == "linear" else "rope_type": kind})
    config.pop("layer_types", None)
    config["transformers_version"] = "4.46.0"
    return config


def build_family(name):
    import transformers
    from peft import LoraConfig, get_peft_model

    kind, v4, fields = FAMILIES[name]
    config = getattr(transformers, kind + "Config")(**dict(SIZES, **json.loads(json.dumps(fields))))
    config._attn_implementation = "eager"
    model = getattr(transformers, kind + "ForCausalLM")(config).float()
    model.config.use_cache = False
    text = json.loads(model.config.to_json_string())
    text["architectures"] = [kind + "ForCausalLM"]
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=5, target_modules=TARGETS, lora_dropout=0.0,
                                             task_type="CAUSAL_LM"))
    fill(model)
    return model.train(), spell_as_v4(text) if v4 else text


def make_families():
    configs, tensors = {}, {}
    for name in FAMILIES:
        model, configs[name] = build_family(name)
        ids, mask, labels = batch = batch_of(model)
        if name == "llama_dynamic":
            # The frequencies follow the longest text so far, so no text is run by itself here.
            out = model(input_ids=ids, attention_mask=mask, labels=labels)
        else:
            out = run(model, batch)
        out.loss.backward()
        tensors.update(input_ids=ids, labels=labels, lengths=torch.tensor(LENGTHS))
        tensors[f"{name}.loss"] = out.loss
        tensors[f"{name}.logits"] = packed(out.logits)
        for key, parameter in model.named_parameters():
            if parameter.requires_grad:
                tensors[f"{name}.grad.{key.replace('.default', '')}"] = parameter.grad
        if name == "llama_dynamic":
            # After the 13 tokens of the batch: 9 keep their frequencies, 5 < 8 restore the first ones, 9 grow again.
            for step, length in enumerate([9, 5, 9]):
                tensors[f"{name}.after.{step}"] = model(input_ids=ids[:1, :length]).logits[0]
    write_tensors("families.safetensors", dict(tensors, **make_frequencies(configs)))
    write_json("families.json", configs)


def make_frequencies(configs):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    tensors = {}
    configs["frequencies"] = []
    for index, (size, positions, rope, length) in enumerate(FREQUENCIES):
        config = LlamaConfig(hidden_size=size, num_attention_heads=1, max_position_embeddings=positions,
                             rope_parameters=dict(rope))
        rotary = LlamaRotaryEmbedding(config)
        if length:
            rotary(torch.zeros(1), torch.arange(length)[None])
        tensors[f"frequencies.{index}"] = rotary.inv_freq.float()
        configs["frequencies"].append(dict(head_size=size, max_position_embeddings=positions, rope_parameters=rope,
                                           length=length, attention_factor=rotary.attention_scaling))
    return tensors
