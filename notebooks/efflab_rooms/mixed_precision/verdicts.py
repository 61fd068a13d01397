"""Notebook 06's verdicts: rules fixed beforehand, outcomes from figures alone."""

from efflab import data
from efflab.acceleration import recipes
from efflab.acceleration.recipes import RECIPES
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.experiments import gpu_bench
from efflab.lab import Evidence, Outcome, by_id
from efflab_rooms.mixed_precision import measure

HALF = 0.6
"""What counts as a half: a saving of 40 % at least."""

# --- Memory ----------------------------------------------------------------------------------

MEMORY_NAMES = {
    "whole": "whole training step, the leanest mixed recipe over fp32",
    "batch": "kept for the backward pass, the leanest mixed recipe over fp32",
    "state": "model's state, the leanest mixed recipe over fp32",
    "whole-autocast": "whole training step, autocast over fp32",
    "formula": "whole step, measured over formula, furthest from 1",
    "published-batch": "batch that the published mixed runs used, at most",
    "tokens-halved": "tokens a step from which state and kept values are halved, without the loss",
}


def amp_memory(evidence) -> Outcome:
    """Mixed precision halves the memory that training needs."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    rule = (
        "holds if the leanest mixed recipe's measured step needs at most {half} % of fp32's bytes; "
        "on condition if only what the backward pass keeps falls that far; undecided if formula "
        "and measurement differ by over 20 %"
    )
    options = dict(rule=rule, values={"half": round(100 * HALF)})
    if abs(value["formula"] - 1) > 0.2:
        reason = "formula and measurement do not agree here"
        return Outcome(None, evidence, reason=reason, **options)
    if value["whole"] <= 100 * HALF:
        return Outcome(True, evidence, **options)
    if value["batch"] <= 100 * HALF:
        condition = (
            "memory means what is kept of a batch for the backward pass; the state of weights, "
            "gradients and Adam does not shrink"
        )
        return Outcome(True, evidence, condition=condition, **options)
    reason = "neither the whole step nor what the backward pass keeps falls to {half} %"
    return Outcome(False, evidence, reason=reason, **options)


def memory_evidence(batch_size: int, seq_len: int) -> list[Evidence]:
    """What the verdict on half the memory rests on."""
    names = ("fp32", *measure.MIXED_RECIPES)
    steps = {n: measure.totals(measure.step_bytes(n, batch_size, seq_len)) for n in names}
    formulas = {n: measure.totals(measure.formula_bytes(n, batch_size, seq_len)) for n in names}
    base = steps["fp32"]
    least = {part: min(steps[n][part] for n in measure.MIXED_RECIPES) / base[part] for part in base}
    autocast = steps["autocast"][measure.PEAK] / base[measure.PEAK]
    ratios = [steps[n][measure.PEAK] / formulas[n][measure.PEAK] for n in names]
    values = {
        "whole": (100 * least[measure.PEAK], "%"),
        "batch": (100 * least[measure.BACKWARD], "%"),
        "state": (100 * least["state"], "%"),
        "whole-autocast": (100 * autocast, "%"),
        "formula": (max(ratios, key=lambda r: abs(r - 1)), ""),
        "published-batch": (max(batch_gains()), "x", "published"),
        "tokens-halved": (min(half_tokens(n) for n in measure.MIXED_RECIPES), "tokens", "computed"),
    }
    return [Evidence(key, MEMORY_NAMES[key], *value) for key, value in values.items()]


def half_tokens(recipe: str, seq_len: int = 256) -> float:
    """Tokens from which stdlib-gpt's step needs at most `HALF` of fp32's bytes (inf: never).

    With S bytes of state and a a token: S' + a' n = HALF (S + a n), solved for n.
    """
    config, pair = PRESETS[measure.MODEL], (RECIPES["fp32"], RECIPES[recipe])
    full, mixed = (sum(recipes.state_parts(config, r).values()) for r in pair)
    full_token, mixed_token = (
        recipes.activation_bytes(config, seq_len, 1, r) / seq_len for r in pair
    )
    slope = HALF * full_token - mixed_token
    return float("inf") if slope <= 0 else max(0.0, (mixed - HALF * full) / slope)


# --- Speed -----------------------------------------------------------------------------------

SPEED_NAMES = {
    "a100-most": "A100, mixed over TF32, the most published",
    "a100-least": "A100, mixed over TF32, the least published",
    "a100-roofline": "A100, 16 bits over TF32, roofline at any shape",
    "a100-step": "A100, BERT-large's step over FP32, roofline",
    "v100-least": "V100, mixed over FP32, the least published",
    "v100-most": "V100, mixed over FP32, the most published",
    "bf16-here": "this CPU, bf16 autocast, times faster than fp32",
}


def amp_speed(evidence) -> Outcome:
    """Mixed precision is 3x faster on an A100's tensor cores."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    rule = (
        "holds if every published gain on an A100 over TF32 reaches 3; undecided if only some do; "
        "on condition if none does, but the A100's roofline over FP32 and every published gain "
        "over FP32 reach 3"
    )
    ends = dict(low=f"{value['a100-least']:.1f}", high=f"{value['a100-most']:.1f}")
    options = dict(rule=rule, values=ends)
    if value["a100-least"] >= 3:
        return Outcome(True, evidence, **options)
    if value["a100-most"] >= 3:
        return Outcome(None, evidence, reason="it depends on the model: {low} to {high}", **options)
    if min(value["a100-step"], value["v100-least"]) >= 3:
        condition = (
            "compared with FP32 without tensor cores; over TF32 on them, as NVIDIA's own runs "
            "compare, it is {low} to {high}"
        )
        return Outcome(True, evidence, condition=condition, **options)
    return Outcome(False, evidence, reason="over TF32 it is {low} to {high}", **options)


