"""Notebook 14's verdicts, as functions of their figures alone."""

from efflab.experiments.case_study_latency import OLDER
from efflab.lab import Evidence, Outcome, by_id

# --- ernie-dynamic ---------------------------------------------------------------------------

SHARE, MARGIN = 30, 0.05  # per cent of the FLOPs; bits per byte, as notebook 11 counts "recovered"
DYNAMIC_RULE = (
    "holds if a model that lost at least 30% of its FLOPs in attention is, after one round of "
    "tuning, within 0.05 bits per byte of the plain model tuned as long, with 95% confidence over "
    "seeds; on a condition if windows alone do not remove as much; not if it certainly stays "
    "further away; otherwise undecided"
)


def ernie_dynamic(evidence) -> Outcome:
    """Whether 30 % of a model's computation can leave with its attention, and quality stay."""
    found = by_id(evidence)
    tuned = found["tuned"]
    if found["gone"].value < SHARE:
        reason = "attention has not that much to give at this length"
        return Outcome(False, evidence, rule=DYNAMIC_RULE, reason=reason)
    if tuned.low > MARGIN:
        reason = "one round of tuning does not bring the quality back"
        return Outcome(False, evidence, rule=DYNAMIC_RULE, reason=reason)
    if tuned.high > MARGIN:
        reason = "seeds do not tell whether the quality comes back to within the margin"
        return Outcome(None, evidence, rule=DYNAMIC_RULE, reason=reason)
    if found["windows-alone"].value >= SHARE:
        return Outcome(True, evidence, rule=DYNAMIC_RULE)
    return Outcome(
        True, evidence, rule=DYNAMIC_RULE, values=dict(alone=f"{found['windows-alone'].value:.0f}"),
        condition="whole heads go as well and the rest is tuned: at this length windows alone "
        "remove at most {alone}%",
    )  # fmt: skip


# --- ernie-int8 ------------------------------------------------------------------------------

SMALLER, LATENCY = 74, 0.40  # per cent, as notebook 09 counts "75% smaller"; of fp32's time
TIMES = {
    "time-1": (1, None, "INT8's time over fp32's, OpenVINO, 1 text, all instructions"),
    "time-4": (4, None, "INT8's time over fp32's, OpenVINO, 4 texts, all instructions"),
    "time-1-older": (1, OLDER, "INT8's time over fp32's, OpenVINO, 1 text, without VNNI"),
    "time-4-older": (4, OLDER, "INT8's time over fp32's, OpenVINO, 4 texts, without VNNI"),
}
"""The model of this notebook: id -> texts, instructions left, name."""
ENCODER = {
    "minilm-16x128-vnni": (
        "16x128",
        True,
        "MiniLM: INT8's time over fp32's, OpenVINO, 16 texts of 128 tokens, CPU with VNNI",
    ),
    "minilm-4x64-vnni": (
        "4x64",
        True,
        "MiniLM: INT8's time over fp32's, OpenVINO, 4 texts of 64 tokens, CPU with VNNI",
    ),
    "minilm-1x16-vnni": (
        "1x16",
        True,
        "MiniLM: INT8's time over fp32's, OpenVINO, 1 text of 16 tokens, CPU with VNNI",
    ),
    "minilm-16x128-older": (
        "16x128",
        False,
        "MiniLM: INT8's time over fp32's, OpenVINO, 16 texts of 128 tokens, CPU without VNNI",
    ),
    "minilm-4x64-older": (
        "4x64",
        False,
        "MiniLM: INT8's time over fp32's, OpenVINO, 4 texts of 64 tokens, CPU without VNNI",
    ),
    "minilm-1x16-older": (
        "1x16",
        False,
        "MiniLM: INT8's time over fp32's, OpenVINO, 1 text of 16 tokens, CPU without VNNI",
    ),
}
"""ERNIE is an encoder, and so is this one: id -> texts x tokens, whether the CPU has VNNI, name."""
INT8_RULE = (
    "a quarter of the size is met from 74% smaller on, as in notebook 09, 60% lower latency where "
    "INT8 takes at most 0.40 of fp32's time in the same engine, with 95% confidence where an "
    "interval was recorded. Holds if the files and every recorded time meet it, this model's and "
    "an encoder's; on a condition if a BERT-base's weights do and some times; not if these weights "
    "do not, or no time can; otherwise undecided"
)


