"""What a layer-by-layer method is calibrated on, and the layers' error on any text.

Only the linear maps of the layers are quantized here; embeddings stay as they are, so that two
methods differ in nothing but the codes.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from efflab import data
from efflab.compression.gptq import gptq_model, hessian, output_error
from efflab.compression.packed import Quantized, quantize_weights
from efflab.errors import require_int, require_one_of
from efflab.hooks import linear_places, watching

METHODS = ("rtn", "gptq")
SOURCES = ("library", "prose", "random")
N_TOKENS, SEQ_LEN = 4096, 256  # 16 windows of 256 tokens


def calibration(n_tokens: int = N_TOKENS, source: str = "library", seed: int = 0) -> list[Tensor]:
    """Batches of token ids (B,T): windows of the library, of its docstrings, or random tokens."""
    require_int("n_tokens", n_tokens, 8)
    require_one_of("source", source, SOURCES)
    seq_len = min(SEQ_LEN, n_tokens)
    shape = max(1, n_tokens // seq_len), seq_len
    if source == "random":
        ids = np.random.default_rng(seed).integers(1, 2048, shape)
        return list(torch.from_numpy(ids).split(8))
    stream = data.stdlib_tokens("train") if source == "library" else _prose()
    return list(data.random_windows(stream, *shape, seed)[0].split(8))


@cache
def _prose() -> np.ndarray:
    """The docstrings of functions, English and no code, as one stream of tokens."""
    return data.tokens_of(["\n".join(f.query for f in data.documented_functions())])


@torch.no_grad()
def layer_hessians(model: nn.Module, batches: Iterable) -> dict[str, Tensor]:
    """{weight's name: X^T X} of every linear map in the layers of the model as it is.

    That of a map in several places is over the inputs of all of them.
    """
    found: dict[str, Tensor] = {}
    weights = {place: name for name, places in linear_places(model).items() for place in places}

    def look(name: str, x: Tensor) -> None:
        key = weights[f"layers.{name}"]
        if len(x):
            found[key] = found.get(key, 0) + hessian(x)

    with watching(model.layers, look):
        for ids in batches:
            model.encode(ids)
    return found


def layers_error(model: nn.Module, quantized: Quantized, hessians: dict[str, Tensor]) -> float:
    """Mean over the linear maps of the output's squared error, as a share of its square."""
    own = dict(model.named_parameters())
    return float(np.mean([output_error(own[n], q, hessians[n]) for n, q in quantized.items()]))


def quantized_by(
    method: str, model: nn.Module, bits: int, group_size: int | None, batches=None, **options
) -> Quantized:
    """The linear maps of the layers by "rtn" or "gptq": the same grid, other codes."""
    require_one_of("method", method, METHODS)
    if method == "gptq":
        return gptq_model(model, batches, bits, group_size=group_size, **options)
    grid = dict(symmetric=options.get("symmetric", False), group_size=group_size)
    grid["axis"] = 0 if group_size is None else None
    quantized = quantize_weights(model, bits, embeddings=False, **grid)
    return {name: q for name, q in quantized.items() if name.startswith("layers.")}
