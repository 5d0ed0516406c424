"""What the stage peers compares: pairs of the same arithmetic, ours and a peer's, on the same operands. Nothing here
knows of time: a call gets the number of its operands' copy and returns named results."""

import math
from dataclasses import dataclass, field
from typing import Callable

import peers_library
from peers_library import LowRank, weight_of

RANK, ALPHA = 16, 32
BF16 = 2.0**-8  # what rounding to bf16 changes at most; its root mean square is about 0.4 of that

Call = Callable[[int], dict]


@dataclass
class Pair:
    work: str
    ours: Call
    peers: dict[str, Call]
    # Result → the largest ‖ours - peer‖ / ‖peer‖, which roundings on both sides make, squares added.
    limits: dict[str, float]
    limits_of: dict[tuple[str, str], float] = field(default_factory=dict)  # (peer, result) → another limit
    copies: int = 1  # of weights, which calls take in turn
    faster: float = 0.0  # target: times as fast as the fastest peer
    copying: float = 0.0  # target: share of the copy bandwidth
    bytes: float = 0.0  # that a call has to read and write; 0: not beside copying
    memory: float = 0.0  # target: bytes beyond the inputs; 0: not measured
    held: int = 0  # bytes that our calls write to and do not allocate
    beside: dict[str, Call] = field(default_factory=dict)  # of other arithmetic: a ceiling


@dataclass(frozen=True)
class Sizes:
    weights: tuple  # (rows, columns)
    many: tuple  # tokens
    beside_dense: int  # from so many tokens on
    few: tuple
    dequantized: tuple
    head_rows: int
    head_size: int
    vocabularies: tuple
    head_chunk: int  # 0: the library's own
    tokens: int
    hidden: int
    heads: int
    head_dim: int
    ffn: int
    cache: int  # bytes that no cache holds


FULL = Sizes(
    weights=((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)), many=(512, 8192), beside_dense=8192,
    few=(1, 2, 4, 8, 16, 32, 64), dequantized=(4096, 14336), head_rows=8192, head_size=4096,
    vocabularies=(32000, 128256), head_chunk=0, tokens=8192, hidden=4096, heads=32, head_dim=128, ffn=14336,
    cache=256 << 20,
)
# For the emulation, which runs each thread of a GPU in turn.
SMALL = Sizes(
    weights=((128, 128), (64, 192), (208, 64)), many=(24, 40), beside_dense=40, few=FULL.few, dequantized=(96, 192),
    head_rows=40, head_size=64, vocabularies=(96, 200), head_chunk=16, tokens=12, hidden=128, heads=3, head_dim=32,
    ffn=192, cache=0,
)