def ernie_int8(evidence) -> Outcome:
    """Whether INT8 makes a model a quarter of its size and takes 60 % off its latency."""
    found = by_id(evidence)
    times = [found[key] for key in (*TIMES, *ENCODER) if key in found]
    met = [time for time in times if _most(time) <= LATENCY]
    if found["bert-weights"].value < SMALLER:
        reason = "what stays in floats takes too much"
        return Outcome(False, evidence, rule=INT8_RULE, reason=reason)
    if not met and all(_least(time) > LATENCY for time in times):
        reason = "no recorded time falls so far: at best to {best} of fp32's"
        best = f"{min(time.value for time in times):.2f}"
        return Outcome(False, evidence, rule=INT8_RULE, reason=reason, values=dict(best=best))
    if not met:
        reason = "the recorded times are too uncertain to tell"
        return Outcome(None, evidence, rule=INT8_RULE, reason=reason)
    if len(met) == len(times) and found["files"].value >= SMALLER:
        return Outcome(True, evidence, rule=INT8_RULE)
    counts = dict(n=len(met), all=len(times))
    counts["encoder"] = sum(time.id in ENCODER for time in met)
    return Outcome(
        True, evidence, rule=INT8_RULE, values=counts,
        condition="the processor multiplies 8-bit integers in one instruction, and the model is so "
        "large that tables and graph do not count: {n} of {all} recorded times are met, {encoder} "
        "of them the encoder's",
    )  # fmt: skip


# --- fp16-int8 -------------------------------------------------------------------------------

KEPT = 1.0  # per cent, as MLPerf counts for INT8
RECIPE_RULE = (
    "quality is kept if bits per byte rise by at most 1% with 95% confidence over seeds; a half "
    "pays where it takes less time than what it replaces: fp32, on the H100 TF32. Holds if quality "
    "is kept and both halves pay in every recorded case; on a condition if each pays in some; not "
    "if quality is certainly lost or a half pays in none; otherwise undecided"
)


def fp16_int8(evidence) -> Outcome:
    """Whether 16 bits to train and INT8 to serve are the recipe."""
    found = by_id(evidence)
    quality = found["quality"]
    halves = (("step-cpu", "step-h100-32", "step-h100-4"), (*TIMES, *ENCODER))
    pays = [[_most(found[key]) < 1 for key in half if key in found] for half in halves]
    if quality.low > KEPT:
        reason = "quality is lost"
        return Outcome(False, evidence, rule=RECIPE_RULE, reason=reason)
    if not all(any(half) for half in pays):
        reason = "one half saves no time in any recorded case"
        return Outcome(False, evidence, rule=RECIPE_RULE, reason=reason)
    if quality.high > KEPT:
        reason = "seeds do not tell whether quality is kept"
        return Outcome(None, evidence, rule=RECIPE_RULE, reason=reason)
    if all(all(half) for half in pays):
        return Outcome(True, evidence, rule=RECIPE_RULE)
    counts = dict(train=sum(pays[0]), trains=len(pays[0]), serve=sum(pays[1]), serves=len(pays[1]))
    return Outcome(
        True, evidence, rule=RECIPE_RULE, values=counts,
        condition="the hardware computes in both formats and has enough to do: training pays in "
        "{train} of {trains} recorded cases, INT8 in {serve} of {serves}",
    )  # fmt: skip


def _most(item: Evidence) -> float:
    return item.value if item.high is None else item.high


def _least(item: Evidence) -> float:
    return item.value if item.low is None else item.low


# --- ernie-72h -------------------------------------------------------------------------------

ENOUGH, LEAST = 300, 100  # billions of tokens: GPT-3's; one for each parameter
HOURS_RULE = (
    "holds if the largest published cluster, at the best published utilization, trains 100 "
    "billion parameters on 300 billion tokens, as GPT-3's, in 72 hours; on a condition if on at "
    "least one token a parameter; not below that"
)


def ernie_72h(evidence) -> Outcome:
    """Whether 100 billion parameters can be trained in 72 hours."""
    found = by_id(evidence)
    tokens = found["tokens"].value
    if tokens >= ENOUGH:
        return Outcome(True, evidence, rule=HOURS_RULE)
    if tokens < LEAST:
        reason = "no published cluster comes to one token a parameter in that time"
        return Outcome(False, evidence, rule=HOURS_RULE, reason=reason)
    values = dict(tokens=f"{tokens:.0f}", n=f"{found['largest-run'].value:,.0f}",
                  u=f"{found['utilization'].value:.0f}")  # fmt: skip
    return Outcome(
        True, evidence, rule=HOURS_RULE, values=values,
        condition="it sees at most {tokens} billion tokens, on {n} A100s at {u}% of their peak; we "
        "found no source that gives the run's tokens, devices or utilization",
    )  # fmt: skip
