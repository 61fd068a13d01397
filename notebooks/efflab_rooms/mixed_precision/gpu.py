"""Notebook 06's recorded GPUs: products and training steps in each precision, beside the roofs."""

from efflab.acceleration import recipes
from efflab.acceleration.recipes import RECIPES
from efflab.devices import DEVICES
from efflab.experiments import gpu_bench

DATASHEETS = {
    "H100 80GB HBM3": "H100 SXM",
    "A100-SXM4-80GB": "A100 80GB SXM",
    "V100-SXM2": "V100 SXM2",
}
"""Part of the name by which CUDA calls a GPU -> its row among the devices."""


def product_rows() -> list[dict]:
    """bf16 over fp32 and over TF32 for square products, and what the datasheet's roof allows."""
    rows = []
    for gpu, made in gpu_bench.recorded_part(gpu_bench.PRODUCTS).items():
        speed = {(row["n"], row["dtype"]): row["tflops"] for row in made["rows"]}
        for n in dict.fromkeys(row["n"] for row in made["rows"]):
            row = dict(gpu=gpu, n=n, tflops=speed[n, "bf16"])
            for base in ("fp32", "tf32"):
                row[base] = speed[n, "bf16"] / speed[n, base]
                row[f"{base}_roof"] = roof(gpu, n, base)
            rows.append(row | dict(kind="recorded"))
    return rows


def roof(gpu: str, n: int, base: str) -> float | None:
    """How many times faster 16 bits can be by the datasheet; None for a GPU without one here."""
    names = [ours for theirs, ours in DATASHEETS.items() if theirs in gpu]
    if not names:
        return None
    return recipes.product_speedup(n, DEVICES[names[0]], RECIPES["autocast"], RECIPES[base])


PRODUCT_COLUMNS = {
    "gpu": "device",
    "n": "n",
    "tflops": "TFLOP/s, bf16",
    "fp32": "times fp32",
    "fp32_roof": "its roof (computed)",
    "tf32": "times TF32",
    "tf32_roof": "TF32's roof (computed)",
    "kind": "kind",
}


def step_rows() -> list[dict]:
    """A training step of 12 layers of 768 at 512 tokens: time over both baselines, peak bytes."""
    rows = []
    for gpu, made in gpu_bench.recorded_part(gpu_bench.STEP).items():
        found = {(row["batch_size"], row["recipe"]): row for row in made["rows"] if row["ms"]}
        for (batch, recipe), row in sorted(found.items()):
            base = {name: found.get((batch, name)) for name in ("fp32", "tf32")}
            gain = {name: other and other["ms"] / row["ms"] for name, other in base.items()}
            peak = base["fp32"] and row["mb_step"] / base["fp32"]["mb_step"]
            rows.append(dict(gpu=gpu, batch=batch, recipe=recipe, ms=row["ms"], **gain,
                             peak=peak, kind="recorded"))  # fmt: skip
    return rows


STEP_COLUMNS = {
    "gpu": "device",
    "batch": "batch",
    "recipe": "precision",
    "ms": "ms",
    "fp32": "times fp32",
    "tf32": "times TF32",
    "peak": "what the batch takes / fp32",
    "kind": "kind",
}
