"""Notebook 01's exercises: what is asked, and how an answer is judged."""

from copy import copy
from dataclasses import replace
from functools import lru_cache

from torch import nn

from efflab import cost, layers, points
from efflab.config import ModelConfig
from efflab.errors import is_int
from efflab.lab import Exercise, tr
from efflab.model import Transformer, n_parameters


def _check_share(answer):
    for n_layer in (2, 12):
        config = ModelConfig(n_layer, 2, 8, 32, 16, 8)
        model = Transformer(config)
        first = model.layers[0].attention, model.layers[0].ffn
        answer(model.layers)
        expected = cost.num_params(replace(config, share="all"))
        yield tr("parameters of {n} sharing layers", n=n_layer), expected, n_parameters(model)
        shared = all((layer.attention, layer.ffn) == first for layer in model.layers)
        yield tr("every layer uses the first layer's modules"), True, shared


def _check_layer(answer):
    for d_model, d_ff in ((4, 16), (8, 24), (384, 1536), (768, 3072)):
        config = ModelConfig(1, 1, d_model, d_ff, 2, 2)
        expected = layers.attention_params(config) + layers.ffn_params(config)
        yield f"layer_params({d_model}, {d_ff})", expected, answer(d_model, d_ff)


def _check_qkv(answer):
    for n, n_layer in ((1, 12), (3, 6), (6, 12), (12, 12)):
        yield f"qkv_removed({n}, {n_layer})", (n - 1) * 3 / (12 * n_layer), answer(n, n_layer)


COST = 0.25  # bits per byte


@lru_cache(maxsize=8)
def added_bits(places: tuple[int, ...]) -> float:
    """Bits per byte that `stdlib-gpt` loses with layer `places[i]` in place i, not retrained."""
    whole = points.language_model()
    model = copy(whole)  # with modules of its own, whose weights are the model's
    model._modules = whole._modules | dict(layers=nn.ModuleList(whole.layers[i] for i in places))
    return points.language_quality(model, n_windows=8).mean - points.shipped_quality()


def _check_places(answer):
    n_layer = points.language_model().config.n_layer
    fits = isinstance(answer, list | tuple) and len(answer) == n_layer
    fits = fits and all(is_int(i) and 0 <= i < n_layer for i in answer)
    yield tr("six layer numbers, 0 to 5"), True, fits
    n_kept = len(set(answer))
    yield tr("layers kept: {n}, at most 5 allowed", n=n_kept), True, n_kept < n_layer
    bits = added_bits(tuple(answer))
    what = tr("bits per byte added: {bits}, at most {most}", bits=f"{bits:.3f}", most=COST)
    yield what, True, bits <= COST


EXERCISES = {
    "01-1": Exercise(_check_share),
    "01-2": Exercise(_check_layer),
    "01-3": Exercise(_check_qkv),
    "01-4": Exercise(_check_places),
}
