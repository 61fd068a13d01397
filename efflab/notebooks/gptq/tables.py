"""Notebook 10's published and recorded tables and figures, and its verdict."""

from functools import lru_cache
from math import log

from efflab.data import published
from efflab.experiments import gptq_quality as experiment
from efflab.lab import figures, tr
from efflab.notebooks.gptq import layer as measure

N_LAYER_WEIGHTS = 6 * 12 * 192**2


@lru_cache(maxsize=1)
def perplexities() -> dict[tuple, float]:
    """The paper's OPT and BLOOM models: {(model, bits, method): WikiText2 perplexity}."""
    rows = published("gptq")
    return {(r["model"], r["bits"], r["method"]): r["perplexity"] for r in rows}


def shape_rows() -> list[dict]:
    """Loss that quantization adds, a scale for each row: the paper's OPT and BLOOM, and ours.

    The paper's in nats a token (logarithm of the perplexities' ratio), ours in bits per byte: only
    the last column compares.
    """
    rows = []
    for name in dict.fromkeys(model for model, _, _ in perplexities()):
        full = perplexities()[name, 16, "full"]
        added = {m: log(perplexities()[name, 4, m] / full) for m in experiment.METHODS}
        rows.append(_shape_row(name, 4, added, "published"))
    for bits in (4, 3, 2):
        added = {m: added_bits(bits, None, m) for m in experiment.METHODS}
        rows.append(_shape_row("stdlib-gpt", bits, added, "recorded"))
    return rows


def _shape_row(model: str, bits: int, added: dict, kind: str) -> dict:
    ratio = added["gptq"] / added["rtn"] if added["rtn"] > 0 else None
    return dict(model=model, bits=bits, **added, ratio=ratio, kind=kind)


SHAPE_COLUMNS = {
    "model": "model",
    "bits": "bits",
    "rtn": "added by rounding to nearest",
    "gptq": "added by GPTQ",
    "ratio": "GPTQ / round to nearest",
    "kind": "kind",
}


def added_bits(bits: int, group_size: int | None, method: str) -> float:
    """Recorded bits per byte over fp32."""
    point = measure.recorded_point(bits, group_size, method)
    return point["bits_per_byte"] - measure.record()["full"]["bits_per_byte"]


def bits_per_weight(point: dict) -> float:
    """Stored bits, scales and zero points included, for each weight that was quantized."""
    rest = measure.record()["full"]["nbytes"] - 4 * N_LAYER_WEIGHTS
    return 8 * (point["nbytes"] - rest) / N_LAYER_WEIGHTS


def language_rows() -> list[dict]:
    """`stdlib-gpt` by bits and group size: bits per byte and the layers' errors, both methods."""
    rows = []
    for bits in experiment.BITS:
        for group in experiment.GROUPS:
            rtn, gptq = (measure.recorded_point(bits, group, m) for m in experiment.METHODS)
            rows.append(dict(bits=bits, group=group or tr("row"), size=bits_per_weight(gptq),
                             rtn=rtn["bits_per_byte"], gptq=gptq["bits_per_byte"],
                             rtn_error=100 * rtn["layer_error"],
                             gptq_error=100 * gptq["layer_error"], kind="recorded"))  # fmt: skip
    return rows


LANGUAGE_COLUMNS = {
    "bits": "bits",
    "group": "group size",
    "size": "bits per weight",
    "rtn": "bits per byte, nearest",
    "gptq": "bits per byte, GPTQ",
    "rtn_error": "layers' error, round to nearest (%)",
    "gptq_error": "layers' error, GPTQ (%)",
    "kind": "kind",
}


def frontier_figure():
    """What quantization adds to the loss, over the bits that a weight really takes."""
    title = tr("stdlib-gpt: what few bits cost (recorded)")
    axes = tr("bits per weight, scales included"), tr("bits per byte added to fp32")
    fig = figures.blank(title, *axes)
    for i, method in enumerate(experiment.METHODS):
        for j, group in enumerate((None, 64)):
            points = [measure.recorded_point(b, group, method) for b in (2, 3, 4)]
            scales = tr("groups of {n}", n=group) if group else tr("a scale for each row")
            name = tr("{method}, {scales}", method=tr(measure.METHOD_NAMES[method]), scales=scales)
            fig.add_scatter(x=[bits_per_weight(p) for p in points],
                            y=[added_bits(p["bits"], group, method) for p in points],
                            name=name, mode="lines+markers",
                            line=dict(color=figures.COLOURS[i], dash=figures.DASHES[j]),
                            marker=dict(symbol=figures.MARKERS[i], size=8))  # fmt: skip
    figures.log_axis(fig, [v for trace in fig.data for v in trace.y])
    meta = {tr("3 bits, GPTQ"): added_bits(3, None, "gptq"),
            tr("4 bits, round to nearest"): added_bits(4, None, "rtn"),
            tr("8 bits, GPTQ"): added_bits(8, None, "gptq"),
            tr("8 bits, round to nearest"): added_bits(8, None, "rtn")}  # fmt: skip
    return fig.update_layout(meta=meta, legend=dict(x=1, xanchor="right", y=1))


