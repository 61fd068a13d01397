"""Notebook 11's verdicts, each a function of its figures alone."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, paired
from efflab.lab import Figure, Outcome, by_name

RATIOS = (90, 80, 50)
"""Shares removed in the record, in per cent; the one that decides first."""

# --- Raised step by step ---------------------------------------------------------------------

DROP = {
    90: "90% removed: largest single drop, gradual less one-shot (bits per byte, by seed)",
    80: "80% removed: largest single drop, gradual less one-shot (bits per byte, by seed)",
    50: "50% removed: largest single drop, gradual less one-shot (bits per byte, by seed)",
}
END = {
    90: "90% removed: quality at the end, gradual less one-shot (bits per byte, by seed)",
    80: "80% removed: quality at the end, gradual less one-shot (bits per byte, by seed)",
    50: "50% removed: quality at the end, gradual less one-shot (bits per byte, by seed)",
}
GRADUAL_RULE = (
    "it avoids a sudden drop if at every recorded ratio the largest single drop is smaller with "
    "95% confidence by seeds; without a condition if it then ends no worse; not if no drop is "
    "smaller; otherwise undecided"
)


def largest_drop(rounds: Sequence[Mapping], dense: float) -> float:
    """The most bits per byte that one pruning step costs, before any training mends it."""
    levels = [dense, *(row["after"] for row in rounds)]
    return max(row["before"] - level for row, level in zip(rounds, levels, strict=False))


def gradual_figures(record: Mapping) -> list[Figure]:
    """From the recorded runs: drops and ends of the two schedules, seed by seed."""
    dense, figures = record["settings"]["dense"], []
    for text, value in ((DROP, lambda r: largest_drop(r, dense)), (END, lambda r: r[-1]["after"])):
        for n in RATIOS:
            runs = {(r["schedule"], r["seed"]): value(r["rounds"]) for r in record["runs"]
                    if round(100 * r["ratio"]) == n}  # fmt: skip
            seeds = sorted({seed for _, seed in runs})
            both = [[runs[schedule, s] for s in seeds] for schedule in ("gradual", "one-shot")]
            figures.append(Figure.of(text[n], paired(*both), "", "recorded"))
    return figures


def prune_gradual(figures) -> Outcome:
    """Whether raising the ratio step by step avoids a sudden drop in quality."""
    found = by_name(figures)
    drops = [found[DROP[n]] for n in RATIOS]
    ends = [found[END[n]] for n in RATIOS]
    if all(drop.low > 0 for drop in drops):
        reason = "each step of the gradual schedule drops further than one-shot's"
        return Outcome(False, figures, rule=GRADUAL_RULE, reason=reason)
    if not all(drop.high < 0 for drop in drops):
        reason = "the drops' difference lies within the seeds' spread at some ratio"
        return Outcome(None, figures, rule=GRADUAL_RULE, reason=reason)
    if all(end.low <= 0 for end in ends):
        return Outcome(True, figures, rule=GRADUAL_RULE)
    condition = "the drop itself has to be avoided: after as much training one-shot ends better"
    return Outcome(True, figures, rule=GRADUAL_RULE, condition=condition)


# --- Two or three rounds of fine-tuning --------------------------------------------------------

RECOVERED = 0.05
ABOVE_DENSE = {
    90: "90% removed at once: bits per byte above dense after the last round",
    80: "80% removed at once: bits per byte above dense after the last round",
    50: "50% removed at once: bits per byte above dense after the last round",
}
ABOVE_CONTROL = {
    90: "90% removed at once: the same above a control trained as long",
    80: "80% removed at once: the same above a control trained as long",
    50: "50% removed at once: the same above a control trained as long",
}
CONTROL = "control, nothing removed: bits per byte above dense after the last round"
FINETUNE_RULE = (
    "a ratio is recovered if after the last round quality is within 0.05 bits per byte of the "
    "dense model with 95% confidence by seeds. The claim holds if all recorded ratios recover, on "
    "a condition if some do; undecided if none does but some lie that near to a control which the "
    "training itself makes worse; otherwise it does not hold"
)


def finetune_figures(record: Mapping) -> list[Figure]:
    """From the recorded runs of one-shot pruning: what is missing after the last round."""
    dense = record["settings"]["dense"]
    last = {(round(100 * r["ratio"]), r["seed"]): r["rounds"][-1]["after"]
            for r in record["runs"] if r["schedule"] == "one-shot"}  # fmt: skip
    seeds = sorted({seed for _, seed in last})
    values = {n: [last[n, s] for s in seeds] for n in (0, *RATIOS)}
    base = [dense] * len(seeds)
    kind = ("", "recorded")
    figures = [Figure.of(ABOVE_DENSE[n], paired(values[n], base), *kind)
               for n in reversed(RATIOS)]  # fmt: skip
    figures += [Figure.of(ABOVE_CONTROL[n], paired(values[n], values[0]), *kind)
                for n in reversed(RATIOS)]  # fmt: skip
    return [*figures, Figure.of(CONTROL, paired(values[0], base), *kind)]


def prune_finetune(figures) -> Outcome:
    """Whether two or three rounds of fine-tuning recover a pruned model's quality."""
    found = by_name(figures)
    back = [n for n in reversed(RATIOS) if found[ABOVE_DENSE[n]].high <= RECOVERED]
    near = [n for n in reversed(RATIOS) if found[ABOVE_CONTROL[n]].high <= RECOVERED]
    if len(back) == len(RATIOS):
        return Outcome(True, figures, rule=FINETUNE_RULE)
    values = dict(n=", ".join(f"{n}%" for n in back or near))
    if back:
        condition = "no more than this is removed: {n}"
        return Outcome(True, figures, rule=FINETUNE_RULE, condition=condition, values=values)
    if near and found[CONTROL].low > 0:
        reason = "at {n} only against a control that this training itself makes worse"
        return Outcome(None, figures, rule=FINETUNE_RULE, reason=reason, values=values)
    reason = "at every recorded ratio more is missing after three short rounds"
    return Outcome(False, figures, rule=FINETUNE_RULE, reason=reason)


