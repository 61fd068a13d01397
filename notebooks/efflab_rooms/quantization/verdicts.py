"""Notebook 09's verdicts, what they rest on, and whether repeats agree with the record."""

import math
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import NormalDist

from torch import Tensor

from efflab import cost
from efflab.compression import packed
from efflab.config import PRESETS
from efflab.errors import require
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import DECIMAL, agrees, read_record
from efflab.lab import Evidence, Outcome, by_id
from efflab.model import Transformer

# --- int8-size -------------------------------------------------------------------------------

STORED = {
    "linear": ("linear maps, per channel", dict(embeddings=False, axis=0)),
    "all": ("linear maps and tables, per channel", dict(axis=0)),
    "groups": ("linear maps and tables, groups of 32", dict(group_size=32)),
}
"""Id of its evidence -> what is stored in few bits, and how it is quantized."""
SMALLER = {
    "all": "smaller: linear maps and tables in 8 bits, a scale a channel",
    "linear": "smaller: linear maps alone in 8 bits, a scale a channel",
    "groups": "smaller: linear maps and tables in 8 bits, a scale for 32 weights",
    "half": "smaller than fp16's file: linear maps and tables in 8 bits",
}
TABLES = "embedding tables' share of MiniLM's parameters"
SIZE_RULE = (
    "75% smaller than fp32 is met from 74% on, the last per cent being scales, biases and norms. "
    "Holds if quantizing the linear maps alone does it; on a condition if the embedding tables "
    "have to be quantized too; not if that does not do it either"
)


