"""Notebook 05's exercises: what is asked, and how an answer is judged."""

import math
from functools import lru_cache

import torch

from efflab import points
from efflab.errors import is_int
from efflab.experiments import lighten
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


MEAN, COST = 64, 0.25  # tokens, bits per byte


@lru_cache(maxsize=8)
def added_bits(windows: tuple[int, ...]) -> float:
    """Bits per byte that `stdlib-gpt` loses by a window in each layer, not retrained."""
    model = lighten.lighten(points.language_model(), lighten.windows_alone(windows))
    return points.language_quality(model, n_windows=8).mean - points.shipped_quality()


def _windows(answer):
    fits = isinstance(answer, list | tuple) and len(answer) == 6
    fits = fits and all(is_int(w) and 1 <= w <= 511 for w in answer)
    yield tr("six windows of 1 to 511 tokens"), True, fits
    mean = sum(answer) / 6
    what = tr("mean window {mean} tokens, at most {most}", mean=f"{mean:.1f}", most=MEAN)
    yield what, True, mean <= MEAN
    bits = added_bits(tuple(answer))
    what = tr("bits per byte added: {bits}, at most {most}", bits=f"{bits:.3f}", most=COST)
    yield what, True, bits <= COST


EXERCISES = {
    "05-1": Exercise(_one_position),
    "05-2": Exercise(_keys_computed),
    "05-3": Exercise(_smallest_kernel),
    "05-4": Exercise(_windows),
}
