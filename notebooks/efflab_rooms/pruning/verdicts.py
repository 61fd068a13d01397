"""Notebook 11's verdicts, each a function of its evidence alone."""

from collections.abc import Mapping, Sequence
from itertools import product

from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, by_id

RATIOS = (90, 80, 50)
"""Shares removed in the record, in per cent; the one that decides first."""

# --- Raised step by step ---------------------------------------------------------------------

DROP = "{n}% removed: largest single drop, gradual less one-shot (bits per byte, by seed)"
END = "{n}% removed: quality at the end, gradual less one-shot (bits per byte, by seed)"
GRADUAL_RULE = (
    "it avoids a sudden drop if at every recorded ratio the largest single drop is smaller with "
    "95% confidence by seeds; without a condition if it then ends no worse; not if no drop is "
    "smaller; otherwise undecided"
)


def rounds_by_seed(record: Mapping, schedule: str, percent: int) -> list[list[dict]]:
    """The rounds of each recorded run that removed so much, in the order of the seeds."""
    key = (schedule, percent)
    runs = [r for r in record["runs"] if (r["schedule"], round(100 * r["ratio"])) == key]
    return [run["rounds"] for run in sorted(runs, key=lambda run: run["seed"])]


def largest_drop(rounds: Sequence[Mapping], dense: float) -> float:
    """The most bits per byte that one pruning step costs, before any training mends it."""
    levels = [dense, *(row["after"] for row in rounds)]
    return max(row["before"] - level for row, level in zip(rounds, levels, strict=False))


def gradual_evidence(record: Mapping) -> list[Evidence]:
    """From the recorded runs: drops and ends of the two schedules, seed by seed."""
    dense, evidence = record["settings"]["dense"], []
    ways = (
        ("drop", DROP, lambda rounds: largest_drop(rounds, dense)),
        ("end", END, lambda rounds: rounds[-1]["after"]),
    )
    for (key, name, bits), n in product(ways, RATIOS):
        gradual = map(bits, rounds_by_seed(record, "gradual", n))
        one_shot = map(bits, rounds_by_seed(record, "one-shot", n))
        difference = paired_difference(list(gradual), list(one_shot))
        evidence.append(Evidence.of(f"{key}-{n}", name, difference, "", "recorded", n=n))
    return evidence


def prune_gradual(evidence) -> Outcome:
    """Whether raising the ratio step by step avoids a sudden drop in quality."""
    items = by_id(evidence)
    drops = [items[f"drop-{n}"] for n in RATIOS]
    ends = [items[f"end-{n}"] for n in RATIOS]
    if all(drop.low > 0 for drop in drops):
        reason = "at every recorded ratio the largest drop is larger step by step"
        return Outcome(False, evidence, rule=GRADUAL_RULE, reason=reason)
    if not all(drop.high < 0 for drop in drops):
        reason = "the drops' difference lies within the seeds' spread at some ratio"
        return Outcome(None, evidence, rule=GRADUAL_RULE, reason=reason)
    if all(end.low <= 0 for end in ends):
        return Outcome(True, evidence, rule=GRADUAL_RULE)
    condition = "the drop itself has to be avoided: after as much training one-shot ends better"
    return Outcome(True, evidence, rule=GRADUAL_RULE, condition=condition)


# --- Two or three rounds of fine-tuning --------------------------------------------------------

RECOVERED = 0.05
ABOVE_DENSE = "{n}% removed at once: bits per byte above dense after the last round"
ABOVE_CONTROL = "{n}% removed at once: the same above a control trained as long"
CONTROL = "control, nothing removed: bits per byte above dense after the last round"
FINETUNE_RULE = (
    "a ratio is recovered if after the last round quality is within 0.05 bits per byte of the "
    "dense model with 95% confidence by seeds. The claim holds if all recorded ratios recover, on "
    "a condition if some do; undecided if none does but some lie that near to a control which the "
    "training itself makes worse; otherwise it does not hold"
)


