"""Notebook 10's explorer; `layer` measures, `tables` keeps the recorded ones."""

from functools import lru_cache

from efflab.compression.affine import check_grid
from efflab.compression.gptq import gptq_hessian, output_error
from efflab.errors import require, require_int, require_one_of
from efflab.lab import Choice, Slider, colours, explorer, figures, number, tr
from efflab_rooms.gptq import layer as measure

GROUPS = ["row", 128, 64, 32, 16]
TOKENS = [128 * 2**i for i in range(6)]


@lru_cache(maxsize=512)
def layer_errors(bits: int, group_size: int | None, n_tokens: int) -> tuple[float, float]:
    """The wide map's error (%) by GPTQ: on its own tokens, and on held-out text."""
    w, own = measure.weight(measure.WIDE), measure.layer_hessian(measure.WIDE, "library", n_tokens)
    held_out = measure.layer_hessian(measure.WIDE, "held-out")
    q = gptq_hessian(w, own, bits, group_size=group_size)
    return 100 * output_error(w, q, own), 100 * output_error(w, q, held_out)


@lru_cache(maxsize=64)
def nearest_error(bits: int, group_size: int | None) -> float:
    """The wide map's error (%) on held-out text when each weight is rounded to nearest."""
    w, held_out = measure.weight(measure.WIDE), measure.layer_hessian(measure.WIDE, "held-out")
    return 100 * output_error(w, measure.nearest(measure.WIDE, bits, group_size), held_out)


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
    require(n_tokens <= measure.MOST, "n_tokens", n_tokens, "at most {high}", high=measure.MOST)
    x = sorted({*TOKENS, n_tokens})
    own, held_out = zip(*(layer_errors(bits, group, n) for n in x), strict=True)
    nearest = [nearest_error(bits, group)] * len(x)
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
    fig.add_vline(x=n_tokens, line=dict(color=colours.DARK, dash="dot", width=1.5))
    return fig.update_layout(legend=dict(orientation="h", y=1.02, yanchor="bottom"), margin_t=90)


# --- Exercises -------------------------------------------------------------------------------
