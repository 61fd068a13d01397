"""Notebook 06's numbers: formats side by side, bits under a slider, blocks with shared scales."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from efflab import data, points
from efflab.acceleration import block_formats
from efflab.acceleration.precision import FORMATS, TORCH_DTYPES, every_value
from efflab.compression import affine
from efflab.errors import require, require_int
from efflab.lab import Slider, colours, explorer, figures, number, tr
from efflab.model import Transformer
from efflab.train import language_model_loss

LAYER = "layers.2.ffn.body.up.weight"
POWERS = (-12, 6)


def format_rows() -> list[dict]:
    """Each format's bits, largest and smallest numbers, and the relative error of rounding."""
    return [
        {
            "format": name,
            "bits": f.bits,
            "exponent": f.exponent_bits,
            "mantissa": f.mantissa_bits,
            "largest": f.max,
            "smallest normal": f.smallest_normal,
            "smallest": f.smallest,
            "error at most (%)": 50 * f.epsilon,
            "kind": "computed",
        }
        for name, f in FORMATS.items()
    ]


# --- Bits under a slider ---------------------------------------------------------------------


@explorer(
    power=Slider(*POWERS, -1, label="power of ten"),
    times=Slider(1.0, 9.9, 1.0, step=0.1, label="times"),
)
def bits_of(power=-1, times=1.0):
    """The bits that store times * 10^power in each format, and what they stand for."""
    require_int("power", power, POWERS[0])
    require(power <= POWERS[1], "power", power, "at most {high}", high=POWERS[1])
    require(1 <= times < 10, "times", times, "a number from {low} to below {high}", low=1, high=10)
    x = times * 10.0**power
    exact = torch.tensor(x, dtype=torch.float64)
    stored = {name: f.cast(exact).item() for name, f in FORMATS.items()}
    errors = {name: 100 * (value - x) / x for name, value in stored.items()}
    meta = {"x": x} | {
        tr("{name}: error (%)", name=n): e for n, e in errors.items() if abs(e) < 1e9
    }
    shown = number(x, 4)
    fig = figures.blank(tr("{x} in six formats (computed)", x=shown), meta=meta, height=390)
    rows = [bit_row(name, exact) for name in FORMATS]
    scale = [(i / 6 + edge / 6, colour) for i, colour in enumerate(BIT_COLOURS) for edge in (0, 1)]
    fig.add_heatmap(z=[r[0] for r in rows], text=[r[1] for r in rows], texttemplate="%{text}",
                    zmin=-0.5, zmax=5.5, colorscale=scale, showscale=False, xgap=2, ygap=12,
                    hoverinfo="skip", x=list(range(32)), y=list(range(6)))  # fmt: skip
    names = [f"<b>{n}</b><br>{number(stored[n], 6)} ({percent(errors[n])})" for n in FORMATS]
    fig.update_yaxes(
        tickvals=list(range(6)), ticktext=names, autorange="reversed", ticks="", showgrid=False
    )
    fig.update_xaxes(visible=False)
    for i, part in enumerate(("sign", "exponent", "mantissa")):
        marker = dict(symbol="square", size=12, color=BIT_COLOURS[2 * i + 1])
        fig.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=tr(part))
    return fig.update_layout(legend=dict(orientation="h", x=1, xanchor="right", y=1.02,
                             yanchor="bottom"), margin_l=170)  # fmt: skip


BIT_COLOURS = (
    colours.PALE_GREY,
    colours.SOFT_GREY,
    colours.tint(colours.ORANGE, 0.35),
    colours.ORANGE,
    colours.tint(colours.SKY, 0.35),
    colours.SKY,
)
"""Zero and one of the sign, the exponent and the mantissa."""


def percent(error: float) -> str:
    """A relative error as people read it."""
    if abs(error) > 1e9 or error != error:
        return tr("too large")
    if abs(error + 100) < 1e-9:
        return tr("becomes zero")
    shown = number(error, 2 if abs(error) < 95 else 4)  # 99.96 % less is not nothing
    return f"{'+' if error > 0 else ''}{shown} %" if error else tr("exact")


