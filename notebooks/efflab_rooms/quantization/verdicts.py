"""Notebook 09's verdicts, what they rest on, and whether repeats agree with the record."""

import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from efflab.compression import packed
from efflab.config import PRESETS, ModelConfig
from efflab.estimate import Estimate
from efflab.experiments import int8_ranges as ranges
from efflab.experiments import int8_ranges_2 as more
from efflab.experiments.record import DECIMAL, agrees, read_record
from efflab.lab import Evidence, Outcome, by_id, judge
from efflab.model import Transformer

# --- int8-size -------------------------------------------------------------------------------

STORED = {
    "linear": ("linear layers, per channel", dict(embeddings=False, axis=0)),
    "all": ("linear layers and embeddings, per channel", dict(axis=0)),
    "groups": ("linear layers and embeddings, groups of 32", dict(group_size=32)),
}
"""Key of a file -> what it stores in few bits, and how that is quantized."""
FILE = "{model} in 8 bits ({stored}): bytes saved relative to fp32"
HALF = "{model} in 8 bits ({stored}): bytes saved relative to fp16"
TABLES = "embedding tables' share of MiniLM-L6's parameters"
MINILM = "MiniLM-L6"
SHAPES = {
    "bert-base": ("BERT-base", "all"),
    "gpt2": ("GPT-2", "all"),
    "gpt3-175b": ("GPT-3 175B", "linear"),
}
"""Shape whose file is computed -> the model's name, and the key of what it stores."""


def parts(model: Transformer) -> dict[str, int]:
    """Parameters by what quantization does to them: linear layers, embeddings, and the rest."""
    matrices = (packed.weight_matrices(model, embeddings=also) for also in (False, True))
    n_linear, n_both = (sum(w.numel() for w in group.values()) for group in matrices)
    return {
        "linear layers": n_linear,
        "embeddings (token, position, type)": n_both - n_linear,
        "biases and norms": sum(p.numel() for p in model.parameters()) - n_both,
    }


def file_sizes(model: Transformer, bits: int = 8) -> dict[str, tuple[float, int]]:
    """Key of `STORED` -> bytes of the model's file by the formula, and as written."""
    n_params, sizes = sum(parts(model).values()), {}
    for key, (_, options) in STORED.items():
        quantized = packed.quantize_weights(model, bits, **options)
        n = sum(math.prod(q.shape) for q in quantized.values())
        n_scales = sum(q.scale.numel() for q in quantized.values())
        formula = n * bits / 8 + 4 * n_scales + 4 * (n_params - n)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            sizes[key] = formula, packed.save_quantized(model, quantized, path)
    return sizes


def file_rows(model: Transformer, bits: int = 8) -> list[dict]:
    """What the model takes on disk, formula beside file: fp32, linear layers, embeddings too."""
    full = 4 * sum(parts(model).values())

    def row(name: str, formula: float, size: int | None, kind: str) -> dict:
        share = (formula if size is None else size) / full
        megabytes = {"formula (MB)": formula / 1e6, "file (MB)": size and size / 1e6}
        shares = {"size / fp32": share, "smaller by (%)": 100 - 100 * share}
        return {"stored": name, **megabytes, **shares, "kind": kind}

    sizes = file_sizes(model, bits)
    rows = [row(STORED[key][0], *both, "measured") for key, both in sizes.items()]
    return [row("everything in fp32", full, None, "computed"), *rows]


def smaller_by(config: ModelConfig, *, embeddings: bool = True, bits: int = 8) -> float:
    """Per cent of fp32's bytes that a model of this shape saves with a scale a channel.

    Nothing is allocated: the weights are on torch's "meta" device.
    """
    with torch.device("meta"):
        model = Transformer(config)
    n_params = sum(parts(model).values())
    matrices = packed.weight_matrices(model, embeddings=embeddings).values()
    n, n_scales = sum(w.numel() for w in matrices), sum(len(w) for w in matrices)
    return 100 - 100 * (n * bits / 8 + 4 * n_scales + 4 * (n_params - n)) / (4 * n_params)


def shape_savings() -> dict[str, float]:
    """`smaller_by` of the shapes that `size_evidence` wants."""
    return {
        name: smaller_by(PRESETS[name], embeddings=key == "all")
        for name, (_, key) in SHAPES.items()
    }


def size_evidence(
    sizes: Mapping[str, tuple[float, int]], parts: Mapping[str, int], shapes: Mapping[str, float]
) -> list[Evidence]:
    """What the verdict rests on: files at 8 bits (`file_sizes`), parameters by part, and
    `shape_savings`."""
    full = 4 * sum(parts.values())
    smaller = {key: round(100 - 100 * size / full, 3) for key, (_, size) in sizes.items()}
    tables = 100 * parts["embeddings (token, position, type)"] / sum(parts.values())
    half = 100 - 2 * (100 - smaller["all"])
    evidence = [
        Evidence("table-share", TABLES, tables, "%"),
        Evidence("half", HALF, half, "%", values=dict(model=MINILM, stored=STORED["all"][0])),
    ]
    for id, key in (("linear", "linear"), ("minilm", "all"), ("groups", "groups")):
        names = dict(model=MINILM, stored=STORED[key][0])
        evidence.append(Evidence.exact(id, FILE, smaller[key], "%", **names))
    for id, (model, key) in SHAPES.items():
        names = dict(model=model, stored=STORED[key][0])
        evidence.append(Evidence(id, FILE, shapes[id], "%", values=names))
    return evidence


