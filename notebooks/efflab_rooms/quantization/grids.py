"""Notebook 09's grids: from one number to a model, the bit-width explorer and the exercises."""

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from efflab import cost, points
from efflab.compression import affine, int8, packed
from efflab.config import PRESETS
from efflab.data import published, random_windows, stdlib_tokens
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, explorer, figures, tr
from efflab.model import Transformer
from efflab.points import language_model

GRIDS = {
    "per tensor": dict(axis=None),
    "per channel": dict(axis=0),
    "groups of 128": dict(group_size=128),
    "groups of 32": dict(group_size=32),
}
N_WINDOWS = 4  # held-out windows on which the explorer judges
SHOWN = "layers.0.ffn.body.up.weight"


# --- One number, one tensor ------------------------------------------------------------------


def one_number(values=(-0.62, 0.0, 0.11, 0.37, 1.0), bits: int = 4) -> list[dict]:
    """Each value with its code and what the code stands for, on both kinds of grid."""
    x = torch.tensor(values)
    both = {s: affine.quantize(x, bits, symmetric=s) for s in (True, False)}
    columns = {s: (q.codes().tolist(), q.dequantize().tolist()) for s, q in both.items()}
    return [
        {
            "value": v,
            "code, symmetric": columns[True][0][i],
            "back, symmetric": round(columns[True][1][i], 4),
            "code, affine": columns[False][0][i],
            "back, affine": round(columns[False][1][i], 4),
            "kind": "computed",
        }
        for i, v in enumerate(values)
    ]


def error_rows(weight: Tensor, bits=(2, 4, 8)) -> list[dict]:
    """Rounding error of a weight (out, in), root mean square: step / sqrt(12), and measured."""
    rows = []
    for b in bits:
        for name, options in GRIDS.items():
            q = affine.quantize(weight, b, **options)
            formula = (q.scale.square().mean() / 12).sqrt().item()
            found = (q.dequantize() - weight).square().mean().sqrt().item()
            rows.append({
                "bits": b, "scales": name, "step / sqrt(12)": formula, "error, measured": found,
                "ratio": found / formula, "bits a weight": 8 * q.nbytes / weight.numel(),
                "kind": "measured",
            })  # fmt: skip
    return rows


# --- Bytes -----------------------------------------------------------------------------------


def parts(model: Transformer) -> dict[str, int]:
    """Parameters by what quantization does to them: linear maps, tables, and the rest."""
    every = packed.weight_matrices(model)
    linear = packed.weight_matrices(model, embeddings=False)
    count = {"linear maps": sum(w.numel() for w in linear.values())}
    count["tables (token, position, type)"] = sum(w.numel() for w in every.values())
    count["tables (token, position, type)"] -= count["linear maps"]
    return count | {"biases and norms": sum(p.numel() for p in model.parameters())
                    - sum(count.values())}  # fmt: skip


def file_rows(model: Transformer, bits: int = 8) -> list[dict]:
    """What the model takes on disk, formula beside file: fp32, linear maps alone, tables too."""
    counts = parts(model)
    total = sum(counts.values())
    rows = [{"stored": "everything in fp32", "formula (MB)": 4e-6 * total, "file (MB)": None,
             "of fp32": 1.0, "smaller by (%)": 0.0, "kind": "computed"}]  # fmt: skip
    cases = {
        "linear maps, per channel": dict(embeddings=False, axis=0),
        "linear maps and tables, per channel": dict(axis=0),
        "linear maps and tables, groups of 32": dict(group_size=32),
    }
    for name, options in cases.items():
        quantized = packed.quantize_weights(model, bits, **options)
        n = sum(int(np.prod(q.shape)) for q in quantized.values())
        n_scales = sum(q.scale.numel() for q in quantized.values())
        formula = n * bits / 8 + 4 * n_scales + 4 * (total - n)
        with tempfile.TemporaryDirectory() as folder:
            size = packed.save_quantized(model, quantized, Path(folder) / "model.safetensors")
        rows.append({
            "stored": name, "formula (MB)": formula / 1e6, "file (MB)": size / 1e6,
            "of fp32": size / (4 * total), "smaller by (%)": 100 - 25 * size / total,
            "kind": "measured",
        })  # fmt: skip
    return [{k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()} for r in rows]


