"""Notebook 00's layer, timed by part: the length at which the n² part takes as long as the FFN."""

import numpy as np
import torch
import torch.nn.functional as F

from efflab import bench
from efflab.config import ModelConfig
from efflab.estimate import Estimate, of_median
from efflab.lab import colours, figures, number, tr
from efflab.model import Layer, Transformer, attention_written_out
from efflab_rooms.start_here.measured import round_ticks

LENGTHS = (256, 384, 512, 768, 1024, 1536, 2048)


def timed(config: ModelConfig, lengths=LENGTHS, repeats: int = 7) -> dict:
    """Time the parts of one layer turn and turn about: {length: {part: Timing}}.

    Parts: "ffn", and attention's n² part "fused" (SDPA) and "unfused".
    """
    layer: Layer = Transformer(config).layers[0].eval()
    times = {}
    for n in lengths:
        x = torch.randn(1, n, config.d_model)
        q = torch.randn(1, config.n_head, n, config.head_dim)
        parts = {
            "ffn": lambda x=x: layer.ffn.body(x),
            "fused": lambda q=q: F.scaled_dot_product_attention(q, q, q),
            "unfused": lambda q=q: attention_written_out(q, q, q),
        }
        with torch.no_grad():
            times[n] = bench.interleaved(parts, warmup=1, repeats=repeats)
    return times


def crossing(times: dict, part: str) -> Estimate:
    """The length at which `part` takes as long as the FFN, with its 95 % interval.

    Each repeat has a crossing of its own, on the line that fits log ratio over log length best;
    the estimate is their median. Beyond the measured lengths the line is extended.
    """
    lengths = np.log([float(n) for n in times])
    ratios = [
        [np.log(a / b) for a, b in zip(t[part].seconds, t["ffn"].seconds, strict=True)]
        for t in times.values()
    ]
    fits = [np.polyfit(lengths, one, 1) for one in np.transpose(ratios)]
    return of_median([float(np.exp(-shift / slope)) for slope, shift in fits])


def crossing_rows(config: ModelConfig, times: dict) -> list[dict]:
    """The length at which the n² part takes as long as the FFN: by FLOPs, and here, both ways."""
    rows = [dict(attention="by FLOPs (n = d_ff)", crossing=config.d_ff, kind="computed")]
    for part, name in (("fused", "fused (SDPA)"), ("unfused", "unfused (scores in memory)")):
        found = crossing(times, part)
        ends = dict(low=round(found.low), high=round(found.high))
        rows.append(dict(attention=name, crossing=round(found.mean), **ends, kind="measured"))
    return rows


CROSSING_COLUMNS = {
    "attention": "attention",
    "crossing": "crossing (tokens)",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}


def clock_over_flops(config: ModelConfig, times: dict, part: str) -> Estimate:
    """Measured over computed crossing length of `part`."""
    found = crossing(times, part)
    return Estimate(*(n / config.d_ff for n in (found.mean, found.low, found.high)))


def figure(config: ModelConfig, times: dict):
    """Milliseconds of the FFN and of attention's n² part over the length, fused and not."""
    names = {"ffn": "feed-forward", "fused": "attention, fused (SDPA)"}
    names |= {"unfused": "attention, unfused (scores in memory)"}
    series = {tr(name): [1e3 * t[part].median for t in times.values()]
              for part, name in names.items()}  # fmt: skip
    meta = {tr("computed crossing (tokens)"): config.d_ff}
    for part in ("fused", "unfused"):
        name = tr("measured crossing, {part} (tokens)", part=tr(part))
        meta[name] = crossing(times, part).mean
    title = tr("One layer of {C} channels: measured here", C=config.d_model)
    axes = (tr("sequence length (tokens)"), tr("time (ms)"))
    fig = figures.loglog(list(times), series, title, *axes, meta=meta)
    values = [v for line in series.values() for v in line]
    fig.update_yaxes(**round_ticks([min(values) / 2, max(values) * 2]))
    fig.add_vline(config.d_ff, line=dict(color=colours.DARK, dash="dash", width=1.5))
    note = dict(yref="paper", y=0.02, showarrow=False, xanchor="right", bgcolor=colours.WHITE)
    text = tr("computed: {n} ", n=number(config.d_ff))
    fig.add_annotation(x=np.log10(config.d_ff), text=text, **note)
    fig.update_layout(legend=dict(orientation="h", y=-0.22, x=0), height=430)
    return fig
