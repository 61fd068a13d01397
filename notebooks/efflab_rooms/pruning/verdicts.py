"""Notebook 11's verdicts: what each rests on. Their rules stand in data/rules.toml."""

from collections.abc import Mapping, Sequence

from efflab.estimate import Estimate, paired_difference
from efflab.lab import Evidence, Outcome, judge

RATIOS = (50, 80, 90)
"""Shares removed in the record, in per cent."""
CONTROL = "control, nothing removed: bits per byte above dense after the last round (by seed)"

# --- Raised step by step ---------------------------------------------------------------------

WAYS = {
    "drop": "{n}% removed: largest single drop, gradual minus one-shot (bits per byte, by seed)",
    "end": "{n}% removed: quality at the end, gradual minus one-shot (bits per byte, by seed)",
}


def largest_drop(rounds: Sequence[Mapping], dense: float) -> float:
    """The most bits per byte that one pruning step costs, before any training mends it."""
    levels = [dense, *(row["after"] for row in rounds)]
    return max(row["before"] - level for row, level in zip(rounds, levels, strict=False))


def bits_by_seed(record: Mapping, key: str, schedule: str, percent: int) -> list[float]:
    """Bits per byte of the largest "drop", or at the "end", seed by seed."""
    case, dense = (schedule, percent), record["settings"]["dense"]
    runs = [r for r in record["runs"] if (r["schedule"], round(100 * r["ratio"])) == case]
    rounds = [run["rounds"] for run in sorted(runs, key=lambda run: run["seed"])]
    return [largest_drop(r, dense) if key == "drop" else r[-1]["after"] for r in rounds]


def differences(record: Mapping, key: str, percent: int) -> list[float]:
    """Gradual minus one-shot, seed by seed."""
    pairs = [bits_by_seed(record, key, schedule, percent) for schedule in ("gradual", "one-shot")]
    return [gradual - one_shot for gradual, one_shot in zip(*pairs, strict=True)]


def gradual_evidence(record: Mapping) -> list[Evidence]:
    """From the recorded runs: drops and ends of the two schedules, seed by seed."""
    evidence = []
    for key, name in WAYS.items():
        for n in RATIOS:
            schedules = (bits_by_seed(record, key, s, n) for s in ("gradual", "one-shot"))
            difference = paired_difference(*schedules)
            evidence.append(Evidence.of(f"{key}-{n}", name, difference, "", "recorded", n=n))
    return [*evidence, control_evidence(record)]


def control_evidence(record: Mapping) -> Evidence:
    """What the training alone does to the model of which nothing is removed."""
    last = bits_by_seed(record, "end", "one-shot", 0)
    difference = paired_difference(last, [record["settings"]["dense"]] * len(last))
    return Evidence.of("control", CONTROL, difference, "", "recorded")


def prune_gradual(evidence) -> Outcome:
    """Whether raising the ratio step by step avoids a sudden drop in quality, and ends no worse."""
    remarks = {
        "drop": "removing in steps removes less at a time, so a smaller drop is almost certain; "
        "and three increments, with most removed in the second, are hardly gradual",
        "end": "both schedules train equally long; gradual has only one round left for the "
        "final network",
    }
    return judge("prune-gradual", evidence, remarks=remarks)


# --- Two or three rounds of fine-tuning --------------------------------------------------------

ABOVE_DENSE = "{n}% removed at once: bits per byte above dense after the last round (by seed)"
ABOVE_CONTROL = "{n}% removed at once: bits per byte above an equally trained control (by seed)"


def finetune_evidence(record: Mapping) -> list[Evidence]:
    """From the recorded runs of one-shot pruning: what is missing after the last round."""
    last = {n: bits_by_seed(record, "end", "one-shot", n) for n in (0, *RATIOS)}
    dense = [record["settings"]["dense"]] * len(last[0])
    ways = ("above-control", ABOVE_CONTROL, last[0]), ("above-dense", ABOVE_DENSE, dense)
    evidence = [
        Evidence.of(f"{key}-{n}", name, paired_difference(last[n], base), "", "recorded", n=n)
        for key, name, base in ways
        for n in RATIOS
    ]
    return [*evidence, control_evidence(record)]


def prune_finetune(evidence) -> Outcome:
    """Whether two or three rounds of fine-tuning recover a pruned model's quality."""
    remark = (
        "the rounds are short (40 steps of 8 x 128 tokens), and this training also makes the "
        "unpruned control worse, so the result reflects the training too"
    )
    return judge("prune-finetune", evidence, remarks={"recovers": remark})


# --- Less computation --------------------------------------------------------------------------

HEADS = "{n}% of the heads removed: time / whole model (by repeat)"
MASKED = "90% of the weights masked: time / whole model (by repeat)"
HEADS_FLOPS = "{n}% of the heads removed: FLOPs / whole model"
MASKED_FLOPS = "90% of the weights masked: FLOPs / whole model"
CSR = "CSR kernel at {n}% zeros: time / dense kernel (by repeat)"
CORES = "2:4 on sparse tensor cores: peak / dense (Mishra et al. 2021)"


def compute_evidence(
    *,
    heads: Mapping[int, Estimate],
    masked: Estimate,
    band: float,
    heads_flops: Mapping[int, float],
    masked_flops: float,
    csr: Mapping[int, Estimate],
) -> list[Evidence]:
    """Times and FLOPs over the whole model's, by per cent of the heads, and with masked weights.

    `band`: the times' A/A noise, by which their intervals are widened; `csr`: zeros (%) -> CSR
    kernel's time over the dense one's.
    """
    evidence = [
        Evidence.of("time-masked", MASKED, masked.with_noise(band), "x"),
        Evidence("flops-masked", MASKED_FLOPS, masked_flops, "x"),
        Evidence("two-four", CORES, 2, "x", "published"),
    ]
    for n, time in heads.items():
        key, ratio = f"flops-heads-{n}", heads_flops[n]
        evidence.append(Evidence.of(f"time-heads-{n}", HEADS, time.with_noise(band), "x", n=n))
        evidence.append(Evidence(key, HEADS_FLOPS, ratio, "x", values=dict(n=n)))
    csr_times = [Evidence.of(f"csr-{n}", CSR, time, "x", n=n) for n, time in csr.items()]
    return evidence + csr_times


def prune_compute(evidence) -> Outcome:
    """Whether removing small weights or heads reduces the computation."""
    remarks = {
        "heads": "attention's matrices hold 28% of this model's parameters: even without any heads "
        "it would still need almost two thirds of its FLOPs for a text of 128 tokens",
        "weights": "a dense kernel multiplies zeros too; a sparse kernel, or tensor cores made for "
        "2:4, can leave them out",
    }
    return judge("prune-compute", evidence, remarks=remarks)
