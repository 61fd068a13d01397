"""Notebook 00's explorer, the curves of attention's share."""

from functools import lru_cache

from efflab import bench, cost
from efflab.config import PRESETS, ModelConfig
from efflab.devices import DEVICES, Device
from efflab.errors import require_int, require_one_of
from efflab.lab import Choice, Slider, Toggle, colours, explorer, figures, number, tr
from efflab.lab.text import tr_name

THIS = "this computer"
PARTS = {
    "scores": "attention scores and values (n²)",
    "projections": "Q, K, V and output projections",
    "ffn": "feed-forward",
    "logits": "embedding and logits",
}
MODELS = ("stdlib-gpt", "bert-base", "gpt2", "gpt2-xl", "gpt3-175b")
LENGTHS = [round(2 ** (7 + i / 10)) for i in range(111)]


@lru_cache(maxsize=1)
def machine() -> Device:
    """This computer's roofs, measured once in a kernel (2 s)."""
    return bench.calibrate()


def part_bytes(config: ModelConfig, seq_len: int, value_bytes: float, fused: bool) -> dict:
    """Bytes that each part moves in one forward pass: weights once, inputs and outputs once.

    Fused attention (FlashAttention, SDPA) keeps the scores on the chip; otherwise they are written
    and read twice: before and after the softmax, the scale folded into the product.
    """
    C, F, E, L = config.d_model, config.d_ff, config.embed_dim, config.n_layer
    T, H, V = seq_len, config.n_head, config.vocab_size
    values = {
        "scores": L * (4 * T * C + (0 if fused else 4 * H * T * T)),
        "projections": L * (4 * C * C + 6 * T * C),
        "ffn": L * (2 * C * F + 2 * T * (C + F)),
        "logits": V * E + T * (E + V),
    }
    return {part: n * value_bytes for part, n in values.items()}


def part_seconds(config: ModelConfig, seq_len: int, device: Device, fused: bool = True) -> dict:
    """The least time that a device needs for each part, by its roofline, in 16 bits if it can."""
    dtype = "fp16" if "fp16" in device.peak_flops else "fp32"
    flops = cost.flops_by_part(config, seq_len)
    flops["logits"] += flops.pop("embedding")
    n_bytes = part_bytes(config, seq_len, 2 if dtype == "fp16" else 4, fused)
    return {p: cost.roofline_seconds(flops[p], n_bytes[p], device, dtype) for p in PARTS}


@explorer(
    seq_len=Slider(128, 2**17, 512, scale="log2", label="sequence length (tokens)"),
    model=Choice(MODELS, "bert-base", label="model"),
    device=Choice((THIS, "V100 SXM2", "A100 80GB SXM", "H100 SXM"), "A100 80GB SXM",
                  label="device"),
    fused=Toggle(True, label="fused attention"),
)  # fmt: skip
def where_it_goes(seq_len=512, model="bert-base", device="A100 80GB SXM", fused=True):
    """Least time by part, and attention's share of the layers' FLOPs over the length."""
    require_int("seq_len", seq_len)
    require_one_of("model", model, MODELS)
    require_one_of("device", device, (THIS, *DEVICES))
    config = PRESETS[model]
    roof = machine() if device == THIS else DEVICES[device]
    seconds = part_seconds(config, seq_len, roof, fused)
    total, share = sum(seconds.values()), cost.attention_share(config, seq_len)
    meta = {
        "seq_len": seq_len,
        "share": share,
        "crossing": cost.crossing_length(config, "linear"),
        "milliseconds": 1e3 * total,
        "scores_time_share": seconds["scores"] / total,
    }
    title = tr("{model}, {n} tokens on {device}: {time} at best", model=model,
               n=number(seq_len), device=tr_name(device), time=duration(total))  # fmt: skip
    if not fits(config, roof):
        title += "<br>" + tr("(its {gb} GB of weights do not fit into one of these)",
                             gb=number(2e-9 * cost.num_params(config)))  # fmt: skip
    titles = [tr("least time by part (computed)"), tr("n² share of the layers' FLOPs")]
    fig = figures.panels(titles, title, meta=meta, column_widths=[0.42, 0.58],
                         horizontal_spacing=0.13)  # fmt: skip
    fig.update_layout(height=430, margin_t=112, title=dict(y=0.95, yanchor="top"))
    _add_parts(fig, {part: s / total for part, s in seconds.items()}, row=1, col=1)
    add_share(fig, config, model, 0, row=1, col=2)
    _add_here(fig, seq_len, share, row=1, col=2)
    _add_crossing(fig, meta["crossing"], row=1, col=2)
    share_axes(fig, row=1, col=2)
    return fig


def _add_parts(fig, shares: dict[str, float], **where) -> None:
    """Each part's share of the time as a bar."""
    names = [tr(PARTS[part]).replace(" (", "<br>(") for part in shares]
    per_cent = [100 * share for share in shares.values()]
    fig.add_bar(
        x=per_cent, y=names, orientation="h", marker_color=figures.COLOURS[:4],
        text=[f"{p:.0f} %" for p in per_cent], textposition="auto", textangle=0,
        showlegend=False, **where,
    )  # fmt: skip
    fig.update_xaxes(title_text="%", range=[0, 105], **where)
    fig.update_yaxes(autorange="reversed", **where)


def _add_here(fig, seq_len: int, share: float, **where) -> None:
    """The chosen length on its model's curve."""
    position = "top left" if share < 0.85 else "bottom right"  # inside the panel
    fig.add_scatter(
        x=[seq_len], y=[100 * share], text=[f" {100 * share:.0f} % "], mode="markers+text",
        marker=dict(size=14, color=figures.COLOURS[1]), textposition=position, cliponaxis=False,
        showlegend=False, **where,
    )  # fmt: skip


