"""Notebook 00's pictures: growth, the explorer of the least time, shares, timeline, roofline."""

from collections.abc import Iterable
from math import log10

from efflab import cost
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, colours, explorer, mark, number, tr
from efflab.lab import figures as pictures
from efflab.lab.figures import COLOURS, legend, round_ticks
from efflab.lab.text import tr_name
from efflab.profile import Operator, Profile
from efflab_rooms.start_here import measure
from efflab_rooms.start_here.measure import doubling_months

LABELS = {"BERT-large": "bottom right", "GPT": "bottom center", "Chinchilla": "bottom center"}
LABELS |= {"PaLM": "top center", "Llama 3.1 405B": "top center"}
LABELS |= dict.fromkeys(("GPT-2 XL", "T5-11B", "GPT-3"), "top left")
"""Models whose points have their name beside them, and where."""


def growth():
    """Parameters (published) and training compute (computed) of dense models over time."""
    rows = {row["model"]: row for row in measure.growth_rows()}
    bert, palm, llama = (rows[name] for name in ("BERT-large", "PaLM", "Llama 3.1 405B"))
    meta = {
        tr("doubling time of parameters (months), BERT-large to PaLM"): doubling_months(bert, palm),
        tr("parameters, Llama 3.1 405B / PaLM"): llama["params"] / palm["params"],
        tr("training compute, Llama 3.1 405B / PaLM"): llama["flops"] / palm["flops"],
    }
    titles = [tr("parameters (published)"), tr("training FLOPs (computed: 6 P T)")]
    title = tr("Dense models to July 2024: since 2022 size has stood still, compute has not")
    fig = pictures.panels(titles, title, meta=meta, horizontal_spacing=0.1)
    for column, what in enumerate(("params", "flops"), start=1):
        points = [row for row in rows.values() if row[what]]
        names = [row["model"] for row in points]
        fig.add_scatter(
            **dict(x=[row["year"] for row in points], y=[row[what] for row in points]),
            text=[name if name in LABELS else "" for name in names],
            textposition=[LABELS.get(name, "top left") for name in names],
            customdata=[[row["model"], row["source"]] for row in points],
            hovertemplate="%{customdata[0]}: %{y:.3s}<br>%{customdata[1]}<extra></extra>",
            **dict(mode="markers+text", marker=dict(size=9, color=COLOURS[column - 1])),
            **dict(row=1, col=column),
        )
    fig.update_yaxes(type="log", exponentformat="power", dtick=1)
    fig.update_yaxes(range=[7.6, 12.4], col=1).update_yaxes(range=[18.5, 26.5], col=2)
    fig.update_xaxes(range=[2016.4, 2026.8], tickvals=list(range(2017, 2026, 2)), tickformat="d")
    return fig.update_layout(showlegend=False)


THIS = "this computer"
MODELS = ("stdlib-gpt", "bert-base", "gpt2", "gpt2-xl", "gpt3-175b", "qwen3-8b")
NAMES = {
    "scores": "attention scores and values (n²)",
    "projections": "Q, K, V and output projections",
    "ffn": "feed-forward",
    "logits": "embedding and logits",
}
LENGTHS = [round(2 ** (7 + i / 10)) for i in range(111)]
DEVICE_CHOICES = (THIS, "V100 SXM2", "A100 80GB SXM", "H100 SXM")


