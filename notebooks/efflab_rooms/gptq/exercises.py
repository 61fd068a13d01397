"""Notebook 10's exercises: what is asked, and how an answer is judged."""

import torch

from efflab.compression.affine import quantize
from efflab.lab import Exercise, number, tr
from efflab_rooms.gptq import measure


def _check_row(answer):
    rng = torch.Generator().manual_seed(0)
    for width in (3, 6):
        x = torch.randn(40, width, generator=rng, dtype=torch.float64)
        H, row = x.T @ x, 2 * torch.randn(width, generator=rng, dtype=torch.float64)
        expected = row.clone()
        for i in range(width):  # by another way: least squares for the weights that are still free
            error = expected[i] - expected[i].round()
            expected[i] = expected[i].round()
            rest = torch.linalg.solve(H[i + 1 :, i + 1 :], H[i + 1 :, i])
            expected[i + 1 :] += rest * error
        given = answer(row.clone(), torch.linalg.inv(H))
        yield tr("{n} weights", n=width), expected.numpy(), given


def _check_damping(answer):
    rng = torch.Generator().manual_seed(1)
    for n, width, damp in ((30, 4, 0.01), (2, 5, 0.1)):
        x = torch.randn(n, width, generator=rng)
        H = (x.T @ x).numpy()
        expected = H + damp * H.diagonal().mean() * torch.eye(width).numpy()
        name = tr("{n} samples of {w} inputs, damp {d}", n=n, w=width, d=damp)
        yield name, expected, answer(x, damp)


MOST = 97
"""Per cent of the error of rounding to nearest that factors may leave."""


def error_share(factors: torch.Tensor, bits: int = 3) -> float:
    """Per cent of rounding to nearest's held-out error that is left with factors (in,) (AWQ)."""
    weight = measure.weight(measure.WIDE)
    rounded = quantize(weight * factors, bits, symmetric=False, axis=0).dequantize() / factors
    nearest = measure.held_out_error(measure.WIDE, measure.nearest(measure.WIDE, bits))
    return 100 * measure.held_out_error(measure.WIDE, rounded) / nearest


def _check_factors(answer):
    weight = measure.weight(measure.WIDE)
    factors = answer(weight, measure.layer_inputs(measure.WIDE))
    yield tr("shape of the factors"), tuple(weight.shape[1:]), tuple(factors.shape)
    share = error_share(factors)
    what = tr("error / nearest: {share}% (at most {most}%)", share=number(share, 3), most=MOST)
    yield what, True, share <= MOST


EXERCISES = {
    "10-1": Exercise(_check_row),
    "10-2": Exercise(_check_damping),
    "10-3": Exercise(_check_factors),
}
