"""Calibration data for layer-by-layer methods, and the layers' output error on any text.

Only the linear maps of the layers are quantized here, not the embeddings, so that two methods
differ only in the codes.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from efflab import data
from efflab.arguments import check_module
from efflab.base.hooks import linear_places, watching
from efflab.compression.gptq import Settings, gptq_model, hessian, output_error
from efflab.compression.packed import Quantized, quantize_weights
from efflab.compression.values import Hessian, require_each
from efflab.errors import require, require_int, require_one_of
from efflab.rules import Count
from efflab.tensors import Ids

MOST_TOKENS = 2**24
"""Upper bound: far more than any method needs, and ids of so many still fit into memory."""
METHODS = ("rtn", "gptq")
SOURCES = ("library", "prose", "random")
N_TOKENS, SEQ_LEN = 4096, 256  # 16 windows of 256 tokens


def calibration(n_tokens: int = N_TOKENS, source: str = "library", seed: Count = 0) -> list[Tensor]:
    """Batches of token ids (B,T): windows of the library, of its docstrings, or random tokens."""
    require_int("n_tokens", n_tokens, 8, MOST_TOKENS)
    require_one_of("source", source, SOURCES)
    seq_len = min(SEQ_LEN, n_tokens)
    shape = n_tokens // seq_len, seq_len
    if source == "random":
        ids = np.random.default_rng(seed).integers(1, 2048, shape)
        return list(torch.from_numpy(ids).split(8))
    stream = data.stdlib_tokens("train") if source == "library" else _prose()
    return list(data.random_windows(stream, *shape, seed)[0].split(8))


@cache
def _prose() -> np.ndarray:
    """The docstrings of functions (English, no code) as one stream of tokens."""
    return data.tokens_of(["\n".join(f.query for f in data.documented_functions())])


@torch.no_grad()
def layer_hessians(model: nn.Module, batches: Iterable) -> dict[str, Tensor]:
    """{weight's name: X^T X} of every linear map in the layers, for the unquantized model.

    A shared map's sum is over the inputs of all its places.
    """
    hessians: dict[str, Tensor] = {}
    weights = {place: name for name, places in linear_places(model).items() for place in places}

    def look(name: str, x: Tensor) -> None:
        key = weights[f"layers.{name}"]
        if len(x):
            hessians[key] = hessians.get(key, 0) + hessian(x)

    with watching(model.layers, look):
        for ids in require_each("batches", batches, Ids):
            model.encode(ids)
    return hessians


def layers_error(model: nn.Module, quantized: Quantized, hessians: dict[str, Hessian]) -> float:
    """Mean over the linear maps of the output's squared error relative to its squared norm."""
    own = dict(model.named_parameters())
    require(len(quantized) > 0, "quantized", quantized, "one weight at least")
    for name in quantized:
        require(name in own, "quantized", name, "names of the model's parameters")
        require(name in hessians, "hessians", sorted(hessians), f"one of {name} too")
    return float(np.mean([output_error(own[n], q, hessians[n]) for n, q in quantized.items()]))


def quantize_by(
    method: str,
    model: nn.Module,
    bits: int,
    group_size: int | None,
    batches: Iterable | None = None,
    **options,
) -> Quantized:
    """Quantize the linear maps of the layers by "rtn" or "gptq": the same grid, other codes.

    "gptq" needs `batches`, as `gptq_model` takes them; `options`: those of `gptq.Settings`.
    """
    require_one_of("method", method, METHODS)
    settings = Settings(bits, group_size, **options)
    if method == "gptq":
        require(batches is not None, "batches", batches, "token ids to fit the codes to")
        return gptq_model(model, batches, bits, group_size=group_size, **options)
    grid = dict(symmetric=settings.symmetric, group_size=group_size)
    grid["axis"] = 0 if group_size is None else None
    quantized = quantize_weights(model, bits, embeddings=False, **grid)
    return {name: q for name, q in quantized.items() if name.startswith("layers.")}


check_module(__name__)
