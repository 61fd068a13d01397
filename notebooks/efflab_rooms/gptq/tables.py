"""Notebook 10's published and recorded tables."""

from functools import lru_cache
from math import log

from efflab.data import published
from efflab.experiments import gptq_quality as experiment
from efflab.lab import tr
from efflab_rooms.gptq import layer as measure
from efflab_rooms.gptq import verdicts

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


def frontier() -> dict[tuple[str, int | None], list[tuple[float, float]]]:
    """(method, group size) -> (stored bits per weight, bits per byte added) at 2, 3 and 4 bits."""
    return {
        (method, group): [
            (
                bits_per_weight(measure.recorded_point(b, group, method)),
                added_bits(b, group, method),
            )
            for b in (2, 3, 4)
        ]
        for method in experiment.METHODS
        for group in (None, 64)
    }


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


def size_rows() -> list[dict]:
    """The whole model by calibration tokens: errors (%) on their own and held-out text, bits."""
    return [
        dict(n_tokens=p["n_tokens"], own=100 * p["own_error"], held_out=100 * p["layer_error"],
             bpb=p["bits_per_byte"])
        for p in measure.record()["sizes"]
    ]  # fmt: skip


def gptq_evidence(live: list[dict], broken: list[dict]) -> list:
    """What the verdict rests on: the record, `layer.again`'s rows and `layer.breaks`'."""
    errors, added = {}, {}
    for bits in experiment.BITS:
        rtn, gptq = (measure.recorded_point(bits, None, m) for m in experiment.METHODS)
        seeded = measure.seeded_points(bits)
        errors[bits] = [point["layer_error"] / rtn["layer_error"] for point in seeded]
        added[bits] = gptq["bits_per_byte"] - rtn["bits_per_byte"]
    nearest, ours = live
    return verdicts.gptq_evidence(
        errors, added, ours["error"] / nearest["error"], broken[2]["ratio"]
    )