def parts_figure(model: Transformer):
    """MiniLM's bytes by part: fp32, linear maps in 8 bits, tables too."""
    counts = parts(model)
    keys = list(counts)
    shares = {
        tr("everything in fp32"): (4, 4, 4),
        tr("linear maps in 8 bits"): (1, 4, 4),
        tr("tables in 8 bits too"): (1, 1, 4),
    }
    series = {tr(k): [w[i] * counts[k] / 1e6 for w in shares.values()] for i, k in enumerate(keys)}
    totals = np.sum(list(series.values()), axis=0)
    names = [
        f"{name}<br>{t:.1f} MB, ×{t / totals[0]:.2f}"
        for name, t in zip(shares, totals, strict=True)
    ]
    meta = {name: round(float(t), 1) for name, t in zip(shares, totals, strict=True)}
    share = counts["tables (token, position, type)"] / sum(counts.values())
    title = tr("MiniLM-L6: {share}% of it are tables (MB)", share=f"{100 * share:.0f}")
    fig = figures.bars(names, series, title, "", tr("size (MB)"), stacked=True, meta=meta)
    return fig.update_layout(legend=dict(orientation="h", y=-0.2, traceorder="normal"))


# --- The bit-width explorer ------------------------------------------------------------------


@lru_cache(maxsize=1)
def layer_input() -> Tensor:
    """What the shown layer is given for some held-out source: (n, in)."""
    model, seen = language_model(), {}
    ids, _ = random_windows(stdlib_tokens("held-out"), 2, 128, seed=0)
    with int8.watching(model, lambda name, x: seen.setdefault(name, x)), torch.no_grad():
        model.encode(ids)
    return seen[SHOWN.removesuffix(".weight")]


@lru_cache(maxsize=64)
def judged(bits: int, scales: str, symmetric: bool) -> tuple:
    """(quality, bytes, layer error, the shown matrix quantized) of stdlib-gpt on such a grid.

    The quality is `points.language_quality`: fp32's own plus the paired difference, which alone
    has an interval.
    """
    model = language_model()
    quantized = packed.quantize_weights(model, bits, symmetric=symmetric, **GRIDS[scales])
    shown = quantized[SHOWN]
    linear = model.get_submodule(SHOWN.removesuffix(".weight"))
    error = int8.layer_error(linear, shown.dequantize(), layer_input())
    quality = points.language_quality(packed.with_weights(model, quantized), N_WINDOWS)
    return quality, packed.model_bytes(model, quantized), error, shown


@lru_cache(maxsize=1)
def unquantized() -> tuple:
    """(quality, bytes) of stdlib-gpt in fp32."""
    model = language_model()
    return points.language_quality(model), packed.model_bytes(model, {})


