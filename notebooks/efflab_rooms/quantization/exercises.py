"""Notebook 09's exercises: what is asked, and how an answer is judged."""

from functools import lru_cache

import torch
from torch import Tensor

from efflab import points
from efflab.compression import int8
from efflab.experiments import int8_engines as engines
from efflab.lab import Exercise, tr
from efflab_rooms.quantization import measure


def _check_grid(answer):
    for low, high, bits in ((-1.0, 3.0, 8), (0.5, 2.0, 4), (-3.0, -1.0, 8), (-1.0, 6.0, 4)):
        scale, zero = int8.input_grid(low, high, bits)
        given = answer(low, high, bits)
        what = f"affine_grid({low}, {high}, {bits})"
        yield f"{what}, {tr('scale')}", scale.item(), float(given[0])
        yield f"{what}, {tr('zero point')}", int(zero), int(given[1])


def _check_bytes(answer):
    for n, bits, group in ((4096, 8, 128), (1000, 3, 64), (7, 5, 8)):
        expected = -(-n * bits // 8) + 4 * -(-n // group)
        yield f"stored_bytes({n}, {bits}, {group})", expected, answer(n, bits, group)


OUTLIERS = "layers.0.ffn.body.down"
"""The layer whose input has MiniLM's largest outliers in its first block."""


@lru_cache(maxsize=1)
def _inputs() -> Tensor:
    """What that layer is given, (tokens, in), for docstrings on which no peak was found."""
    (model, tokenizer), seen = points.encoder(), []
    texts = [f.query for f in engines.functions()[1][:16]]
    layer = model.get_submodule(OUTLIERS)
    with int8.watching(layer, lambda _, x: seen.append(x)), torch.no_grad():
        for batch in engines.batches(tokenizer, texts, 1):
            model.encode(*batch)
    return torch.cat(seen)


@torch.no_grad()
def int8_error(factors: Tensor) -> float:
    """Error (%) of that layer's output in INT8, its inputs divided by factors (in,)."""
    layer, x = points.encoder()[0].get_submodule(OUTLIERS), _inputs()
    divide, inner = int8.smooth_linear(layer, factors)
    return 100 * int8.relative_error(int8.Int8Linear(inner)(divide(x)), layer(x))


def _check_factors(answer):
    peaks = measure.channel_peaks()[OUTLIERS]
    weight = points.encoder()[0].get_submodule(OUTLIERS).weight.detach()
    most = int8_error(torch.ones_like(peaks)) / 2
    error = int8_error(answer(peaks, weight))
    what = tr("error {error}%, at most {most}%", error=f"{error:.2f}", most=f"{most:.2f}")
    yield what, True, error <= most


EXERCISES = {
    "09-1": Exercise(_check_grid),
    "09-2": Exercise(_check_bytes),
    "09-3": Exercise(_check_factors),
}