@explorer(
    seq_len=Slider(128, 2**17, 512, scale="log2", label="sequence length (tokens)"),
    model=Choice(MODELS, "bert-base", label="model"),
    device=Choice(DEVICE_CHOICES, "A100 80GB SXM", label="device"),
    fused=Toggle(True, label="fused attention"),
)
def where_it_goes(seq_len=512, model="bert-base", device="A100 80GB SXM", fused=True):
    """Least time by part, and attention's share of the layers' FLOPs over the length."""
    require_int("seq_len", seq_len)
    require_one_of("model", model, MODELS)
    require_one_of("device", device, (THIS, *DEVICES))
    config = PRESETS[model]
    roofs = measure.machine() if device == THIS else DEVICES[device]
    seconds = measure.part_seconds(config, seq_len, roofs, fused)
    total = sum(seconds.values())
    meta = {
        "seq_len": seq_len,
        "share": cost.attention_share(config, seq_len),
        "crossing": cost.crossing_length(config, "linear"),
        "milliseconds": 1e3 * total,
        "scores_time_share": seconds["scores"] / total,
    }
    titles = [tr("minimum time (computed)"), tr("n² share of the layers' FLOPs")]
    spacing = dict(column_widths=[0.42, 0.58], horizontal_spacing=0.13)
    title = _title(model, device, seq_len, total, roofs)
    fig = pictures.panels(titles, title, meta=meta, **spacing)
    _add_parts(fig, seconds, row=1, col=1)
    _add_share(fig, config, model, 0, row=1, col=2)
    _add_points(fig, seq_len, 100 * meta["share"], meta["crossing"], row=1, col=2)
    mark(fig, y=50, row=1, col=2)
    fig.update_layout(height=430, margin_t=112, showlegend=False)
    return fig.update_layout(title=dict(y=0.95, yanchor="top"))


def _title(model: str, device: str, seq_len: int, seconds: float, roofs: Device) -> str:
    """Model, length, device and time; a second line where the weights, 2 bytes each, do not fit."""
    time = f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"
    words = dict(model=model, n=number(seq_len), device=tr_name(device), time=time)
    title = tr("{model}, {n} tokens on {device}: {time} at best", **words)
    n_bytes = 2 * cost.num_params(PRESETS[model])
    if roofs.memory_bytes is None or n_bytes <= roofs.memory_bytes:
        return title
    no_room = tr("(its {gb} GB of weights do not fit on one device)", gb=number(n_bytes / 1e9))
    return f"{title}<br>{no_room}"


def _add_parts(fig, seconds: dict[str, float], **where) -> None:
    """Each part's share of the time as a bar."""
    fig.add_bar(
        x=[100 * part / sum(seconds.values()) for part in seconds.values()],
        y=[tr(NAMES[part]).replace(" (", "<br>(").replace("（", "<br>（") for part in seconds],
        orientation="h",
        marker_color=COLOURS[:4],
        texttemplate="%{x:.0f} %",
        textangle=0,
        **where,
    )
    fig.update_xaxes(title_text="%", range=[0, 105], **where)
    fig.update_yaxes(autorange="reversed", **where)


def _add_points(fig, seq_len: int, share: float, crossing: float, **where) -> None:
    """On a model's curve the chosen length, and where it reaches one half."""
    position = "top left" if share < 85 else "bottom right"  # inside the panel
    here = dict(mode="markers+text", text=[f" {share:.0f} % "], textposition=position)
    here |= dict(marker=dict(size=14, color=COLOURS[1]), cliponaxis=False)
    fig.add_scatter(x=[seq_len], y=[share], **here, **where)
    hollow = dict(color=colours.WHITE, line=dict(width=2, color=COLOURS[0]))
    look = dict(mode="markers", marker=dict(symbol="diamond", size=11, **hollow))
    fig.add_scatter(x=[crossing], y=[50], **look, **where)


def _add_share(fig, config: ModelConfig, name: str, i: int, **where) -> None:
    """One model's share of the quadratic part, in per cent, over lengths as powers of two."""
    shares = [100 * cost.attention_share(config, n) for n in LENGTHS]
    line = pictures.style(i, width=2.5)["line"]
    fig.add_scatter(x=LENGTHS, y=shares, name=name, mode="lines", line=line, **where)
    ticks = {2**n: f"{2**n}" if n < 10 else f"{2 ** (n - 10)}k" for n in range(7, 19, 2)}
    axis = dict(tickvals=list(ticks), ticktext=list(ticks.values()), range=[2.05, 5.45])
    fig.update_xaxes(type="log", **axis, title_text=tr("sequence length (tokens)"), **where)
    fig.update_yaxes(range=[0, 100], title_text="%", **where)