class Pairs:
    def __init__(self, library, torch, bitsandbytes, peft, sizes):
        self.ours, self.torch, self.bnb, self.peft, self.sizes = library, torch, bitsandbytes, peft, sizes
        self.device = library.device
        self.random = torch.Generator(self.device).manual_seed(1)

    def normal(self, *shape, scale=1.0, dtype=None):
        x = self.torch.randn(*shape, generator=self.random, device=self.device).mul_(scale)
        return x.to(dtype or self.torch.bfloat16)

    def all(self):
        """Builders of groups: one group's operands are gone before the next one's are made."""
        yield self.dequantizing
        for shape in self.sizes.weights:
            yield lambda shape=shape: self.small_products(*shape)
        for shape in self.sizes.weights:
            for tokens in self.sizes.many:
                yield lambda shape=shape, tokens=tokens: self.linear(*shape, tokens)
        for vocabulary in self.sizes.vocabularies:
            yield lambda vocabulary=vocabulary: self.head(vocabulary)
        yield self.norm
        yield self.rotation
        yield self.swiglu

    def copies(self, bytes_each, most=1 << 20):
        return min(most, max(2, math.ceil(self.sizes.cache / bytes_each)))

    def quantized(self, rows, columns):
        """Copies of a weight: bitsandbytes' codes and state, and the same memory as ours."""
        found = []
        for _ in range(self.copies(rows * columns // 2)):
            dense = self.normal(rows, columns, scale=0.02)
            codes, state = self.bnb.functional.quantize_4bit(
                dense, blocksize=peers_library.BLOCK, compress_statistics=True, quant_type="nf4"
            )
            found.append((codes, state, weight_of(codes, state)))
        return found

    @staticmethod
    def weight_bytes(rows, columns):
        blocks = rows * columns / peers_library.BLOCK
        return rows * columns / 2 + blocks + 4 * blocks / peers_library.NESTED_BLOCK

    # Products with a 4-bit weight.

    def dequantizing(self):
        rows, columns = self.sizes.dequantized
        weights = self.quantized(rows, columns)
        out = [self.ours.empty(rows, columns) for _ in range(4)]

        def ours(i):
            _, _, weight = weights[i % len(weights)]
            self.ours.dequantize(weight, out[i % 4])
            return {"w": out[i % 4]}

        def theirs(i):
            codes, state, _ = weights[i % len(weights)]
            return {"w": self.bnb.functional.dequantize_4bit(codes, state)}

        yield Pair(
            f"dequantize {rows}×{columns}, nested scales, to bf16", ours, {"bitsandbytes": theirs}, {"w": BF16 / 8},
            copies=len(weights), faster=1.0, copying=0.90,
            bytes=self.weight_bytes(rows, columns) + 2.0 * rows * columns,
        )

    def small_products(self, rows, columns):
        weights = self.quantized(rows, columns)
        matrix = self.ours.empty(rows * columns)
        none = LowRank(None, None, 0, 0.0)
        for tokens in self.sizes.few:
            x, y = self.normal(tokens, columns), self.ours.empty(tokens, rows)
            small = self.ours.is_small(*self.ours.gpu, tokens, weights[0][2])

            def ours(i, x=x, y=y, tokens=tokens, small=small):
                _, _, weight = weights[i % len(weights)]
                if small:
                    self.ours.small_product(weight, x, tokens, y)
                else:
                    self.ours.fill_matrix(weight, none, matrix)
                    self.ours.linear_forward(self.ours.products, weight, none, matrix, x, tokens, None, None, y)
                return {"y": y}

            def theirs(i, x=x):
                codes, state, _ = weights[i % len(weights)]
                with self.torch.no_grad():
                    return {"y": self.bnb.matmul_4bit(x, codes, quant_state=state)}

            by = "" if small else ", by dequantizing"
            yield Pair(
                f"{tokens} row{'s' if tokens > 1 else ''} × {rows}×{columns}{by}", ours, {"bitsandbytes": theirs},
                {"y": 2 * BF16}, copies=len(weights), faster=1.0, copying=0.80 if tokens == 1 else 0.0,
                bytes=self.weight_bytes(rows, columns) + 2.0 * tokens * (rows + columns) if tokens == 1 else 0.0,
            )

    def adapted(self, weights, rows, columns):
        """peft's layers around bitsandbytes': a module for each copy of the weight."""
        torch, bnb = self.torch, self.bnb

        class Layers(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.is_loaded_in_4bit = True  # what transformers sets and peft asks for
                self.layers = torch.nn.ModuleList()

        model = Layers()
        for codes, state, _ in weights:
            layer = bnb.nn.Linear4bit(
                columns, rows, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta"
            )
            layer.weight = bnb.nn.Params4bit(
                codes, requires_grad=False, quant_state=state, quant_type="nf4", bnb_quantized=True, module=layer
            )
            model.layers.append(layer)
        config = self.peft.LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=r"layers\.\d+")
        self.peft.get_peft_model(model, config)
        for layer in model.layers:
            if not isinstance(layer, self.peft.tuners.lora.bnb.Linear4bit):
                raise TypeError(f"peft made {type(layer)} of bitsandbytes' Linear4bit")
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            with torch.no_grad():  # so that neither term hides the other
                a.copy_(self.normal(*a.shape, scale=columns**-0.5, dtype=torch.float32))
                b.copy_(self.normal(*b.shape, scale=0.1, dtype=torch.float32))
        return model.train()

    def linear(self, rows, columns, tokens):
        torch, library = self.torch, self.ours
        weights = self.quantized(rows, columns)
        model = self.adapted(weights, rows, columns)
        pad = library.padded_rank(RANK)
        x, dy = self.normal(tokens, columns), self.normal(tokens, rows)
        # The low-rank term is part of the product where that copies less, as in the library's linear_4bit.
        x_and_u = library.empty(tokens, columns + pad) if library.low_rank_joins(columns, rows) else None
        dy_and_v = library.empty(tokens, rows + pad) if library.low_rank_joins(rows, columns) else None
        u, v = library.empty(tokens, pad), library.empty(tokens, pad)
        y, dx = library.empty(tokens, rows), library.empty(tokens, columns)
        da = library.empty(pad, columns, dtype=torch.float32)
        db = library.empty(rows, pad, dtype=torch.float32)
        matrix = library.empty((rows + pad) * (columns + pad))
        x_in = x.clone().requires_grad_(True)

        def parameters(i):
            layer = model.layers[i % len(weights)]
            return layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight

        def ours(i):
            layer, a, b = parameters(i)
            weight = weights[i % len(weights)][2]
            low_rank = LowRank(a.data_ptr(), b.data_ptr(), RANK, ALPHA / RANK)
            library.fill_matrix(weight, low_rank, matrix)
            library.linear_forward(library.products, weight, low_rank, matrix, x, tokens, x_and_u, u, y)
            if x_and_u is not None:
                u.copy_(x_and_u[:, columns:])  # what a layer keeps until its gradient
            library.fill_matrix(weight, low_rank, matrix)  # a step has other layers between the two
            library.linear_backward(
                library.products, weight, low_rank, matrix, dy, tokens, dy_and_v, v, x, u, dx, da, db
            )
            return {"y": y, "dx": dx, "dA": da[:RANK], "dB": db[:, :RANK]}

        def theirs(i, autocast):
            layer, a, b = parameters(i)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=autocast):
                out = layer(x_in)
            grads = torch.autograd.grad(out, (x_in, a, b), dy)
            return {"y": out.detach(), "dx": grads[0], "dA": grads[1], "dB": grads[2]}

        beside = {}
        if tokens >= self.sizes.beside_dense:
            dense = [self.normal(rows, columns, scale=0.02) for _ in range(self.copies(2 * rows * columns, most=8))]

            def products(i):
                w = dense[i % len(dense)]
                return {"y": x @ w.t(), "dx": dy @ w}

            beside = {"dense products alone, cuBLAS": products}
        yield Pair(
            f"linear {rows}×{columns} with LoRA r = {RANK}, forward and gradients, {tokens} tokens", ours,
            {
                "bitsandbytes + peft, autocast": lambda i: theirs(i, True),
                "bitsandbytes + peft, adapters in f32": lambda i: theirs(i, False),
            },
            {"y": 2 * BF16, "dx": 2 * BF16, "dA": 2 * BF16, "dB": 2 * BF16}, copies=len(weights),
            faster=1.5 if tokens < self.sizes.beside_dense else 1.0, beside=beside,
        )

    # The head with the loss.

    def head(self, vocabulary):
        torch, library, sizes = self.torch, self.ours, self.sizes
        rows, size = sizes.head_rows, sizes.head_size
        hidden, weight = self.normal(rows, size), self.normal(vocabulary, size, scale=3 * size**-0.5)
        labels = torch.randint(0, vocabulary, (rows,), generator=self.random, device=self.device)
        hidden_in = hidden.clone().requires_grad_(True)
        chunk = sizes.head_chunk or library.head_chunk(vocabulary)

        def ours(i):
            dhidden, logits = library.empty(rows, size), library.empty(chunk, vocabulary)
            largest, total, picked = library.empty(3, rows, dtype=torch.float32)
            library.head_loss(
                library.products, hidden, rows, size, weight, vocabulary, labels, 1.0 / rows, dhidden, largest, total,
                picked, logits, chunk,
            )
            return {"loss": (total.log_() + largest - picked).mean(), "dhidden": dhidden}

        def theirs(i, widen):
            logits = torch.nn.functional.linear(hidden_in, weight)
            loss = torch.nn.functional.cross_entropy(logits.float() if widen else logits, labels)
            del logits
            (dhidden,) = torch.autograd.grad(loss, hidden_in)
            return {"loss": loss.detach(), "dhidden": dhidden}

        narrow, wide = "torch, logits in bf16", "torch, logits in f32 as in transformers"
        yield Pair(
            f"head and loss with gradient, {rows} tokens, vocabulary {vocabulary}", ours,
            {narrow: lambda i: theirs(i, False), wide: lambda i: theirs(i, True)},
            {"loss": BF16 / 4, "dhidden": 2 * BF16},
            # It rounds logarithms of probabilities to bf16: of 16, by a sixteenth.
            {(narrow, "loss"): 4 * BF16, (narrow, "dhidden"): 8 * BF16},
            faster=1.0, memory=256e6, held=library.space.numel(),
        )

    # Elementwise work beside the operations that transformers composes it of.

    def both_ways(self, work, bytes, ours, forward, inputs, dy, gradients):
        """A pair without gradients and one with: ours(gradient) and peers' forward(*inputs) → y. `bytes` has those of
        each; `gradients` names those of `inputs`."""
        torch = self.torch
        tracked = [each.clone().requires_grad_(True) for each in inputs]

        def theirs(gradient, function):
            if not gradient:
                with torch.no_grad():
                    return {"y": function(*inputs)}
            y = function(*tracked)
            return {"y": y.detach()} | dict(zip(gradients, torch.autograd.grad(y, tracked, dy)))

        for gradient in (False, True):
            yield Pair(
                work + (", forward and gradient" if gradient else ", forward"),
                lambda i, gradient=gradient: ours(gradient),
                {name: (lambda i, g=gradient, f=function: theirs(g, f)) for name, function in forward.items()},
                {name: 2 * BF16 for name in ("y", *(gradients if gradient else ()))},
                faster=1.0, bytes=sum(bytes) if gradient else bytes[0],
            )

    def norm(self):
        torch, library = self.torch, self.ours
        rows, size, eps = self.sizes.tokens, self.sizes.hidden, 1e-5
        x, dy = self.normal(rows, size, scale=2.0), self.normal(rows, size)
        weight = self.normal(size, scale=0.1) + 1
        y, dx, scale = library.empty(rows, size), library.empty(rows, size), library.empty(rows, dtype=torch.float32)

        def ours(gradient):
            library.rms_norm(x, rows, size, weight, eps, y, scale if gradient else None)
            if not gradient:
                return {"y": y}
            library.rms_norm_backward(x, rows, size, weight, scale, dy, dx)
            return {"y": y, "dx": dx}

        def composed(x):
            wide = x.float()
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
            return weight * wide.to(x.dtype)

        def one_call(x):
            return torch.nn.functional.rms_norm(x, (size,), weight, eps)

        n = 2.0 * rows * size
        yield from self.both_ways(
            f"RMSNorm {rows}×{size}", (2 * n, 3 * n), ours, {"torch, composed": composed, "torch, rms_norm": one_call},
            [x], dy, ["dx"],
        )

    def rotation(self):
        torch, library = self.torch, self.ours
        tokens, heads, size = self.sizes.tokens, self.sizes.heads, self.sizes.head_dim
        x, dy = self.normal(tokens, heads, size), self.normal(tokens, heads, size)
        angles = torch.rand(tokens, size // 2, generator=self.random, device=self.device) * 6
        cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        cos_all, sin_all = (torch.cat((each, each), -1).unsqueeze(1) for each in (cos, sin))
        y, dx = library.empty(tokens, heads, size), library.empty(tokens, heads, size)

        def ours(gradient):
            library.rotate(x, tokens, heads, size, cos, sin, 0, y)
            if not gradient:
                return {"y": y}
            library.rotate(dy, tokens, heads, size, cos, sin, 1, dx)
            return {"y": y, "dx": dx}

        def composed(x):
            half = size // 2
            turned = torch.cat((-x[..., half:], x[..., :half]), -1)
            return x * cos_all + turned * sin_all

        n = 2.0 * tokens * heads * size
        yield from self.both_ways(
            f"rotation {tokens}×{heads}×{size}", (2 * n, 2 * n), ours, {"torch, composed": composed}, [x], dy, ["dx"]
        )

    def swiglu(self):
        library = self.ours
        n = self.sizes.tokens * self.sizes.ffn
        gate, up, dy = (self.normal(n) for _ in range(3))
        y, dgate, dup = (library.empty(n) for _ in range(3))

        def ours(gradient):
            library.swiglu(gate, up, n, y)
            if not gradient:
                return {"y": y}
            library.swiglu_backward(gate, up, dy, n, dgate, dup)
            return {"y": y, "dgate": dgate, "dup": dup}

        def composed(gate, up):
            return self.torch.nn.functional.silu(gate) * up

        yield from self.both_ways(
            f"SwiGLU {self.sizes.tokens}×{self.sizes.ffn}", (6.0 * n, 10.0 * n), ours, {"torch, composed": composed},
            [gate, up], dy, ["dgate", "dup"],
        )