def int8_size(evidence) -> Outcome:
    """Whether 8 bits make a model's file 75 % smaller."""
    share = by_id(evidence)["table-share"].value
    remarks = {
        "linear": "{share}% of this model's parameters are in embedding tables, which torch's "
        "tools leave in floating point; in models with large layers, that share is small",
        "tables": "relative to fp32, in which few models are stored today",
    }
    return judge("int8-size", evidence, remarks=remarks, values={"share": f"{share:.0f}"})


# --- int8-accuracy ---------------------------------------------------------------------------

CUT, LESS, LEAST = ranges.CUT  # the 99.9th percentile, the 99.99th and the 99.999th
WAYS = {
    ranges.MINMAX: "minmax",
    CUT: "cut",
    LESS: "cut-less",
    LEAST: "cut-least",
    ranges.SMOOTHED: "smoothed",
    ranges.DYNAMIC: "dynamic",
    ranges.BY_TOKEN: "by-token",
    ranges.APART: "apart",
    ranges.ONE_SCALE: "one-scale",
    ranges.SEVEN: "seven-bits",
}
"""Every recorded way to adjust the range, calibrated ones first: id of its evidence."""
CHANGE = "{way}: MRR change from fp32 (interval by text, widened to hold for all {n} ways)"
CONTROL = "control, {way}: MRR change from fp32 (interval by text)"
MEAN = "{way}: MRR change from fp32, {n} functions, mean of {draws} calibrations (by function)"
CONTROL_MORE = "control, {way}: MRR change from fp32, {n} functions (interval by function)"
COSINE = "{way}: cosine to fp32, 5th percentile (interval by text)"
SHARE = 0.01


@cache
def recorded_forms() -> dict[str, dict]:
    """The recorded runs by form; each difference is paired by text."""
    return ranges.by_form(read_record(ranges.NAME)["runs"])


@cache
def recorded_differences() -> dict[str, Estimate]:
    """What the registered record comes to (`int8_ranges_2.cases`)."""
    return more.cases(read_record(more.NAME)["runs"])


def accuracy_evidence(
    runs: Mapping[str, Mapping], differences: Mapping[str, Estimate]
) -> list[Evidence]:
    """What the verdict rests on: the recorded runs by form (`int8_ranges.by_form`), and
    `recorded_differences`."""
    n, n_functions = len(WAYS), f"{more.N_FUNCTIONS:,}"
    evidence = [_change(id, CHANGE, runs[form], n, way=form, n=n) for form, id in WAYS.items()]
    evidence.append(_change("control", CONTROL, runs[ranges.CONTROL], 1, way=ranges.CONTROL))
    for form in (CUT, ranges.SMOOTHED, ranges.APART):
        cosine = Estimate(*(runs[form][f"cosine p5{end}"] for end in ("", " low", " high")))
        key = f"{WAYS[form]}-cosine"
        evidence.append(Evidence.of(key, COSINE, cosine, "", "recorded", way=form))
    names = {"smoothed": MEAN, "control": CONTROL_MORE}
    draws = {"smoothed": dict(draws=more.N_CALIBRATIONS), "control": {}}
    for form, name in names.items():
        values = dict(way=more.FORMS[form], n=n_functions) | draws[form]
        key = f"{form}-{more.N_FUNCTIONS}"
        evidence.append(Evidence.of(key, name, differences[key], "%", "recorded", **values))
    return evidence


def _change(id: str, name: str, row: Mapping, n_intervals: int, **values) -> Evidence:
    """MRR minus fp32's in per cent of fp32's.

    Its 95 % interval over the texts is as wide as each of `n_intervals` needs to be for 95 % of
    all together (Bonferroni, normal).
    """
    normal = NormalDist()
    wider = normal.inv_cdf(1 - 0.025 / n_intervals) / normal.inv_cdf(0.975)
    value, *ends = (100 * row[f"mrr less fp32{e}"] / row["mrr fp32"] for e in ("", " low", " high"))
    low, high = (value + wider * (end - value) for end in ends)
    return Evidence(id, name, value, "%", "recorded", low, high, values)


def int8_accuracy(evidence) -> Outcome:
    """Whether adjusting the range keeps the accuracy of INT8."""
    calibrated = "one model; 1% is MLPerf's bar for INT8"
    remarks = {"calibrated": calibrated, "dynamic": "one model, nothing to calibrate"}
    return judge("int8-accuracy", evidence, remarks=remarks)


# --- Repeats ---------------------------------------------------------------------------------


def keeps_quality(row: dict) -> bool:
    """Whether an engine's MRR is at least 99 % of fp32's, the bar of the verdict."""
    return row["mrr"] >= (1 - SHARE) * row["mrr fp32"]


def cosines_agree(cosines: dict[str, Tensor]) -> bool:
    """Whether the means are within the recorded ones' standard deviation over texts."""
    old = recorded_forms()
    return all(
        agrees(values.mean().item(), old[form]["cosine mean"], old[form]["cosine sd"])
        for form, values in cosines.items()
    )


def qualities_agree(qualities: dict[str, tuple[dict, dict]]) -> bool:
    """Whether sizes here are the recorded ones, and mean cosines as near as texts are alike.

    A size is kept with four decimals. A mean over other texts, with other calibration, may be off
    by one standard deviation over the recorded texts.
    """
    return all(
        agrees(round(new["size"], 4), old["size"], DECIMAL)
        and agrees(new["cosine mean"], old["cosine mean"], texts_deviation(old))
        for old, new in qualities.values()
    )


def texts_deviation(row: dict) -> float:
    """Standard deviation of an engine's recorded cosine over the texts.

    Where a record keeps mean and 5th percentile alone, a normal distribution's: 1.645 of them lie
    between the two.
    """
    normal = (row["cosine mean"] - row["cosine p5"]) / 1.645
    return max(DECIMAL, row.get("cosine sd", normal))