@explorer(
    bits=Slider(2, 8, 4, step=1, unit="bits", label="width of a weight"),
    scales=Choice(list(GRIDS), "per channel", label="scales"),
    symmetric=Toggle(True, label="symmetric"),
)
def bit_width(bits=4, scales="per channel", symmetric=True):
    """A weight's histogram with its grid, and stdlib-gpt's size and quality on that grid."""
    require_int("bits", bits, 2)
    require_one_of("scales", scales, GRIDS)
    quality, size, error, q = judged(bits, scales, symmetric)
    base, full = unquantized()
    low, high = affine.code_range(bits, symmetric)
    step = q.scale[0].item()
    zero = 0 if q.zero_point is None else int(q.zero_point[0])
    levels = (np.arange(low, high + 1) - zero) * step
    row = language_model().get_parameter(SHOWN)[0].detach()
    row = row[: q.group_size].numpy() if q.group_size else row.numpy()
    span = 1.05 * float(np.abs(row).max())
    inside = levels[np.abs(levels) <= span]
    kept = inside[:: max(1, len(inside) // 200)]
    counts, edges = np.histogram(row, bins=40, range=(-span, span))
    titles = [tr("one neuron's weights, and its levels"), tr("the whole model")]
    fig = figures.panels(titles, horizontal_spacing=0.14)
    fig.add_bar(x=(edges[1:] + edges[:-1]) / 2, y=counts, width=np.diff(edges), row=1, col=1,
                name=tr("weights"), marker_color=figures.colour(5))  # fmt: skip
    fig.add_scatter(x=kept, y=np.full(len(kept), -0.04 * max(counts)), mode="markers", row=1, col=1,
                    name=tr("levels"), marker=dict(symbol="line-ns-open", size=12,
                    color=figures.colour(1)))  # fmt: skip
    for i, (name, mb, e) in enumerate((("fp32", full, base), (tr("yours"), size, quality))):
        bars = dict(array=[e.high - e.mean], arrayminus=[e.mean - e.low])
        fig.add_scatter(x=[mb / 1e6], y=[e.mean], error_y=bars, mode="markers", name=name,
                        marker=dict(color=figures.colour(6 if i == 0 else 2), size=12,
                                    symbol=figures.MARKERS[i]), row=1, col=2)  # fmt: skip
    fig.update_xaxes(title_text=tr("weight"), range=[-1.05 * span, 1.05 * span], col=1)
    fig.update_yaxes(title_text=tr("number of weights"), col=1)
    fig.update_xaxes(title_text=tr("size (MB)"), range=[0, 1.1 * full / 1e6], col=2)
    fig.update_yaxes(title_text=tr("bits per byte (lower is better)"), col=2)
    meta = {
        tr("step between levels"): step,
        tr("layer error (%)"): round(100 * error, 3),
        tr("size (MB)"): round(size / 1e6, 3),
        tr("size over fp32"): round(size / full, 4),
        tr("bits per byte"): round(quality.mean, 4),
        tr("more than fp32's"): round(quality.mean - base.mean, 4),
        tr("from"): round(quality.low - base.mean, 4),
        tr("to"): round(quality.high - base.mean, 4),
    }
    more = {end: f"{getattr(quality, end) - base.mean:+.3f}" for end in ("mean", "low", "high")}
    title = tr("{bits} bits, {scales}: ×{size} of the size, {mean} bits per byte ({low} to {high})",
               bits=bits, scales=tr(scales), size=f"{size / full:.2f}", **more)  # fmt: skip
    above = dict(orientation="h", x=1, xanchor="right", y=1.12, yanchor="bottom")
    fig.update_layout(title=dict(text=title, y=0.97, yanchor="top"), legend=above)
    return fig.update_layout(meta=meta, height=430, margin_t=110)


def rounded_point(bits: int, **options) -> dict:
    """What the board wants of stdlib-gpt with rounded weights.

    It computes in fp32 with the rounded values: weight-only quantization saves no arithmetic.
    """
    model = language_model()
    quantized = packed.quantize_weights(model, bits, **options)
    size = packed.model_bytes(model, quantized)
    return points.language_point(packed.with_weights(model, quantized), size)


def large_share(name: str = "gpt3-175b") -> float:
    """Of a large model's parameters, those in its embedding tables."""
    config = PRESETS[name]
    return (config.vocab_size + config.max_len) * config.d_model / cost.num_params(config)


def published_rows() -> list[dict]:
    """LLM.int8's speed over fp16's by width, and plain INT8's (Dettmers et al. 2022, table 5)."""
    return [row | {"kind": "published"} for row in published("llm_int8")]


PUBLISHED_COLUMNS = {
    "d_model": "d_model",
    "int8_over_fp16": "speed over fp16, INT8 without decomposition",
    "llm_int8_over_fp16": "speed over fp16, LLM.int8",
    "kind": "kind",
}
