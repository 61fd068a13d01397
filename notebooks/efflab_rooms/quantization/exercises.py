"""Notebook 09's exercises: what is asked, and how an answer is judged."""

import torch

from efflab.compression import int8
from efflab.lab import Exercise, tr


def _check_grid(answer):
    for low, high, bits in ((-1.0, 3.0, 8), (0.5, 2.0, 4), (-3.0, -1.0, 8)):
        scale, zero = int8.input_grid(low, high, bits)
        given = answer(low, high, bits)
        what = f"affine_grid({low}, {high}, {bits})"
        yield f"{what}, {tr('scale')}", scale.item(), float(given[0])
        yield f"{what}, {tr('zero point')}", int(zero), int(given[1])


def _check_bytes(answer):
    for n, bits, group in ((4096, 8, 128), (1000, 3, 64), (7, 5, 8)):
        expected = -(-n * bits // 8) + 4 * -(-n // group)
        yield f"stored_bytes({n}, {bits}, {group})", expected, answer(n, bits, group)


def _check_smoothing(answer):
    for peaks, columns, alpha in (
        ((2.0, 8.0, 0.5), (0.5, 0.5, 2.0), 0.5),
        ((1.0, 9.0), (1.0, 4.0), 0.8),
    ):
        x, w = torch.tensor(peaks), torch.tensor(columns)
        expected = int8.smoothing(x, w[None], alpha)
        yield f"smooth({peaks}, {columns}, {alpha})", expected, answer(x, w, alpha)


EXERCISES = {
    "09-1": Exercise(
        _check_grid,
        hint="First widen the range until it contains 0. Then the scale is its width over "
        "2^bits - 1, and the zero point is the code at which the value 0 lies.",
    ),
    "09-2": Exercise(
        _check_bytes,
        hint="Codes stand without gaps, so only the last byte is rounded up. Each group, the "
        "short last one too, brings a scale of 4 bytes.",
    ),
    "09-3": Exercise(
        _check_smoothing,
        hint="alpha = 1 takes the whole outlier out of the input, alpha = 0 none of it.",
    ),
}