CROSSING_MODELS = {
    "BERT-base, GPT-2 (768 channels)": ("bert-base", "gpt2"),
    "Qwen3-8B (4,096 channels)": ("qwen3-8b",),
    "GPT-3 175B (12,288 channels)": ("gpt3-175b",),
}
SYMBOLS = {
    "square-open": "the model's own longest input",
    "circle": "scores = feed-forward",
    "diamond": "scores = everything else in the layers",
}


def attention_shares():
    """The n² part's share of the layers' FLOPs over the length, with the points of `SYMBOLS`."""
    title = tr("The n² part takes over beyond the old models' context, within Qwen3's (computed)")
    fig = pictures.blank(title, height=460, legend=legend("top left"))
    for i, (label, names) in enumerate(CROSSING_MODELS.items()):
        config, colour = PRESETS[names[0]], COLOURS[i]
        _add_share(fig, config, tr(label), i)
        ffn, linear = (cost.crossing_length(config, against) for against in ("ffn", "linear"))
        fig.layout.meta |= {f"{names[0]}: ffn": ffn, f"{names[0]}: linear": linear}
        points = [("square-open", PRESETS[name].max_len, "") for name in names]
        points += [("circle", ffn, f"{ffn:,}"), ("diamond", linear, f"{linear:,}")]
        symbols, lengths, texts = zip(*points, strict=True)
        outline = dict(width=2, color=colour)
        fig.add_scatter(
            x=lengths,
            y=[100 * cost.attention_share(config, n) for n in lengths],
            text=texts,
            textfont_color=colour,
            textposition=["bottom right" if s == "circle" else "top left" for s in symbols],
            mode="markers+text",
            marker=dict(symbol=symbols, size=10, color=colour, line=outline),
            showlegend=False,
        )
    for symbol, text in SYMBOLS.items():
        key = dict(mode="markers", marker=dict(symbol=symbol, size=10, color=colours.DARK))
        fig.add_scatter(x=[None], y=[None], name=tr(text), **key)
    mark(fig, y=50)
    return fig.update_yaxes(title_text=tr("n² share of the layers' FLOPs") + " (%)")


def timeline(profile: Profile):
    """Every operator of one forward pass over time, a lane for each part of the model."""
    seconds = profile.part_seconds()
    shares = {part: 100 * time / sum(seconds.values()) for part, time in seconds.items()}
    parts = ("embedding", "attention", "feed-forward", "other")
    names = {part: tr("logits" if part == "other" else part) for part in parts}
    lanes = {part: f"{names[part]} ({shares[part]:.0f} %)" for part in parts if part in shares}
    meta = {tr("{part}: % of the time", part=names[p]): shares.get(p, 0) for p in parts}
    ms = number(1e3 * profile.seconds)
    title = tr("One forward pass, operator by operator (measured, {ms} ms)", ms=ms)
    fig = pictures.blank(title, tr("time (ms)"), meta=meta, height=360, barmode="overlay")
    for i, name in enumerate(measure.GROUPS.values()):
        spans = [span for span in profile.spans if measure.group(span.name) == name]
        fig.add_bar(
            x=[1e3 * span.seconds for span in spans],
            base=[1e3 * span.start for span in spans],
            y=[lanes[span.part] for span in spans],
            customdata=[measure.short_name(span.name) for span in spans],
            hovertemplate="%{customdata}: %{x:.2f} ms<extra></extra>",
            orientation="h",
            name=tr(name),
            marker=dict(color=COLOURS[i], line_width=0),
        )
    fig.update_yaxes(categoryorder="array", categoryarray=list(lanes.values())[::-1])
    return fig.update_layout(legend=legend("below", y=-0.3))