def bit_row(name: str, x: Tensor) -> tuple[list, list]:
    """(place of each bit's colour, its digit) in 32 columns, None where a format has no bit."""
    f = FORMATS[name]
    digits = f"{f.encode(x).item():0{f.bits}b}"
    parts = [0] + [2] * f.exponent_bits + [4] * f.mantissa_bits
    empty = 32 - f.bits
    shades = [part + int(d) for part, d in zip(parts, digits, strict=True)]
    return shades + [None] * empty, list(digits) + [""] * empty


# --- Equal to torch --------------------------------------------------------------------------


def equality_rows() -> list[dict]:
    """How many values our rounding and torch's cast were given, and how many they differ on."""
    rng = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (500_000,), generator=rng).to(torch.int32)
    tried = torch.cat(
        [*(every_value(n).float() for n in ("fp16", "bf16")), bits.view(torch.float32)]
    )
    rows = []
    for name, dtype in TORCH_DTYPES.items():
        ours, theirs = FORMATS[name].cast(tried), tried.to(dtype).float()
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        rows.append({"format": name, "16-bit patterns": 2 * 2**16, "random bits": len(bits),
                     "differ from torch": int((~same).sum()), "kind": "measured"})  # fmt: skip
    return rows


def overflow_rows(values=(448.0, 464.0, 465.0, 1e5, float("inf"))) -> list[dict]:
    """What each 8-bit format makes of numbers too large: torch's cast, and both ways of OCP's."""
    x, rows = torch.tensor(values), []
    for name in ("fp8_e4m3fn", "fp8_e5m2"):
        f = FORMATS[name]
        columns = {
            "torch": x.to(TORCH_DTYPES[name]).float(),
            "OCP, saturating": f.cast(x, saturate=True),
            "OCP, not saturating": f.cast(x, saturate=False),
        }
        for i, value in enumerate(values):
            shown = {key: column[i].item() for key, column in columns.items()}
            rows.append({"format": name, "value": value, **shown, "kind": "computed"})
    return rows


# --- Blocks ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def weight_and_gradient() -> tuple[Tensor, Tensor]:
    """A layer's weight in stdlib-gpt, (768, 192), and its gradient in a real step."""
    model: Transformer = points.language_model()
    batch = data.random_windows(data.stdlib_tokens("train"), 4, 128, seed=0)
    weight = model.get_parameter(LAYER)
    (gradient,) = torch.autograd.grad(language_model_loss(model, *batch), weight)
    return weight.detach(), gradient


def affine_coder(bits: int) -> Callable:
    """INT codes in groups of 32, as notebook 09 makes them."""
    return lambda x: affine.quantize(x, bits, group_size=32)


def block_coder(name: str) -> Callable:
    """One of the MX formats."""
    return lambda x: block_formats.quantize(x, name)


CODERS = {
    "INT4, groups of 32": affine_coder(4),
    "MXFP4": block_coder("mxfp4"),
    "INT8, groups of 32": affine_coder(8),
    "MXFP8 e4m3": block_coder("mxfp8_e4m3"),
    "MXFP8 e5m2": block_coder("mxfp8_e5m2"),
}


def block_rows() -> list[dict]:
    """Bits a value and relative error (root mean square) of a weight and of its gradient."""
    weight, gradient = weight_and_gradient()
    rows = []
    for name, coder in CODERS.items():
        coded = coder(weight)
        rows.append({
            "stored as": name,
            "bits a value": 8 * coded.nbytes / weight.numel(),
            "error of the weight (%)": relative_error(coded.dequantize(), weight),
            "error of the gradient (%)": relative_error(coder(gradient).dequantize(), gradient),
            "gradient rounded to zero (%)": zeroed(coder(gradient).dequantize(), gradient),
            "kind": "measured",
        })  # fmt: skip
    return rows


def relative_error(back: Tensor, x: Tensor) -> float:
    """Root mean square of the error, in per cent of the values' own."""
    return 100 * ((back - x).norm() / x.norm()).item()


def zeroed(back: Tensor, x: Tensor) -> float:
    """Per cent of the values above zero that came back as zero."""
    return 100 * ((back == 0) & (x != 0)).sum().item() / (x != 0).sum().item()