def _add_crossing(fig, seq_len: int, **where) -> None:
    """The length at which the curve reaches one half."""
    marker = dict(symbol="diamond", size=11, color=colours.WHITE,
                  line=dict(width=2, color=figures.COLOURS[0]))  # fmt: skip
    fig.add_scatter(x=[seq_len], y=[50], mode="markers", marker=marker, showlegend=False, **where)


def duration(seconds: float) -> str:
    """Seconds or milliseconds, whichever reads better."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"


def fits(config: ModelConfig, device: Device) -> bool:
    """Whether the weights, 2 bytes each, fit into the device's memory."""
    return device.memory_bytes is None or 2 * cost.num_params(config) <= device.memory_bytes


@lru_cache(maxsize=16)
def share_curve(config: ModelConfig) -> list[float]:
    """The quadratic part's share, in per cent, at each of `LENGTHS`."""
    return [100 * cost.attention_share(config, n) for n in LENGTHS]


def add_share(fig, config: ModelConfig, name: str, i: int, *, row=None, col=None) -> None:
    """One model's share of the quadratic part over the length, in per cent."""
    fig.add_scatter(
        x=LENGTHS, y=share_curve(config), name=name, mode="lines", row=row, col=col,
        showlegend=col is None,
        line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i], width=2.5),
    )  # fmt: skip


def share_axes(fig, *, row=None, col=None) -> None:
    """Lengths as powers of two, shares from 0 to 100 %, a line at one half."""
    ticks = [2**n for n in range(7, 19, 2)]
    names = [f"{n}" if n < 1024 else f"{n // 1024}k" for n in ticks]
    fig.update_xaxes(type="log", tickvals=ticks, ticktext=names, range=[2.05, 5.45],
                     title_text=tr("sequence length (tokens)"), row=row, col=col)  # fmt: skip
    fig.update_yaxes(range=[0, 100], title_text="%", row=row, col=col)
    fig.add_hline(50, line=dict(color=colours.DARK, dash="dot", width=1), row=row, col=col)


CROSSING_MODELS = {
    "BERT-base, GPT-2 (768 channels)": ("bert-base", "gpt2"),
    "GPT-2 XL (1,600 channels)": ("gpt2-xl",),
    "GPT-3 175B (12,288 channels)": ("gpt3-175b",),
}


def attention_shares():
    """The n² part's share of the layers' FLOPs; dots: equal to the FFN, to everything else.

    The hollow square is the longest sequence that a released model takes.
    """
    title = tr("The n² part takes over far beyond these models' own context (computed)")
    fig = figures.blank(title, height=460)
    for i, (label, names) in enumerate(CROSSING_MODELS.items()):
        config, colour = PRESETS[names[0]], figures.COLOURS[i]
        add_share(fig, config, tr(label), i)
        crossings = [cost.crossing_length(config, against) for against in ("ffn", "linear")]
        fig.layout.meta |= {f"{names[0]}: ffn": crossings[0], f"{names[0]}: linear": crossings[1]}
        own = [PRESETS[name].max_len for name in names]
        points = [*own, *crossings]
        fig.add_scatter(
            x=points, y=[100 * cost.attention_share(config, n) for n in points],
            text=[""] * len(own) + [f"{n:,}" for n in crossings], textfont_color=colour,
            mode="markers+text", textposition="top left", showlegend=False,
            marker=dict(symbol=["square-open"] * len(own) + ["circle", "diamond"], size=10,
                        color=colour, line=dict(width=2, color=colour)),
        )  # fmt: skip
    keys = {"square-open": "the model's own longest input", "circle": "scores = feed-forward"}
    keys |= {"diamond": "scores = all else in the layers"}
    for symbol, text in keys.items():
        marker = dict(
            symbol=symbol, size=10, color=colours.DARK, line=dict(width=2, color=colours.DARK)
        )
        fig.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=tr(text))
    share_axes(fig)
    fig.update_yaxes(title_text=tr("n² share of the layers' FLOPs") + " (%)")
    fig.update_layout(legend=dict(x=0.01, y=0.99, yanchor="top"))
    return fig


def crossing_rows() -> list[dict]:
    """For each preset: where the n² part overtakes, in FLOPs and in stored activations.

    Activations: s b h (34 + 5 a s / h) a layer in 16 bits with dropout, scores kept, so that the
    quadratic half overtakes at s = 34 h / 5 a (Korthikanti et al. 2022, Table 2). Without dropout
    it would be s b h (32 + 2 a s / h), equal at s = 16 h / a.
    """
    rows = []
    for name in ("bert-base", "gpt2", "gpt2-xl", "gpt3-175b"):
        c = PRESETS[name]
        own = 100 * cost.attention_share(c, c.max_len)
        rows.append(dict(
            model=name, max_len=c.max_len, own=f"{own:.0f}%",
            ffn=cost.crossing_length(c, "ffn"), linear=cost.crossing_length(c, "linear"),
            memory=round(34 * c.head_dim / 5), kind="computed",
        ))  # fmt: skip
    return rows


CROSSING_COLUMNS = {
    "model": "model",
    "max_len": "longest input (tokens)",
    "own": "n² share there",
    "ffn": "n² = feed-forward at (tokens)",
    "linear": "n² = all else at (tokens)",
    "memory": "n² = half of stored bytes at (tokens)",
    "kind": "kind",
}
