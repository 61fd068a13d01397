"""Notebook 06's verdicts: counted bytes, published tables, and what GPUs have recorded."""

import re
from collections.abc import Mapping, Sequence

from efflab import data
from efflab.bench import Comparison
from efflab.estimate import Estimate
from efflab.experiments import gpu_bench
from efflab.lab import Evidence, Outcome, by_id, judge, number
from efflab_rooms.mixed_precision import measure

# --- Memory ----------------------------------------------------------------------------------

Steps = Mapping[tuple[int, int, str], Mapping[str, float]]
"""`measure.totals` by (tokens a step, tokens a chunk of the loss, recipe)."""
PARTS = {"step": measure.PEAK, "kept": measure.BACKWARD}
MEMORY_NAMES = {
    "step": "whole step of {n} tokens, master weights / fp32",
    "kept": "kept for the backward pass of {n} tokens, master weights / fp32",
    "step-chunks": "whole step of {n} tokens, loss in chunks, master weights / fp32",
    "kept-chunks": "kept for the backward pass of {n} tokens, loss in chunks, "
    "master weights / fp32",
    "step-autocast": "whole step of {n} tokens, autocast / fp32",
    "kept-autocast": "kept for the backward pass of {n} tokens, autocast / fp32",
}


def amp_memory(evidence) -> Outcome:
    """Mixed precision halves the memory that training needs."""
    remarks = {
        "step": "the state and the fp32 logits of the loss do not shrink; with the loss in chunks "
        "the share falls towards half as the batch grows",
        "state": "weights, gradients and Adam take 16 bytes per parameter in fp32 and in either "
        "mixed recipe; autocast adds its 16-bit copies to what it keeps",
    }
    return judge("amp-memory", evidence, remarks=remarks)


def memory_evidence(steps: Steps, batches: Sequence[float]) -> list[Evidence]:
    """Per cent of fp32's bytes by `measure.grown_steps`; `batches`: published gains in batch."""
    most = max(tokens for tokens, *_ in steps)
    state = steps[most, 0, "master weights"]["state"] / steps[most, 0, "fp32"]["state"]
    published = "largest batch ratio in published runs, mixed / baseline"
    checked = "kept for the backward pass, counted / formula, furthest from 1"
    return [
        *(share for case in steps if case[2] != "fp32" for share in share_evidence(steps, *case)),
        Evidence.exact("state", "the model's state, master weights / fp32", 100 * state, "%"),
        Evidence.exact("formula", checked, counted_over_formula(steps)),
        Evidence("published-batch", published, max(batches), "x", "published"),
    ]


def share_evidence(steps: Steps, tokens: int, chunk: int, recipe: str) -> list[Evidence]:
    """What one step of a mixed recipe takes of fp32's bytes, the whole and what it keeps."""
    mixed, full = steps[tokens, chunk, recipe], steps[tokens, chunk, "fp32"]
    way = "-chunks" if chunk else "-autocast" if recipe == "autocast" else ""
    return [
        Evidence.exact(
            f"{key}-{tokens // 1000}k{way}",
            MEMORY_NAMES[key + way],
            100 * mixed[part] / full[part],
            "%",
            n=f"{tokens:,}",
        )
        for key, part in PARTS.items()
    ]