def finetune_evidence(record: Mapping) -> list[Evidence]:
    """From the recorded runs of one-shot pruning: what is missing after the last round."""
    last = {
        n: [rounds[-1]["after"] for rounds in rounds_by_seed(record, "one-shot", n)]
        for n in (0, *RATIOS)
    }
    control, dense = last[0], [record["settings"]["dense"]] * len(last[0])
    ways = ("above-dense", ABOVE_DENSE, dense), ("above-control", ABOVE_CONTROL, control)
    evidence = [
        Evidence.of(f"{key}-{n}", name, paired_difference(last[n], base), "", "recorded", n=n)
        for (key, name, base), n in product(ways, reversed(RATIOS))
    ]
    return [
        *evidence,
        Evidence.of("control", CONTROL, paired_difference(control, dense), "", "recorded"),
    ]


def prune_finetune(evidence) -> Outcome:
    """Whether two or three rounds of fine-tuning recover a pruned model's quality."""
    items = by_id(evidence)
    back = [n for n in reversed(RATIOS) if items[f"above-dense-{n}"].high <= RECOVERED]
    near = [n for n in reversed(RATIOS) if items[f"above-control-{n}"].high <= RECOVERED]
    if len(back) == len(RATIOS):
        return Outcome(True, evidence, rule=FINETUNE_RULE)
    values = dict(n=", ".join(f"{n}%" for n in back or near))
    if back:
        condition = "no more than this is removed: {n}"
        return Outcome(True, evidence, rule=FINETUNE_RULE, condition=condition, values=values)
    if near and items["control"].low > 0:
        reason = "at {n} only against a control that this training itself makes worse"
        return Outcome(None, evidence, rule=FINETUNE_RULE, reason=reason, values=values)
    reason = "at every recorded ratio more is missing after three short rounds"
    return Outcome(False, evidence, rule=FINETUNE_RULE, reason=reason)


# --- Less computation --------------------------------------------------------------------------

CSR = "CSR kernel at {n}% zeros: time over the dense kernel's"
ZEROS = (50, 80, 90, 99)
COMPUTE_RULE = (
    "a way of pruning saves computation if its time is lower with 95% confidence and outside the "
    "A/A band. The claim holds if masked small weights and removed heads and neurons both save; on "
    "a condition if only removal does; not if neither does; undecided if removal lies within the "
    "noise"
)


def compute_evidence(
    *, masked: Estimate, removed: Estimate, heads: Estimate, flops: float, band: float, csr: Mapping
) -> list[Evidence]:
    """Times of 90% masked weights, removed heads and neurons, and heads alone, over the whole's.

    `flops`: over the whole model's, heads and neurons removed; `band`: A/A, 0.03 = 3 %; `csr`:
    zeros (%) -> CSR kernel's time over the dense one's.
    """
    both = "heads and neurons removed: time over the whole model's"
    weights = "90% of the weights masked: time over the whole model's"
    share = "heads and neurons removed: FLOPs over the whole model's"
    cores = "2:4 on sparse tensor cores: peak over dense (Mishra et al. 2021)"
    return [
        Evidence.of("time-both", both, removed, "x"),
        Evidence.of("time-masked", weights, masked, "x"),
        Evidence.of("time-heads", "heads removed: time over the whole model's", heads, "x"),
        Evidence("flops", share, flops, "x", "computed"),
        Evidence("band", "A/A band of these times", 100 * band, "±%"),
        *(Evidence.of(f"csr-{n}", CSR, csr[n], "x", n=n) for n in ZEROS if n in csr),
        Evidence("two-four", cores, 2, "x", "published"),
    ]


def prune_compute(evidence) -> Outcome:
    """Whether removing small weights or heads reduces the computation."""
    items = by_id(evidence)
    band = items["band"].value / 100
    masked, removed = (items[key].high < 1 - band for key in ("time-masked", "time-both"))
    if removed and masked:
        return Outcome(True, evidence, rule=COMPUTE_RULE)
    if removed:
        sparse = [n for n in ZEROS if f"csr-{n}" in items and items[f"csr-{n}"].high < 1]
        values = dict(n=min(sparse, default=0))
        condition = "whole heads or neurons are taken out, not masked"
        if sparse:
            condition = "whole units are taken out, or a sparse kernel meets {n}% zeros or more"
        return Outcome(True, evidence, rule=COMPUTE_RULE, condition=condition, values=values)
    if items["time-both"].low <= 1 + band:
        reason = "even with heads and neurons removed, the time lies within the noise here"
        return Outcome(None, evidence, rule=COMPUTE_RULE, reason=reason)
    reason = "neither masked weights nor removed units take less time"
    return Outcome(False, evidence, rule=COMPUTE_RULE, reason=reason)
