"""Notebook 01's exercises: what is asked, and how an answer is judged."""

from dataclasses import replace

from efflab import cost, layers
from efflab.config import ModelConfig
from efflab.lab import Exercise, tr
from efflab.model import Transformer, n_parameters


def _check_share(answer):
    for n_layer in (2, 12):
        config = ModelConfig(n_layer, 2, 8, 32, 16, 8)
        model = Transformer(config)
        first = model.layers[0].attention, model.layers[0].ffn
        answer(model.layers)
        expected = cost.num_params(replace(config, share="all"))
        yield tr("parameters of {n} layers that share", n=n_layer), expected, n_parameters(model)
        shared = all((layer.attention, layer.ffn) == first for layer in model.layers)
        yield tr("every layer uses the first one's modules"), True, shared


def _check_layer(answer):
    for d_model, d_ff in ((4, 16), (8, 24), (384, 1536), (768, 3072)):
        config = ModelConfig(1, 1, d_model, d_ff, 2, 2)
        expected = layers.attention_params(config) + layers.ffn_params(config)
        yield f"layer_params({d_model}, {d_ff})", expected, answer(d_model, d_ff)


def _check_qkv(answer):
    for n, n_layer in ((1, 12), (3, 6), (6, 12), (12, 12)):
        yield f"qkv_removed({n}, {n_layer})", (n - 1) * 3 / (12 * n_layer), answer(n, n_layer)


EXERCISES = {
    "01-1": Exercise(_check_share),
    "01-2": Exercise(_check_layer),
    "01-3": Exercise(_check_qkv),
}
