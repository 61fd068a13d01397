"""Notebook 10's explorer and exercises; `nb10_measure` measures, `nb10_recorded` keeps tables."""

from functools import lru_cache

import torch

from efflab.compression.affine import check_grid
from efflab.compression.gptq import gptq_hessian, output_error
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Exercise, Slider, explorer, figures, number, tr
from efflab.lab import nb10_measure as measure

GROUPS = ["row", 128, 64, 32, 16]
TOKENS = [128 * 2**i for i in range(6)]


@lru_cache(maxsize=512)
def layer_errors(bits: int, group_size: int | None, n_tokens: int) -> tuple[float, float, float]:
    """The wide map's error (%): GPTQ on its own tokens, GPTQ and nearest on held-out text."""
    w, own = measure.weight(measure.WIDE), measure.layer_hessian(measure.WIDE, "library", n_tokens)
    held_out = measure.layer_hessian(measure.WIDE, "held-out")
    q = gptq_hessian(w, own, bits, group_size=group_size)
    nearest = measure.nearest(measure.WIDE, bits, group_size)
    errors = output_error(w, q, own), output_error(w, q, held_out)
    return 100 * errors[0], 100 * errors[1], 100 * output_error(w, nearest, held_out)


@explorer(
    n_tokens=Slider(TOKENS[0], TOKENS[-1], 1024, scale="log2", label="calibration tokens"),
    bits=Slider(2, 8, 3, label="bits"),
    group_size=Choice(GROUPS, "row", label="group size"),
)
def calibrated(n_tokens: int = 1024, bits: int = 3, group_size="row"):
    """One real layer of `stdlib-gpt` quantized by both methods, judged on held-out text."""
    require_one_of("group_size", group_size, GROUPS)
    group = None if group_size == "row" else group_size
    check_grid(bits, 0 if group is None else None, group, 2)
    require_int("n_tokens", n_tokens)
    require(n_tokens <= measure.MOST, "n_tokens", n_tokens, f"at most {measure.MOST}")
    x = sorted({*TOKENS, n_tokens})
    own, held_out, nearest = zip(*(layer_errors(bits, group, n) for n in x), strict=True)
    series = {
        tr("round to nearest, held-out text"): nearest,
        tr("GPTQ, held-out text"): held_out,
        tr("GPTQ, its own calibration text"): own,
    }
    at = x.index(n_tokens)
    meta = {tr("round to nearest (%)"): nearest[at], tr("GPTQ (%)"): held_out[at],
            tr("GPTQ, its own text (%)"): own[at],
            tr("GPTQ / round to nearest"): held_out[at] / nearest[at],
            tr("bits per weight"): bits + 40 / (group or 768)}  # fmt: skip
    title = tr("{bits} bits, {n} tokens: nearest {a} %, GPTQ {b} %", bits=bits, n=f"{n_tokens:,}",
               a=number(nearest[at]), b=number(held_out[at]))  # fmt: skip
    axes = tr("calibration tokens"), tr("error of the layer's output (%)")
    fig = figures.line(x, series, title, *axes, log_x=True, meta=meta)
    fig.update_yaxes(rangemode="tozero")
    fig.add_vline(x=n_tokens, line=dict(color="#444", dash="dot", width=1.5))
    return fig.update_layout(legend=dict(orientation="h", y=1.02, yanchor="bottom"), margin_t=90)


# --- Exercises -------------------------------------------------------------------------------


def _pushed(answer):
    rng = torch.Generator().manual_seed(0)
    for width in (3, 6):
        x = torch.randn(40, width, generator=rng, dtype=torch.float64)
        H, row = x.T @ x, torch.randn(width, generator=rng, dtype=torch.float64)
        q = row[0].round()
        # the answer by another way: least squares for the weights that are still free
        rest = torch.linalg.solve(H[1:, 1:], H[1:, 0]) * (row[0] - q)
        expected = torch.cat([q[None], row[1:] + rest]).numpy()
        yield tr("{n} weights", n=width), expected, answer(row, q, torch.linalg.inv(H))


def _damped(answer):
    rng = torch.Generator().manual_seed(1)
    for n, width, damp in ((30, 4, 0.01), (2, 5, 0.1)):
        x = torch.randn(n, width, generator=rng)
        H = (x.T @ x).numpy()
        expected = H + damp * H.diagonal().mean() * torch.eye(width).numpy()
        yield tr("{n} samples of {w} inputs, damp {d}", n=n, w=width, d=damp), expected, \
            answer(x, damp)  # fmt: skip


def _stored(answer):
    for bits, group in ((4, 128), (3, 64), (2, 16)):
        yield f"stored_bits({bits}, {group})", bits + 40 / group, answer(bits, group)


EXERCISES = {
    "10-1": Exercise(
        _pushed,
        hint="Divide the error of the first weight by inverse[0, 0]; take that times row 0 of the "
        "inverse away from the whole row. The first weight then is q by itself.",
    ),
    "10-2": Exercise(
        _damped,
        hint="x.T @ x, and damp times the mean of its diagonal added to every diagonal entry.",
    ),
    "10-3": Exercise(
        _stored,
        hint="A group of weights shares one scale of 32 bits and one zero point of 8 bits.",
    ),
}
