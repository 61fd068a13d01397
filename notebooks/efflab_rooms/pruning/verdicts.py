"""Notebook 11's verdicts: what each rests on. Their rules stand in data/rules.toml."""

from collections.abc import Iterable, Mapping

from efflab.estimate import Estimate
from efflab.experiments.record import by_seed
from efflab.lab import Evidence, Outcome, judge

RATIOS = (50, 80, 90)
"""Shares removed in the record, in per cent."""
CONTROL = "control, nothing removed: bits per byte above dense after the last round (by seed)"

# --- Raised step by step ---------------------------------------------------------------------

WAYS = {
    "drop": "{n}% removed: largest single drop, gradual minus one-shot (bits per byte, by seed)",
    "end": "{n}% removed: bits per byte at the end, gradual minus one-shot (by seed)",
}


def differences(runs: Iterable[Mapping], key: str, percent: int) -> list[float]:
    """Gradual minus one-shot, seed by seed: of the largest "drop", or at the "end"."""
    runs = (run for run in runs if round(100 * run["ratio"]) == percent)
    values = by_seed(runs, "schedule", key)
    return [a - b for a, b in zip(values["gradual"], values["one-shot"], strict=True)]


def gradual_evidence(cases: Mapping[str, Estimate]) -> list[Evidence]:
    """From `pruning_recovery.cases`: drops and ends of the two schedules."""
    keys = [(key, n) for key in WAYS for n in RATIOS]
    pairs = [_from_case(f"{key}-{n}", WAYS[key], cases, n=n) for key, n in keys]
    return [*pairs, _from_case("control", CONTROL, cases)]


def _from_case(key: str, name: str, cases: Mapping[str, Estimate], **values) -> Evidence:
    return Evidence.of(key, name, cases[key], "", "recorded", **values)


def prune_gradual(evidence) -> Outcome:
    """Whether raising the ratio step by step avoids a sudden drop in quality, and ends no worse."""
    remarks = {
        "drop": "removing in steps removes less at a time, so a smaller drop is almost certain",
        "end": "both schedules train equally long; one-shot trains the final network for all 600 "
        "steps, gradual for the last 240",
    }
    return judge("prune-gradual", evidence, remarks=remarks)


# --- Two or three rounds of fine-tuning --------------------------------------------------------

ABOVE_CONTROL = "{n}% removed at once: bits per byte above an equally trained control (by seed)"


def finetune_evidence(cases: Mapping[str, Estimate]) -> list[Evidence]:
    """From `pruning_recovery.cases`: what one-shot pruning lacks after the last round."""
    pairs = [_from_case(f"above-control-{n}", ABOVE_CONTROL, cases, n=n) for n in (20, *RATIOS)]
    return [*pairs, _from_case("control", CONTROL, cases)]


def prune_finetune(evidence) -> Outcome:
    """Whether two or three rounds of fine-tuning recover a pruned model's quality."""
    remark = (
        "three rounds are a fifth of the model's own training; they leave the unpruned control "
        "where it was: what is missing is due to pruning, and more training may bring some back"
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
