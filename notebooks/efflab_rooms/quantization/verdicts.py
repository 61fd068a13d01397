"""Notebook 09's verdicts, as functions of their figures alone."""

from collections.abc import Mapping
from statistics import NormalDist

from efflab.errors import require
from efflab.experiments import int8_ranges as ranges
from efflab.lab import Evidence, Outcome, by_id

# --- int8-size -------------------------------------------------------------------------------

STORED = {
    "all": "linear maps and tables, per channel",
    "linear": "linear maps, per channel",
    "groups": "linear maps and tables, groups of 32",
}
"""Id of its evidence -> how `grids.file_rows` calls what is stored."""
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


def size_evidence(rows: list[dict], parts: Mapping[str, int], large_share: float) -> list[Evidence]:
    """What the verdict rests on: files weighed (`grids.file_rows` at 8 bits), parameters by part.

    `large_share`: of a large model's parameters, those in its tables.
    """
    smaller = {row["stored"]: row["smaller by (%)"] for row in rows}
    tables = 100 * parts["tables (token, position, type)"] / sum(parts.values())
    half = 100 - 2 * (100 - smaller[STORED["all"]])
    large = "embedding tables' share of GPT-3 175B's parameters"
    return [
        *(Evidence(key, SMALLER[key], smaller[STORED[key]], "%") for key in STORED),
        Evidence("tables", TABLES, tables, "%", "computed"),
        Evidence("tables-large", large, 100 * large_share, "%", "computed"),
        Evidence("half", SMALLER["half"], half, "%", "computed"),
    ]


def int8_size(evidence) -> Outcome:
    """Whether 8 bits make a model's file 75 % smaller."""
    found = by_id(evidence)
    if found["linear"].value >= 74:
        return Outcome(True, evidence, rule=SIZE_RULE)
    if found["all"].value >= 74:
        return Outcome(
            True, evidence, rule=SIZE_RULE, values=dict(share=f"{found['tables'].value:.0f}"),
            condition="compared with fp32, and with the embedding tables in 8 bits too, which are "
            "{share}% of this model",
        )  # fmt: skip
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
    found = by_id(evidence)
    bar = -SHARE * found["fp32-mrr"].value
    intervals = {form: _at_once(found[key], len(WAYS)) for form, (key, _) in WAYS.items()}
    losing = [form for form, (_, high) in intervals.items() if high < bar]
    keeping = [form for form, (low, _) in intervals.items() if low >= bar]
    common = dict(rule=ACCURACY_RULE)
    if found["control"].high >= bar:
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
        return "outliers are multiplied apart, in floats; {n} ways of {all} are certain to keep it"
    return "the range is adjusted in one of {n} ways of {all}: their intervals lie above the bar"
