"""Notebook 05's exercises: what is asked, and how an answer is judged."""

import math

import torch

from efflab.lab import Exercise, tr
from efflab.structure.dynamic_conv import convolve


def _one_position(answer):
    rng = torch.Generator().manual_seed(0)
    for T, H, R, k, i in ((6, 1, 1, 3, 5), (8, 2, 3, 4, 6), (8, 2, 3, 4, 1)):
        values = torch.randn(T, H * R, generator=rng)
        kernels = torch.rand(T, H, k, generator=rng).softmax(-1)
        expected = convolve(values[None], kernels[None], causal=True)[0, i].numpy()
        called = tr("position {i} of {T}, {H} heads, kernel of {k}", i=i, T=T, H=H, k=k)
        yield called, expected, answer(values, kernels, i)


def _keys_computed(answer):
    whole = ([4, 10, 60], 16, 512), ([0.0], 32, 512), ([500, 9], 32, 512)
    for spans, ramp, max_span in (*whole, ([3.2, 54.9], 16, 128)):  # learned spans are no integers
        expected = min(math.ceil(max(spans) + ramp), max_span)
        yield f"keys_computed({spans}, {ramp}, {max_span})", expected, answer(spans, ramp, max_span)


def _smallest_kernel(answer):
    for n_layer, distance in ((4, 56), (4, 57), (1, 10), (7, 100)):
        expected = math.ceil(distance / n_layer) + 1
        yield f"smallest_kernel({n_layer}, {distance})", expected, answer(n_layer, distance)


EXERCISES = {
    "05-1": Exercise(_one_position),
    "05-2": Exercise(_keys_computed),
    "05-3": Exercise(_smallest_kernel),
}
