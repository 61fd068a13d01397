"""Notebook 10's exercises: what is asked, and how an answer is judged."""

import torch

from efflab.lab import Exercise, tr


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


def _check_bits(answer):
    for bits, group in ((4, 128), (3, 64), (2, 16)):
        yield f"stored_bits({bits}, {group})", bits + 40 / group, answer(bits, group)


EXERCISES = {
    "10-1": Exercise(
        _check_row,
        hint="For each i: the error of weight i over inverse[i, i], times row i of the inverse, is "
        "taken from the row; then inverse -= outer(inverse[:, i], inverse[i]) / inverse[i, i].",
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
