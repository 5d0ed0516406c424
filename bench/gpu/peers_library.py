"""bench/gpu/peers.cpp through ctypes: tensors go in, an error of a launcher is an exception."""

import ctypes

P, N, F, I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int

BLOCK, NESTED_BLOCK = 64, 256  # QLoRA's, and bitsandbytes' only ones for nested scales

SIGNATURES = {
    "peers_weight_bytes": [],
    "peers_low_rank_bytes": [],
    "peers_padded_rank": [N],
    "peers_head_chunk": [N],
    "peers_error_text": [I],
    "peers_space_bytes": [],
    "peers_low_rank_joins": [N, N],
    "peers_products_new": [P],
    "peers_products_delete": [P],
    "peers_is_small": [I, I, N, P],
    "peers_dequantize": [P, P, P],
    "peers_small_product": [P, P, N, P, P],
    "peers_fill_matrix": [P, P, P, P],
    "peers_linear_forward": [P, P, P, P, P, N, P, P, P, P],
    "peers_linear_backward": [P, P, P, P, P, N, P, P, P, P, P, P, P, P],
    "peers_head_loss": [P, P, N, N, P, N, P, F, P, P, P, P, P, N, P],
    "peers_rms_norm": [P, N, N, P, F, P, P, P],
    "peers_rms_norm_backward": [P, N, N, P, P, P, P, P],
    "peers_rotate": [P, N, N, N, P, P, I, P, P],
    "peers_swiglu": [P, P, N, P, P],
    "peers_swiglu_backward": [P, P, P, N, P, P, P],
}
RESULTS = {name: N for name in SIGNATURES if name.endswith(("_bytes", "_rank", "_chunk"))}
RESULTS |= {"peers_error_text": ctypes.c_char_p, "peers_products_new": P, "peers_products_delete": None}
NO_ERROR = {*RESULTS, "peers_is_small", "peers_low_rank_joins"}


class Weight(ctypes.Structure):
    _fields_ = [
        ("codes", P), ("nested", P), ("nested_absmax", P), ("map", P),
        ("rows", N), ("columns", N), ("blocksize", N), ("nested_blocksize", N), ("offset", F),
    ]


class LowRank(ctypes.Structure):
    _fields_ = [("a", P), ("b", P), ("rank", N), ("scale", F)]


class Library:
    """The launchers on one device, with what products share there: cuBLASLt's space."""

    def __init__(self, path, torch, device):
        self.torch, self.device = torch, torch.device(device)
        self.functions = ctypes.CDLL(str(path))
        for name, arguments in SIGNATURES.items():
            function = getattr(self.functions, name)
            function.argtypes, function.restype = arguments, RESULTS.get(name, I)
        for struct, size in ((Weight, self.weight_bytes()), (LowRank, self.low_rank_bytes())):
            if ctypes.sizeof(struct) != size:
                raise RuntimeError(f"{path}: {struct.__name__} has {size} bytes there, {ctypes.sizeof(struct)} here")
        self.space = self.empty(self.space_bytes(), dtype=torch.uint8)
        self.products = self.products_new(self.space)
        if self.device.type == "cuda":
            gpu = torch.cuda.get_device_properties(self.device)
            self.gpu = (10 * gpu.major + gpu.minor, gpu.multi_processor_count)
        else:
            self.gpu = (90, 2)  # so few that small shapes get each kind of product

    def close(self):
        self.products_delete(self.products)

    def empty(self, *shape, dtype=None):
        return self.torch.empty(*shape, dtype=dtype or self.torch.bfloat16, device=self.device)

    def stream(self):
        if self.device.type == "cpu":
            return None
        return self.torch.cuda.current_stream().cuda_stream

    def address(self, value):
        if not isinstance(value, self.torch.Tensor):
            return ctypes.addressof(value) if isinstance(value, ctypes.Structure) else value
        if value.device.type != self.device.type or not value.is_contiguous():
            raise ValueError(f"a tensor on {value.device}, strides {value.stride()}: expected rows on {self.device}")
        return value.data_ptr()

    def __getattr__(self, name):
        """library.NAME(…) is peers_NAME(…); one that starts work goes to the current stream."""
        full = f"peers_{name}"
        if full not in SIGNATURES:
            raise AttributeError(name)
        function = getattr(self.functions, full)

        def call(*arguments):
            arguments = [self.address(each) for each in arguments]
            if full in NO_ERROR:
                return function(*arguments)
            error = function(*arguments, self.stream())
            if error != 0:
                raise RuntimeError(f"{name}: {self.functions.peers_error_text(error).decode()} (error {error})")
            return None

        return call


def weight_of(codes, state):
    """A weight that bitsandbytes quantized, where it lies; the tensors have to outlive it."""
    if not (state.nested and state.quant_type == "nf4" and state.blocksize == BLOCK):
        raise ValueError(f"expected nested NF4 in blocks of {BLOCK}, found {state.quant_type} in {state.blocksize}")
    rows, columns = state.shape
    nested = state.state2
    for tensor, size in ((codes, rows * columns // 2), (state.absmax, rows * columns // BLOCK), (nested.code, 256)):
        if tensor.numel() != size:
            raise ValueError(f"bitsandbytes' weight has {tensor.numel()} elements where {size} were expected")
    return Weight(
        codes.data_ptr(), state.absmax.data_ptr(), nested.absmax.data_ptr(), nested.code.data_ptr(),
        rows, columns, state.blocksize, nested.blocksize, state.offset.item(),
    )
