"""Notebook 00's measurements and their pictures: formula against reality, profile, roofline."""

import numpy as np

from efflab import bench
from efflab.devices import Device
from efflab.errors import require
from efflab.lab import colours, figures, number, tr
from efflab.model import Transformer
from efflab.profile import Operator, Profile

GROUPS = {
    "scaled_dot_product": "attention (SDPA)",
    "mm": "matrix products",
    "gelu": "GELU",
    "layer_norm": "LayerNorm",
    "": "lookups, additions, copies",
}


def group(operator: str) -> str:
    """The kind of work that an operator of that name does."""
    return next(name for key, name in GROUPS.items() if key in operator)


def short(operator: str) -> str:
    """A name that fits: without namespace, underscores and the CPU kernel's suffix."""
    name = operator.removeprefix("aten::").strip("_")
    return name.removesuffix("_flash_attention_for_cpu")


def machine_rows(device: Device) -> list[dict]:
    """A measured device's two roofs and the intensity at which they meet, for `table`."""
    rows = [
        ("fp32 matrix product", device.peak("fp32") / 1e9, "GFLOP/s"),
        ("copy of a large array", device.memory_bandwidth / 1e9, "GB/s"),
        ("ridge, where both limit alike", device.ridge("fp32"), "FLOP/byte"),
    ]
    return [dict(quantity=q, value=v, unit=u, kind="measured") for q, v, u in rows]


def forward_rows(timing: bench.Timing, peak_bytes: int) -> list[dict]:
    """The forward pass's time with its quartiles, and its peak memory, for `table`."""
    low, high = timing.quartiles
    rows = [
        ("forward pass, median", 1e3 * timing.median, "ms"),
        ("forward pass, lower quartile", 1e3 * low, "ms"),
        ("forward pass, upper quartile", 1e3 * high, "ms"),
        ("peak memory", peak_bytes / 1e6, "MB"),
    ]
    return [dict(quantity=q, value=v, unit=u, kind="measured") for q, v, u in rows]


def noise_rows(noise: bench.Comparison) -> list[dict]:
    """A function's time over its own, with the interval, and the band that follows, for `table`."""
    again = noise.again
    ratio = dict(quantity="the same pass over itself", value=again.mean, unit="x")
    band = dict(quantity="A/A band: differences within it say nothing", value=100 * noise.band)
    rows = [ratio | dict(low=again.low, high=again.high), band | dict(unit="±%")]
    return [row | dict(kind="measured") for row in rows]


NOISE_COLUMNS = {
    "quantity": "quantity",
    "value": "value",
    "unit": "unit",
    "low": "interval, low",
    "high": "interval, high",
    "kind": "kind",
}


def model_parts(model: Transformer) -> dict:
    """The model's modules by part, for `profile`; what is in none of them is the logits."""
    return {
        "embedding": [model.embedding],
        "attention": [layer.attention for layer in model.layers],
        "feed-forward": [layer.ffn for layer in model.layers],
    }


def compare(formula: dict, measured: dict) -> list[dict]:
    """Rows of formula, measurement and their ratio; the names must agree."""
    require(formula.keys() == measured.keys(), "measured", list(measured), f"{list(formula)}")
    return [
        {"quantity": tr(name), "computed": formula[name], "measured": measured[name],
         "ratio": measured[name] / formula[name]}
        for name in formula
    ]  # fmt: skip


COMPARE_COLUMNS = {
    "quantity": "quantity",
    "computed": "formula (computed)",
    "measured": "here (measured)",
    "ratio": "measured / formula",
}


def operator_rows(profile: Profile, n_rows: int = 6) -> list[dict]:
    """The longest operators: share of time, arithmetic and traffic, and the rates they reach."""
    total = sum(op.seconds for op in profile.operators)
    return [
        {
            "operator": short(op.name),
            "calls": op.calls,
            "time_share": f"{100 * op.seconds / total:.0f} %",
            "milliseconds": 1e3 * op.seconds,
            "gflop": op.flops / 1e9,
            "mb": op.bytes / 1e6,
            "gflop_s": op.flops / op.seconds / 1e9,
            "gb_s": op.bytes / op.seconds / 1e9,
            "kind": "measured",
        }
        for op in profile.operators[:n_rows]
    ]


def gap_rows(profile: Profile, device: Device) -> list[dict]:
    """From the roofline's least time to the measured one: what each kind of work adds.

    An operator's least time is its FLOPs at the peak or its bytes at the copy bandwidth, whichever
    is longer; what no operator accounts for is the interpreter's and the dispatcher's.
    """
    least: dict[str, float] = dict.fromkeys(GROUPS.values(), 0.0)
    taken = dict(least)
    for op in profile.operators:
        seconds = max(op.flops / device.peak("fp32"), op.bytes / device.memory_bandwidth)
        least[group(op.name)] += seconds
        taken[group(op.name)] += op.seconds
    least["between operators"] = 0.0
    taken["between operators"] = profile.seconds - sum(taken.values())
    added = {name: round(100 * (taken[name] - least[name]) / profile.seconds) for name in taken}
    return [
        {"work": name, "least": 1e3 * least[name], "taken": 1e3 * taken[name],
         "gap": f"{added[name]}%", "kind": "measured"}
        for name in taken
    ]  # fmt: skip


GAP_COLUMNS = {
    "work": "work",
    "least": "least, by the roofline (ms, computed)",
    "taken": "taken (ms)",
    "gap": "what it adds, of the pass",
    "kind": "kind",
}