def layer_times(config: ModelConfig, times: dict):
    """Milliseconds of a layer's linear part and of its n² part over the length, fused and not."""
    names = {
        "linear": "projections and feed-forward",
        "fused": "attention, fused (SDPA)",
        "unfused": "attention, unfused (scores in memory)",
    }
    series = {
        tr(text): [1e3 * t[part].median for t in times.values()] for part, text in names.items()
    }
    half = cost.crossing_length(config, "linear")
    meta = {tr("computed crossing (tokens)"): half} | {
        tr("measured crossing, {part} (tokens)", part=tr(part)): measure.crossing(times, part).mean
        for part in ("fused", "unfused")
    }
    title = tr("One layer of {C} channels (measured)", C=config.d_model)
    axes = (tr("sequence length (tokens)"), tr("time (ms)"))
    layout = dict(meta=meta, height=430, legend=legend("below"))
    fig = pictures.loglog(list(times), series, title, *axes, **layout)
    values = [ms for line in series.values() for ms in line]
    fig.update_yaxes(**round_ticks(min(values) / 2, max(values) * 2))
    return mark(fig, tr("computed: {n} ", n=number(half)), x=half)


ROLES = {
    "addmm": "addmm: linear layers",
    "mm": "mm: logits",
    "bmm": "bmm: attention products",
    "scaled_dot_product": "SDPA: attention",
}


def roofline(device: Device, operators: list[Operator], one_token: list[Operator] = ()):
    """This machine's roof, and on it every operator that does arithmetic: FLOP/s over FLOP/byte.

    `one_token`: of a pass over a single token. Intensities count each tensor once.
    """
    points = {_role(op): op for op in operators if op.flops}
    points |= {tr("one token: {name}", name=_role(op)): op for op in one_token if op.flops}
    roof = lambda op: cost.roofline_seconds(op.flops, op.bytes, device)  # noqa: E731
    shares = {name: 100 * roof(op) / op.seconds for name, op in points.items()}
    meta = {
        tr("peak (GFLOP/s)"): device.peak("fp32") / 1e9,
        tr("copy bandwidth (GB/s)"): device.memory_bandwidth / 1e9,
        tr("ridge (FLOP/byte)"): device.ridge("fp32"),
    }
    meta |= {tr("{op} (% of its roof)", op=name): share for name, share in shares.items()}
    title = tr("The roofline of this machine, and our model's operators on it (measured)")
    titles = title, tr("arithmetic intensity (FLOP per byte)"), "GFLOP/s"
    fig = pictures.blank(*titles, meta=meta, height=440, legend=legend("below"))
    _add_roof(fig, device, points.values())
    roles = list(dict.fromkeys(map(_role, points.values())))
    for name, op in points.items():
        label = tr("{name}: {percent}% of its roof", name=name, percent=number(shares[name], 2))
        marker = pictures.style(roles.index(_role(op)), size=14)["marker"]
        # hollow ones lie over each other and stay visible
        marker |= {} if name in roles else dict(symbol=f"{marker['symbol']}-open", line_width=3)
        point = dict(x=[op.intensity], y=[op.flops / op.seconds / 1e9], mode="markers")
        fig.add_scatter(**point, name=label, marker=marker)
    return fig


def _role(operator: Operator) -> str:
    name = measure.short_name(operator.name)
    return tr(ROLES.get(name, name))


def _add_roof(fig, device: Device, operators: Iterable[Operator]) -> None:
    """The roof, over all of the operators, and axes that hold them."""
    peak, ridge = device.peak("fp32"), device.ridge("fp32")
    intensities = [op.intensity for op in operators]
    rates = [op.flops / op.seconds / 1e9 for op in operators]
    x = [min(ridge / 8, min(intensities) / 3), ridge, max(16 * ridge, 3 * max(intensities))]
    roof = [min(peak, intensity * device.memory_bandwidth) / 1e9 for intensity in x]
    line = dict(color=colours.DARK, width=3)
    fig.add_scatter(x=x, y=roof, mode="lines", line=line, showlegend=False)
    low, high = min(*roof, *rates) / 2, max(*roof, *rates) * 1.6
    fig.update_xaxes(**round_ticks(x[0], x[-1]))
    fig.update_yaxes(**round_ticks(low, high), range=[log10(low), log10(high)])
    note = dict(showarrow=False, font_color=colours.MID_GREY, yref="paper", y=0.04)
    fig.add_annotation(text=tr("memory-bound"), x=log10(ridge / 3), **note)
    fig.add_annotation(text=tr("compute-bound"), x=log10(3 * ridge), **note)
    mark(fig, x=ridge)