def encoder_rows() -> list[dict]:
    """MiniLM: cosine to its fp32 embeddings and retrieval, by bits, group size and method."""
    full = dict(bits=32, group="-", method="fp32", mean=1.0, p5=1.0, least=1.0,
                mrr=measure.record()["full"]["mrr"], kind="recorded")  # fmt: skip
    return [full] + [
        dict(bits=p["bits"], group=p["group_size"] or tr("row"),
             method=measure.METHOD_NAMES[p["method"]], mean=p["cosine_mean"], p5=p["cosine_p5"],
             least=p["cosine_min"], mrr=p["mrr"], kind="recorded")
        for p in measure.record()["encoder"]
    ]  # fmt: skip


ENCODER_COLUMNS = {
    "bits": "bits",
    "group": "group size",
    "method": "method",
    "mean": "cosine, mean",
    "p5": "cosine, 5th percentile",
    "least": "cosine, minimum",
    "mrr": "retrieval (MRR)",
    "kind": "kind",
}


def option_rows() -> list[dict]:
    """The whole model at 3 bits, a scale for each row: other data, other options."""
    plain, record = measure.recorded_point(3, None, "gptq"), measure.record()
    rows = [(tr("{n} tokens of library code", n=f"{experiment.N_TOKENS:,}"), plain)]
    rows.append((tr("calibrated on prose"), _only(record["sources"], source="prose")))
    rows.append((tr("calibrated on random tokens"), _only(record["sources"], source="random")))
    rows += [(tr(p["variant"]), p) for p in record["variants"]]
    nearest = measure.recorded_point(3, None, "rtn")["bits_per_byte"]
    return [dict(what=name, rtn=p.get("rtn_bits_per_byte", nearest), bpb=p["bits_per_byte"],
                 error=100 * p["layer_error"], kind="recorded") for name, p in rows]  # fmt: skip


OPTION_COLUMNS = {
    "what": "GPTQ, 3 bits, a scale for each row",
    "rtn": "bits per byte, nearest",
    "bpb": "bits per byte, GPTQ",
    "error": "layers' error, GPTQ (%)",
    "kind": "kind",
}


def _only(points: list[dict], **where) -> dict:
    (found,) = [p for p in points if all(p[k] == v for k, v in where.items())]
    return found


def sizes_figure():
    """The whole model over the amount of calibration data: layers' errors and bits per byte."""
    points = measure.record()["sizes"]
    x = [p["n_tokens"] for p in points]
    own, held_out = tr("layers' error, calibration text"), tr("layers' error, held-out text")
    titles = [tr("error of the layers' outputs (%)"), tr("bits per byte")]
    meta = {tr("{n} tokens: bits per byte", n=f"{p['n_tokens']:,}"): p["bits_per_byte"]
            for p in points}  # fmt: skip
    title = tr("How much calibration data (3 bits, recorded)")
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.12)
    lines = [
        (own, [100 * p["own_error"] for p in points], 1),
        (held_out, [100 * p["layer_error"] for p in points], 1),
        (tr("whole model, held-out text"), [p["bits_per_byte"] for p in points], 2),
    ]
    for i, (name, y, column) in enumerate(lines):
        fig.add_scatter(x=x, y=y, name=name, mode="lines+markers", row=1, col=column,
                        line=dict(color=figures.COLOURS[i], dash=figures.DASHES[i]),
                        marker=dict(symbol=figures.MARKERS[i], size=8))  # fmt: skip
    base = measure.recorded_point(3, None, "rtn")
    figures.mark(fig, tr("round to nearest"), y=100 * base["layer_error"], row=1, col=1)
    figures.mark(fig, tr("round to nearest"), y=base["bits_per_byte"], row=1, col=2)
    fig.update_xaxes(type="log", title_text=tr("calibration tokens"), tickvals=x,
                     ticktext=[f"{v:,}" for v in x])  # fmt: skip
    return fig.update_layout(legend=dict(orientation="h", y=-0.25), margin_b=96)


def gptq_verdict(live: list[dict], bits: int = 3) -> dict:
    """Arguments of the verdict: `live` are the rows of `measure.again`, the rest is recorded."""
    nearest, ours = live
    pairs = {(b, g): [added_bits(b, g, m) for m in experiment.METHODS]
             for b in experiment.BITS for g in experiment.GROUPS}  # fmt: skip
    holds = bits == 8 or (ours["error"] < nearest["error"] and ours["bpb"] < nearest["bpb"])
    holds &= all(gptq < rtn for (b, _), (rtn, gptq) in pairs.items() if b < 8)
    figures_ = {
        "bits": bits,
        "layers' error, round to nearest (%)": round(nearest["error"], 2),
        "layers' error, GPTQ (%)": round(ours["error"], 2),
        "bits per byte added, round to nearest": round(nearest["added"], 3),
        "bits per byte added, GPTQ": round(ours["added"], 3),
        "8 bits: bits per byte added, round to nearest (recorded)": round(pairs[8, None][0], 4),
        "8 bits: bits per byte added, GPTQ (recorded)": round(pairs[8, None][1], 4),
    }
    condition = "at 4 bits and below, with more calibration tokens than the layer has inputs"
    return dict(holds=holds, figures=figures_, kind="measured", condition=condition)