def counted_over_formula(steps: Steps) -> float:
    """Bytes that are kept for the backward pass, counted / formula, furthest from 1."""
    ratios = []
    for (tokens, chunk, recipe), parts in steps.items():
        if not chunk:  # the formula's loss is whole
            formula = measure.formula_bytes(recipe, tokens // measure.LENGTH, measure.LENGTH)
            ratios.append(parts[measure.BACKWARD] / formula[measure.BACKWARD])
    return max(ratios, key=lambda ratio: abs(ratio - 1))


# --- Speed -----------------------------------------------------------------------------------

RUN = "speed-up, {task}, {model}, {n} x {device}: mixed precision / {baseline}"
RUN_AT = "speed-up, {task}, {model}, {length} tokens, {n} x {device}: mixed precision / {baseline}"


def amp_speed(evidence) -> Outcome:
    """Mixed precision is 3x faster on an A100's tensor cores."""
    value = {key: item.value for key, item in by_id(evidence).items()}
    remarks = {
        "a100": "TF32 runs on the tensor cores too; by the roofline, 16 bits are at most {roof} "
        "times as fast at any shape",
        "fp32": "no published row compares an A100 with its own FP32; its roofline allows {step}x",
        "h100": "a training step was {small} times as fast with 4 sequences and {large} with 32, "
        "by medians without intervals, so they decide nothing",
    }
    keys = dict(roof="a100-roofline", step="a100-step", small="h100-step-4", large="h100-step-32")
    values = {name: number(value[key]) for name, key in keys.items()}
    return judge("amp-speed", evidence, remarks=remarks, values=values)


def speed_evidence(runs: Sequence[dict], gpu: Sequence[Sequence[dict]], here: Comparison) -> list:
    """Published runs with their gains, rooflines, a recorded GPU's rows, and this CPU.

    `gpu`: rows of products and of training steps as `gpu_bench` records them; `here`: training
    steps of this CPU over fp32's.
    """
    a100 = "A100 80GB SXM"
    roof = max(measure.product_gain(n, a100, "tf32") for n in measure.SIZES)
    step = measure.step_gain(a100, "fp32")
    at_best = "largest speed-up by the roofline, any shape, A100, 16 bits / TF32"
    whole = "speed-up by the roofline, BERT-large step, A100, 16 bits / FP32"
    ratio = here.ratios["autocast"]
    faster = Estimate(1 / ratio.mean, 1 / ratio.high, 1 / ratio.low)
    name = "speed-up, training step, this CPU, bf16 autocast / fp32"
    return [
        *map(run_evidence, runs),
        Evidence("a100-roofline", at_best, roof, "x"),
        Evidence("a100-step", whole, step, "x"),
        *gpu_evidence(*gpu),
        Evidence.of("bf16-here", name, faster, "x"),
    ]


def run_evidence(run: Mapping) -> Evidence:
    """The gain of a published run, its id out of what tells it from the others."""
    parts = [run["device"], run["task"], run["n_devices"], run["seq_len"] or ""]
    id = re.sub("[^a-z0-9]+", "-", " ".join(map(str, parts)).lower()).strip("-")
    values = dict(task=run["task"], model=run["model"], n=run["n_devices"], device=run["device"])
    values |= dict(baseline=run["baseline"])
    values |= dict(length=run["seq_len"]) if run["seq_len"] else {}
    name = RUN_AT if run["seq_len"] else RUN
    return Evidence(id, name, run["gain"], "x", "published", values=values)


def gpu_evidence(products: Sequence[Mapping], steps: Sequence[Mapping]) -> list[Evidence]:
    """How many times faster fp16 was than fp32 on a recorded GPU."""
    ms = {(row["recipe"], row["batch_size"]): row["ms"] for row in steps if row["mb_step"]}
    product = "speed-up, {n} x {n} matmul, H100, fp16 / fp32"
    step = "speed-up, training step of {n} sequences, H100, fp16 / fp32, ratio of two medians"
    return [
        *(
            Evidence.of(f"h100-{row['n']}", product, _estimate(row), "x", "recorded", n=row["n"])
            for row in products
            if row["dtype"] == "fp16"
        ),
        *(
            Evidence(f"h100-step-{n}", step, ms["fp32", n] / time, "x", values=dict(n=n))
            for (recipe, n), time in ms.items()
            if recipe == "fp16"
        ),
    ]


def _estimate(row: Mapping) -> Estimate:
    return Estimate(row["faster"], row["low"], row["high"])


# --- Published runs --------------------------------------------------------------------------


def published_runs() -> list[dict]:
    """Rows of data/published/amp.csv with the gain: mixed over the baseline's throughput."""
    rows = data.read_published("amp")
    return [row | {"gain": row["mixed_per_second"] / row["baseline_per_second"]} for row in rows]


def batch_gains() -> list[float]:
    """How many times the batch that the published mixed runs used, where both are given."""
    runs = [r for r in published_runs() if r["mixed_batch"]]
    return [run["mixed_batch"] / run["baseline_batch"] for run in runs]


# --- Recorded GPUs ---------------------------------------------------------------------------

DATASHEETS = {"H100 80GB": "H100 SXM", "A100-SXM4-80GB": "A100 80GB SXM", "V100-SXM2": "V100 SXM2"}
"""Part of the name by which CUDA calls a GPU -> its row among the devices."""


def recorded_h100() -> tuple[list[dict], list[dict]]:
    """The recorded H100's rows: square products, and training steps."""
    parts = (gpu_bench.read_part(part) for part in (gpu_bench.PRODUCTS, gpu_bench.STEP))
    products, steps = (
        next(p["rows"] for gpu, p in part.items() if "H100" in gpu) for part in parts
    )
    return products, steps


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
                "speed-up over fp32": speeds[n, "bf16"] / speeds[n, "fp32"],
                "roof over fp32 (computed)": device and measure.product_gain(n, device, "fp32"),
                "speed-up over TF32": speeds[n, "bf16"] / speeds[n, "tf32"],
                "roof over TF32 (computed)": device and measure.product_gain(n, device, "tf32"),
            }
            rows.append(row)
    return rows


def gpu_step_rows() -> list[dict]:
    """A training step of 12 layers of 768 at 512 tokens: time over both baselines, peak bytes."""
    rows = []
    for gpu, part in gpu_bench.read_part(gpu_bench.STEP).items():
        steps = {(row["batch_size"], row["recipe"]): row for row in part["rows"] if row["mb_step"]}
        for (batch, recipe), step in sorted(steps.items()):
            fp32, tf32 = (steps.get((batch, name)) for name in ("fp32", "tf32"))
            row = {
                "device": gpu,
                "batch": batch,
                "precision": recipe,
                "ms": step["ms"],
                "speed-up over fp32": fp32 and fp32["ms"] / step["ms"],
                "speed-up over TF32": tf32 and tf32["ms"] / step["ms"],
                "batch memory / fp32": fp32 and step["mb_step"] / fp32["mb_step"],
            }
            rows.append(row)
    return rows