def speed_evidence(batch_size: int, seq_len: int) -> list[Evidence]:
    """Published gains, what the roofline allows, and this CPU."""
    tf32, fp32, a100 = gains("TF32", "A100"), gains("FP32", "V100"), "A100 80GB SXM"
    roof = max(measure.product_gain(n, a100, "tf32") for n in measure.SIZES)
    values = {
        "a100-most": (max(tf32), "published"),
        "a100-least": (min(tf32), "published"),
        "a100-roofline": (roof, "computed"),
        "a100-step": (measure.step_gain(a100, "fp32"), "computed"),
        "v100-least": (min(fp32), "published"),
        "v100-most": (max(fp32), "published"),
    }
    here = measure.step_times(batch_size, seq_len).ratios["autocast"]
    faster = Estimate(1 / here.mean, 1 / here.high, 1 / here.low)
    return [
        *(Evidence(key, SPEED_NAMES[key], x, "x", kind) for key, (x, kind) in values.items()),
        Evidence.of("bf16-here", SPEED_NAMES["bf16-here"], faster, "x"),
    ]


# --- Published runs --------------------------------------------------------------------------


def published_runs() -> list[dict]:
    """Rows of data/published/amp.csv with the gain: mixed over the baseline's throughput."""
    rows = data.read_published("amp")
    return [row | {"gain": row["mixed_per_second"] / row["baseline_per_second"]} for row in rows]


def gains(baseline: str, device: str = "") -> list[float]:
    """Published gains over one baseline ("TF32" or "FP32") on devices whose name begins so."""
    runs = [r for r in published_runs() if r["baseline"] == baseline]
    return [run["gain"] for run in runs if run["device"].startswith(device)]


def batch_gains() -> list[float]:
    """How many times the batch that the published mixed runs used, where both are given."""
    runs = [r for r in published_runs() if r["mixed_batch"]]
    return [run["mixed_batch"] / run["baseline_batch"] for run in runs]


# --- Recorded GPUs ---------------------------------------------------------------------------

DATASHEETS = {"H100 80GB": "H100 SXM", "A100-SXM4-80GB": "A100 80GB SXM", "V100-SXM2": "V100 SXM2"}
"""Part of the name by which CUDA calls a GPU -> its row among the devices."""


def gpu_product_rows() -> list[dict]:
    """bf16 over fp32 and over TF32 for square products, and what the datasheet's roof allows."""
    rows = []
    for gpu, part in gpu_bench.read_part(gpu_bench.PRODUCTS).items():
        speeds = {(row["n"], row["dtype"]): row["tflops"] for row in part["rows"]}
        device = next((ours for theirs, ours in DATASHEETS.items() if theirs in gpu), None)
        for n in dict.fromkeys(n for n, _ in speeds):
            row = {
                "device": gpu,
                "n": n,
                "TFLOP/s, bf16": speeds[n, "bf16"],
                "times fp32": speeds[n, "bf16"] / speeds[n, "fp32"],
                "its roof (computed)": device and measure.product_gain(n, device, "fp32"),
                "times TF32": speeds[n, "bf16"] / speeds[n, "tf32"],
                "TF32's roof (computed)": device and measure.product_gain(n, device, "tf32"),
            }
            rows.append(row)
    return rows


def gpu_step_rows() -> list[dict]:
    """A training step of 12 layers of 768 at 512 tokens: time over both baselines, peak bytes."""
    rows = []
    for gpu, part in gpu_bench.read_part(gpu_bench.STEP).items():
        steps = {(row["batch_size"], row["recipe"]): row for row in part["rows"] if row["ms"]}
        for (batch, recipe), step in sorted(steps.items()):
            fp32, tf32 = (steps.get((batch, name)) for name in ("fp32", "tf32"))
            row = {
                "device": gpu,
                "batch": batch,
                "precision": recipe,
                "ms": step["ms"],
                "times fp32": fp32 and fp32["ms"] / step["ms"],
                "times TF32": tf32 and tf32["ms"] / step["ms"],
                "what the batch takes / fp32": fp32 and step["mb_step"] / fp32["mb_step"],
            }
            rows.append(row)
    return rows
