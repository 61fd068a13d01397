"""Notebook 04's exercises: what is asked, and how an answer is judged."""

import numpy as np
import torch

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


EXERCISES = {
    "04-1": Exercise(_extra_weights),
    "04-2": Exercise(_attend),
    "04-3": Exercise(256),
}