def parts(model: Transformer) -> dict[str, int]:
    """Parameters by what quantization does to them: linear maps, tables, and the rest."""
    matrices = (packed.weight_matrices(model, embeddings=also) for also in (False, True))
    n_linear, n_both = (sum(w.numel() for w in group.values()) for group in matrices)
    return {
        "linear maps": n_linear,
        "tables (token, position, type)": n_both - n_linear,
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
    """What the model takes on disk, formula beside file: fp32, linear maps alone, tables too."""
    full = 4 * sum(parts(model).values())

    def row(name: str, formula: float, size: int | None, kind: str) -> dict:
        share = (formula if size is None else size) / full
        megabytes = {"formula (MB)": formula / 1e6, "file (MB)": size and size / 1e6}
        shares = {"of fp32": share, "smaller by (%)": 100 - 100 * share}
        return {"stored": name, **megabytes, **shares, "kind": kind}

    sizes = file_sizes(model, bits)
    rows = [row(STORED[key][0], *both, "measured") for key, both in sizes.items()]
    return [row("everything in fp32", full, None, "computed"), *rows]


def size_evidence(
    sizes: Mapping[str, tuple[float, int]], parts: Mapping[str, int]
) -> list[Evidence]:
    """What the verdict rests on: files at 8 bits (`file_sizes`), and parameters by part."""
    full = 4 * sum(parts.values())
    smaller = {key: round(100 - 100 * size / full, 3) for key, (_, size) in sizes.items()}
    tables = 100 * parts["tables (token, position, type)"] / sum(parts.values())
    gpt3, large = PRESETS["gpt3-175b"], "embedding tables' share of GPT-3 175B's parameters"
    large_tables = (gpt3.vocab_size + gpt3.max_len) * gpt3.d_model / cost.num_params(gpt3)
    half = 100 - 2 * (100 - smaller["all"])
    return [
        *(Evidence(key, SMALLER[key], smaller[key], "%") for key in ("all", "linear", "groups")),
        Evidence("tables", TABLES, tables, "%", "computed"),
        Evidence("tables-large", large, 100 * large_tables, "%", "computed"),
        Evidence("half", SMALLER["half"], half, "%", "computed"),
    ]


def int8_size(evidence) -> Outcome:
    """Whether 8 bits make a model's file 75 % smaller."""
    items = by_id(evidence)
    if items["linear"].value >= 74:
        return Outcome(True, evidence, rule=SIZE_RULE)
    if items["all"].value >= 74:
        values = dict(share=f"{items['tables'].value:.0f}")
        condition = (
            "compared with fp32, and with the embedding tables in 8 bits too, which are {share}% "
            "of this model"
        )
        return Outcome(True, evidence, rule=SIZE_RULE, condition=condition, values=values)
    reason = "scales and what stays in floats take too much"
    return Outcome(False, evidence, rule=SIZE_RULE, reason=reason)


# --- int8-accuracy ---------------------------------------------------------------------------

CUT, LESS, LEAST = ranges.CUT  # the 99.9th percentile, the 99.99th and the 99.999th
WAYS = {
    ranges.APART: ("apart", "dynamic, outliers apart in floats: MRR less fp32's"),
    ranges.SMOOTHED: ("smoothed", "static, smoothed: MRR less fp32's"),
    ranges.MINMAX: ("minmax", "static, least to largest value: MRR less fp32's"),
    ranges.DYNAMIC: ("dynamic", "dynamic, a scale a weight channel: MRR less fp32's"),
    ranges.BY_TOKEN: ("by-token", "dynamic, a scale a token too: MRR less fp32's"),
    ranges.ONE_SCALE: ("one-scale", "dynamic, one scale a weight: MRR less fp32's"),
    ranges.SEVEN: ("seven-bits", "dynamic, inputs in 7 bits: MRR less fp32's"),
    LEAST: ("cut-least", "static, cut at the 99.999th percentile: MRR less fp32's"),
    LESS: ("cut-less", "static, cut at the 99.99th percentile: MRR less fp32's"),
    CUT: ("cut", "static, cut at the 99.9th percentile: MRR less fp32's"),
}
"""Every recorded way to adjust the range: id and name of its evidence."""
COSINES = {
    ranges.SMOOTHED: ("smoothed-cosine", "static, smoothed: cosine's 5th percentile"),
    CUT: ("cut-cosine", "static, cut at the 99.9th percentile: cosine's 5th percentile"),
}
SHARE = 0.01
ACCURACY_RULE = (
    "accuracy is kept if retrieval's MRR is at least 99% of fp32's, MLPerf's bar for INT8, with "
    "95% confidence over the recorded functions and all recorded ways at once (intervals widened "
    "by Bonferroni). Holds if every way to adjust the range keeps it, on a condition if only some "
    "are certain to; not if every one falls below; undecided if none is certain to keep it, or if "
    "the control, whose range is never adjusted, is not certain to fall below"
)


@cache
def recorded_forms() -> dict[str, dict]:
    """The recorded runs by form; each difference is paired by text."""
    return ranges.by_form(read_record(ranges.NAME)["runs"])


def accuracy_evidence(runs: Mapping[str, Mapping]) -> list[Evidence]:
    """What the verdict rests on: the recorded runs by form (`int8_ranges.by_form`)."""

    def evidence(key: str, name: str, form: str, column: str) -> Evidence:
        row = runs[form]
        ends = row[f"{column} low"], row[f"{column} high"]
        return Evidence(key, name, row[column], "", "recorded", *ends)

    control = "control, range never adjusted: MRR less fp32's"
    base = runs[ranges.CONTROL]["mrr fp32"]
    return [
        *(evidence(*names, form, "mrr less fp32") for form, names in WAYS.items()),
        evidence("control", control, ranges.CONTROL, "mrr less fp32"),
        Evidence("fp32-mrr", "MRR of fp32", base, "", "recorded"),
        *(evidence(*names, form, "cosine p5") for form, names in COSINES.items()),
    ]


def int8_accuracy(evidence) -> Outcome:
    """Whether adjusting the range keeps the accuracy of INT8."""
    items = by_id(evidence)
    bar = -SHARE * items["fp32-mrr"].value
    intervals = {form: _at_once(items[key], len(WAYS)) for form, (key, _) in WAYS.items()}
    losing = [form for form, (_, high) in intervals.items() if high < bar]
    keeping = [form for form, (low, _) in intervals.items() if low >= bar]
    common = dict(rule=ACCURACY_RULE)
    if items["control"].high >= bar:
        reason = "without any adjusting it is kept as well: this test could not show a loss"
        return Outcome(None, evidence, reason=reason, **common)
    if len(losing) == len(WAYS):
        return Outcome(False, evidence, reason="every way to adjust loses more than 1%", **common)
    if not keeping:
        reason = "no way to adjust is certain to stay within 1% over these texts"
        return Outcome(None, evidence, reason=reason, **common)
    if len(keeping) == len(WAYS):
        return Outcome(True, evidence, **common)
    values = dict(n=len(keeping), all=len(WAYS))
    return Outcome(True, evidence, condition=_condition(keeping), values=values, **common)


def _at_once(item: Evidence, n: int) -> tuple[float, float]:
    """A 95 % interval as wide as n of them need to be for 95 % together (Bonferroni, normal)."""
    require(item.low is not None, item.id, item.low, "an interval: every way has one")
    normal = NormalDist()
    wider = normal.inv_cdf(1 - 0.025 / n) / normal.inv_cdf(0.975)
    low, high = (item.value + wider * (end - item.value) for end in (item.low, item.high))
    return low, high


def _condition(keeping: list[str]) -> str:
    """What is enough to keep accuracy, from the ways that are certain to."""
    one_scale, cut = (form in keeping for form in (ranges.ONE_SCALE, CUT))
    finer = all(form in keeping for form in WAYS if form not in (ranges.ONE_SCALE, CUT))
    if finer and cut:
        return "each weight channel has its own scale"
    if finer and one_scale:
        return "no outliers are cut off"
    if finer:
        return "each weight channel has its own scale and no outliers are cut off"
    if ranges.SMOOTHED in keeping:
        return "outliers are first moved into the weights (smoothing), which have a scale a channel"
    if ranges.APART in keeping:
        if LESS in keeping:
            return (
                "outliers are multiplied apart, in floats, or 0.01% of the values are cut off at "
                "either end; {n} ways of {all} are certain to keep it"
            )
        return "outliers are multiplied apart, in floats; {n} ways of {all} are certain to keep it"
    return "the range is adjusted in one of {n} ways of {all}: their intervals lie above the bar"


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