OPERATOR_COLUMNS = {
    "operator": "operator",
    "calls": "calls",
    "time_share": "share of time",
    "milliseconds": "ms",
    "gflop": "GFLOP",
    "mb": "MB moved",
    "gflop_s": "GFLOP/s",
    "gb_s": "GB/s",
    "kind": "kind",
}


def timeline(profile: Profile):
    """Every operator of one forward pass over time, a lane for each part of the model."""
    lanes = ("embedding", "attention", "feed-forward", "other")
    labels = {p: tr("logits" if p == "other" else p) for p in lanes}
    seconds = profile.part_seconds()
    total = sum(seconds.values())
    meta = {tr("{part}: % of the time", part=labels[p]): 100 * seconds.get(p, 0) / total
            for p in lanes}  # fmt: skip
    title = tr("One forward pass, operator by operator (measured, {ms} ms)",
               ms=number(1e3 * profile.seconds))  # fmt: skip
    fig = figures.blank(title, tr("time (ms)"), meta=meta, height=360, barmode="overlay")
    for i, name in enumerate(GROUPS.values()):
        spans = [s for s in profile.spans if group(s.name) == name]
        fig.add_bar(
            x=[1e3 * s.seconds for s in spans],
            base=[1e3 * s.start for s in spans],
            y=[f"{labels[s.part]} ({100 * seconds[s.part] / total:.0f} %)" for s in spans],
            customdata=[short(s.name) for s in spans],
            hovertemplate="%{customdata}: %{x:.2f} ms<extra></extra>",
            orientation="h", name=tr(name), marker=dict(color=figures.COLOURS[i], line_width=0),
        )  # fmt: skip
    order = [f"{labels[p]} ({100 * seconds[p] / total:.0f} %)" for p in lanes if p in seconds]
    fig.update_yaxes(categoryorder="array", categoryarray=order[::-1])
    fig.update_layout(legend=dict(orientation="h", y=-0.3, x=0))
    return fig


ROLES = {
    "addmm": "addmm: linear layers",
    "mm": "mm: logits",
    "bmm": "bmm: attention products",
    "scaled_dot_product": "SDPA: attention",
}


def roofline(device: Device, operators: list[Operator], one_token: list[Operator] = ()):
    """This machine's roof, and on it every operator that does arithmetic: FLOP/s over FLOP/byte.

    `one_token`: operators of a pass over a single token, whose weights are read for little work.
    Rates are measured, intensities computed: each tensor read or written once.
    """
    peak, ridge = device.peak("fp32"), device.ridge("fp32")
    points = [op for op in (*operators, *one_token) if op.flops]
    few = {id(op) for op in one_token}
    rates = [op.flops / op.seconds for op in points]
    low_end = min(ridge / 8, *(op.intensity / 3 for op in points))
    x = np.geomspace(low_end, max(16 * ridge, *(3 * op.intensity for op in points)), 80)
    roof = np.minimum(peak, x * device.memory_bandwidth)
    meta = {
        tr("peak (GFLOP/s)"): peak / 1e9,
        tr("copy bandwidth (GB/s)"): device.memory_bandwidth / 1e9,
        tr("ridge (FLOP/byte)"): ridge,
    }
    title = tr("The roofline of this machine, and our model's operators on it (measured)")
    axes = (tr("arithmetic intensity (FLOP per byte)"), "GFLOP/s")
    fig = figures.blank(title, *axes, meta=meta, height=440)
    line = dict(color=colours.DARK, width=3)
    fig.add_scatter(
        x=x.tolist(), y=(roof / 1e9).tolist(), mode="lines", line=line, showlegend=False
    )
    for i, (op, rate) in enumerate(zip(points, rates, strict=True)):
        name, percent = tr(ROLES.get(short(op.name), short(op.name))), 100 * rate / peak
        name = tr("one token: {name}", name=name) if id(op) in few else name
        fig.layout.meta |= {tr("{op} (% of peak)", op=name): percent}
        marker = dict(size=14, color=figures.COLOURS[i % 7], symbol=figures.MARKERS[i % 7])
        label = tr("{name}: {percent}% of peak", name=name, percent=number(percent, 2))
        fig.add_scatter(x=[op.intensity], y=[rate / 1e9], mode="markers", marker=marker, name=label)
    note = dict(showarrow=False, font_color=colours.MID_GREY, yref="paper", y=0.04)
    fig.add_annotation(text=tr("memory-bound"), x=np.log10(ridge / 3), **note)
    fig.add_annotation(text=tr("compute-bound"), x=np.log10(3 * ridge), **note)
    fig.add_vline(ridge, line=dict(color=colours.GREY, dash="dot", width=1))
    fig.update_xaxes(type="log", **round_ticks(x))
    low, high = min(*roof, *rates) / 1e9, max(*roof, *rates) / 1e9
    fig.update_yaxes(type="log", **round_ticks([low / 2, high * 1.6]))
    fig.update_yaxes(range=[np.log10(low / 2), np.log10(high * 1.6)])
    fig.update_layout(legend=dict(orientation="h", y=-0.2, x=0))
    return fig


def round_ticks(values) -> dict:
    """Ticks at 1, 2, 5 times powers of ten over these values, for a logarithmic axis."""
    low, high = min(values), max(values)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return dict(tickvals=ticks, ticktext=[number(t) for t in ticks])