# --- Less computation --------------------------------------------------------------------------

MASKED = "90% of the weights masked: time over the whole model's"
REMOVED = "heads and neurons removed: time over the whole model's"
HEADS = "heads removed: time over the whole model's"
FLOPS = "heads and neurons removed: FLOPs over the whole model's"
BAND = "A/A band of these times"
CSR = {
    50: "CSR kernel at 50% zeros: time over the dense kernel's",
    80: "CSR kernel at 80% zeros: time over the dense kernel's",
    90: "CSR kernel at 90% zeros: time over the dense kernel's",
    99: "CSR kernel at 99% zeros: time over the dense kernel's",
}
TWO_OF_FOUR = "2:4 on sparse tensor cores: peak over dense (Mishra et al. 2021)"
ZEROS = (50, 80, 90, 99)
COMPUTE_RULE = (
    "a way of pruning saves computation if its time is lower with 95% confidence and outside the "
    "A/A band. The claim holds if masked small weights and removed heads and neurons both save; on "
    "a condition if only removal does; not if neither does; undecided if removal lies within the "
    "noise"
)


def compute_figures(
    times: Mapping[str, Estimate], flops: float, band: float, csr: Mapping[int, Estimate]
) -> list[Figure]:
    """`times`: "masked", "removed", "heads", over the whole model's; `csr`: zeros (%) -> time."""
    return [
        Figure.of(REMOVED, times["removed"], "x"),
        Figure.of(MASKED, times["masked"], "x"),
        Figure.of(HEADS, times["heads"], "x"),
        Figure(FLOPS, flops, "x", "computed"),
        Figure(BAND, 100 * band, "±%"),
        *(Figure.of(CSR[n], csr[n], "x") for n in ZEROS if n in csr),
        Figure(TWO_OF_FOUR, 2, "x", "published"),
    ]


def prune_compute(figures) -> Outcome:
    """Whether removing small weights or heads reduces the computation."""
    found = by_name(figures)
    band = found[BAND].value / 100
    masked, removed = (found[name].high < 1 - band for name in (MASKED, REMOVED))
    if removed and masked:
        return Outcome(True, figures, rule=COMPUTE_RULE)
    if removed:
        sparse = [n for n in ZEROS if CSR[n] in found and found[CSR[n]].high < 1]
        condition = "whole heads or neurons are taken out, not masked"
        if sparse:
            condition = "whole units are taken out, or a sparse kernel meets {n}% zeros or more"
        return Outcome(True, figures, rule=COMPUTE_RULE, condition=condition,
                       values=dict(n=min(sparse, default=0)))  # fmt: skip
    if found[REMOVED].low <= 1 + band:
        reason = "even with heads and neurons removed, the time lies within the noise here"
        return Outcome(None, figures, rule=COMPUTE_RULE, reason=reason)
    reason = "neither masked weights nor removed units take less time"
    return Outcome(False, figures, rule=COMPUTE_RULE, reason=reason)
