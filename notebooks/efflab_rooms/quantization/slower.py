"""Notebook 09's one linear layer in short numbers: what each form takes beside fp32 here."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from efflab import bench
from efflab.compression import affine, engines, int8
from efflab.errors import require_int
from efflab.lab import colours, figures, number, tr


@torch.no_grad()
def slower_rows(repeats: int = 11) -> list[dict]:
    """Short numbers in one linear layer: time over fp32's with its interval and the A/A band."""
    require_int("repeats", repeats)
    import torch.ao.quantization as q

    rng = torch.Generator().manual_seed(0)
    big, small = nn.Linear(384, 1536).eval(), nn.Linear(64, 64).eval()
    x, few = (torch.randn(*s, generator=rng) for s in ((256, 384), (4, 64)))
    with engines.quiet():
        fast = {m: q.quantize_dynamic(nn.Sequential(m), dtype=torch.qint8) for m in (big, small)}
        span = (x.min().item(), x.max().item())
        grid = int8.input_grid(*span)
        scale, zero = (t.item() for t in grid)
        weight = affine.quantize(big.weight, 8, axis=0)
    codes = weight.codes().to(torch.int8)
    short = affine.round_to_grid(x, *grid, 8).sub(128).to(torch.int8)
    half = copy.deepcopy(big).bfloat16()
    zeros = torch.zeros(1536, dtype=torch.int32)

    def fake():
        rounded = torch.fake_quantize_per_tensor_affine(x, scale, int(zero), 0, 255)
        w = torch.fake_quantize_per_channel_affine(big.weight, weight.scale, zeros, 0, -127, 127)
        return F.linear(rounded, w, big.bias)

    def weights_only():
        return F.linear(x, codes.float() * weight.scale[:, None], big.bias)

    cases = {
        "dynamic INT8, torch's kernel": lambda: fast[big](x),
        "weights only: dequantized, then fp32": weights_only,
        "fake quantization: rounded, then fp32": fake,
        "torch._int_mm, 8 x 8 bits": lambda: torch._int_mm(short, codes.T),
        "bf16": lambda: half(x.bfloat16()),
    }  # fmt: skip
    large = bench.compared(lambda: big(x), cases, warmup=1, repeats=repeats)
    tiny = "dynamic INT8, 4 tokens, 64 x 64"
    little = {tiny: _times(lambda: fast[small](few), 50)}
    little = bench.compared(_times(lambda: small(few), 50), little, warmup=1, repeats=repeats)
    rows = []
    for name in (next(iter(cases)), tiny, *list(cases)[1:]):
        found = little if name == tiny else large
        ratio = found.ratios[name]
        rows.append({"form": name, "time over fp32": ratio.mean, "interval, low": ratio.low,
                     "interval, high": ratio.high, "A/A band (±%)": 100 * found.band,
                     "against fp32": _word(found, name), "kind": "measured"})  # fmt: skip
    return rows


def _word(found: bench.Comparison, name: str) -> str:
    """Faster or slower where the whole interval lies outside of the A/A band."""
    if not found.differs(name):
        return "within the noise"
    return "faster" if found.ratios[name].mean < 1 else "slower"


def _times(fn, n: int):
    """A call that runs fn n times: what takes microseconds is too short to be timed alone."""
    return lambda: [fn() for _ in range(n)]


def slower_figure(rows: list[dict]):
    """The forms as points with their intervals, coloured by whether they differ; 1 is fp32."""
    fig = figures.blank(
        tr("Short numbers in one linear layer"), tr("time over fp32 (dashed: 1)")
    )  # fmt: skip
    for i, word in enumerate(("faster", "slower", "within the noise")):
        chosen = [r for r in rows if r["against fp32"] == word]
        x = [r["time over fp32"] for r in chosen]
        high, low = ([r[f"interval, {end}"] for r in chosen] for end in ("high", "low"))
        error = dict(
            array=[h - v for h, v in zip(high, x, strict=True)],
            arrayminus=[v - w for v, w in zip(x, low, strict=True)],
        )
        marker = dict(color=figures.colour((2, 1, 6)[i]), symbol=figures.MARKERS[i], size=11)
        fig.add_scatter(x=x, y=[tr(r["form"]) for r in chosen], error_x=error, name=tr(word),
                        mode="markers+text", text=[f"{number(v, 2)}x" for v in x], marker=marker,
                        textposition="top center", cliponaxis=False)  # fmt: skip
    names = [tr(r["form"]) for r in rows]
    fig.update_yaxes(categoryorder="array", categoryarray=names[::-1], type="category")
    values = [r["time over fp32"] for r in rows]
    fig.update_xaxes(type="log", tickvals=[0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100])
    fig.update_layout(
        meta=dict(zip(names, values, strict=True)), legend=dict(orientation="h", y=-0.2)
    )
    return fig.add_vline(x=1, line=dict(color=colours.DARK, dash="dash", width=1.5))


def cpu_rows() -> list[dict]:
    """What this CPU has for short numbers."""
    what = {
        "avx2": "8-bit products in three instructions, sums of two must fit into 16 bits",
        "avx512": "the same, twice as wide",
        "vnni": "8-bit products and their sums in one instruction",
        "amx": "8-bit products of whole tiles",
        "bf16": "bfloat16 products",
    }
    return [{"instructions": name, "what they do": tr(what[name]), "this CPU": has,
             "kind": "measured"} for name, has in engines.cpu_features().items()]  # fmt: skip
