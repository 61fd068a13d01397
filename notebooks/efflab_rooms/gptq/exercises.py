"""Notebook 10's exercises: what is asked, and how an answer is judged."""

import torch

from efflab.lab import Exercise, tr


def _check_push(answer):
    rng = torch.Generator().manual_seed(0)
    for width in (3, 6):
        x = torch.randn(40, width, generator=rng, dtype=torch.float64)
        H, row = x.T @ x, torch.randn(width, generator=rng, dtype=torch.float64)
        q = row[0].round()
        # the answer by another way: least squares for the weights that are still free
        rest = torch.linalg.solve(H[1:, 1:], H[1:, 0]) * (row[0] - q)
        expected = torch.cat([q[None], row[1:] + rest]).numpy()
        yield tr("{n} weights", n=width), expected, answer(row, q, torch.linalg.inv(H))


def _check_damping(answer):
    rng = torch.Generator().manual_seed(1)
    for n, width, damp in ((30, 4, 0.01), (2, 5, 0.1)):
        x = torch.randn(n, width, generator=rng)
        H = (x.T @ x).numpy()
        expected = H + damp * H.diagonal().mean() * torch.eye(width).numpy()
        name = tr("{n} samples of {w} inputs, damp {d}", n=n, w=width, d=damp)
        yield name, expected, answer(x, damp)


def _check_bits(answer):
    for bits, group in ((4, 128), (3, 64), (2, 16)):
        yield f"stored_bits({bits}, {group})", bits + 40 / group, answer(bits, group)


EXERCISES = {
    "10-1": Exercise(
        _check_push,
        hint="Divide the error of the first weight by inverse[0, 0]; take that times row 0 of the "
        "inverse away from the whole row. The first weight then is q by itself.",
    ),
    "10-2": Exercise(
        _check_damping,
        hint="x.T @ x, and damp times the mean of its diagonal added to every diagonal entry.",
    ),
    "10-3": Exercise(
        _check_bits,
        hint="A group of weights shares one scale of 32 bits and one zero point of 8 bits.",
    ),
}
