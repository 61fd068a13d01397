"""Notebook 04's exercises: what is asked, and how an answer is judged."""

from functools import partial

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from efflab import bench
from efflab.lab import Exercise, tr
from efflab.structure.linformer import SHARING, linformer_attention, linformer_params


def _extra_weights(answer):
    for n_layer, n_head, max_len, k in ((12, 12, 512, 128), (6, 12, 128, 32)):
        for share in SHARING:
            expected = n_layer * linformer_params(n_head, max_len, k, share)
            called = f"extra_weights({n_layer}, {n_head}, {max_len}, {k}, {share!r})"
            yield called, expected, answer(n_layer, n_head, max_len, k, share)


def _attend(answer):
    rng = torch.Generator().manual_seed(0)
    for T, D, k in ((8, 4, 3), (16, 8, 16)):
        q, key, value = torch.randn(3, 2, 1, T, D, generator=rng)
        E, F = torch.randn(2, k, T, generator=rng)
        expected = linformer_attention(q, key, value, E, F).numpy()
        called = tr("output for n = {n}, k = {k}", n=T, k=k)
        yield called, expected, np.asarray(answer(q, key, value, E, F))


MOST_TIME = 0.5  # of full causal attention's


def _causal(answer):
    rng = torch.Generator().manual_seed(0)
    q, key, value = torch.randn(3, 1, 2, 256, 16, dtype=torch.double, generator=rng)
    y = answer(q, key, value.requires_grad_())
    yield tr("the output's shape"), tuple(q.shape), tuple(y.shape)
    for i in (0, 1, 63, 64, 130, 255):
        (gradient,) = torch.autograd.grad(y[:, :, i].sum(), value, retain_graph=True)
        seen = gradient.abs().amax((0, 1, 3)).nonzero().flatten().numpy()
        yield tr("tokens that token {i} sees", i=i), np.arange(i + 1), seen
    heads = torch.randn(3, 1, 2, 4096, 64, generator=rng)
    full = partial(scaled_dot_product_attention, *heads, is_causal=True)
    with torch.no_grad():
        times = bench.compare(full, {"own": partial(answer, *heads)}, warmup=1, repeats=5)
    ratio = times.ratios["own"].mean
    what = "time / full causal attention's: {ratio}, at most {most}"
    yield tr(what, ratio=f"{ratio:.2f}", most=MOST_TIME), True, ratio <= MOST_TIME


EXERCISES = {
    "04-1": Exercise(_extra_weights),
    "04-2": Exercise(_attend),
    "04-3": Exercise(256),
    "04-4": Exercise(_causal),
}
