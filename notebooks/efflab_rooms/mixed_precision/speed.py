"""Notebook 06's time: bf16 on this CPU, the roofs of three GPUs, what was published."""

import os
import subprocess
import sys
from functools import lru_cache
from itertools import product

import torch

from efflab import bench
from efflab.acceleration import recipes
from efflab.acceleration.recipes import RECIPES
from efflab.config import PRESETS
from efflab.devices import DEVICES, Device
from efflab.errors import require_int, require_one_of
from efflab.estimate import Estimate
from efflab.json_files import parse_json
from efflab.lab import Choice, Evidence, Slider, explorer, figures, number, tr
from efflab.lab.text import tr_name
from efflab_rooms.mixed_precision import memory
from efflab_rooms.mixed_precision.published import gains, published

GPUS = ("V100 SXM2", "A100 80GB SXM", "H100 SXM")
SIZES = [2**i for i in range(5, 14)]
MODELS = ("stdlib-gpt", "bert-base", "bert-large", "gpt2", "gpt2-xl", "gpt3-1.3b")

# --- This CPU --------------------------------------------------------------------------------


def feature_rows() -> list[dict]:
    """The instructions for short numbers that this CPU has."""
    return [{"instructions": name.upper(), "on this CPU": found, "kind": "measured"}
            for name, found in bench.cpu_features().items()]  # fmt: skip


def product_ratio(n: int = 512, repeats: int = 11) -> dict:
    """bf16 over fp32 for an (n,n) product here: ratio, interval, A/A band, relative error."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, n, generator=rng) for _ in range(2))
    short = a.bfloat16(), b.bfloat16()
    times = bench.compared(lambda: a @ b, {"bf16": lambda: short[0] @ short[1]}, 2, repeats)
    exact = a.double() @ b.double()
    error = ((short[0] @ short[1]).double() - exact).norm() / exact.norm()
    ratio = times.ratios["bf16"]
    return dict(ratio=ratio.mean, low=ratio.low, high=ratio.high, band=times.band,
                error=error.item())  # fmt: skip


@lru_cache(maxsize=1)
def without_bf16() -> dict | None:
    """`product_ratio` in a process whose oneDNN may use AVX2 alone; None where this CPU is such.

    The cap has to be set before torch loads. It is for torch only.
    """
    if not bench.cpu_features()["bf16"]:
        return None
    measure = f"from {__name__} import product_ratio as ratio"
    code = f"import json; {measure}; print(json.dumps(ratio(repeats=5)))"
    capped = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=capped, text=True, check=True,
                         capture_output=True, timeout=120)  # fmt: skip
    return parse_json(out.stdout.splitlines()[-1])


@lru_cache(maxsize=2)
def step_times(batch_size: int, seq_len: int, repeats: int = 7) -> bench.Comparison:
    """Training steps of stdlib-gpt by recipe, beside fp32 and fp32 again."""
    steps = {n: memory.ready(n, batch_size, seq_len).step for n in memory.MEASURED}
    return bench.compared(steps.pop("fp32"), steps, 1, repeats)


def cpu_rows(batch_size: int, seq_len: int) -> list[dict]:
    """What bf16 does to time here: products, with and without the instructions, and whole steps."""
    rows = []

    def add(what, ratio, low, high, band, error=None):
        word = "slower" if low > 1 + band else "faster" if high < 1 - band else "no difference"
        rows.append({"bf16 for": what, "time over fp32": ratio, "from": low, "to": high,
                     "A/A band (%)": 100 * band, "result": word,
                     "relative error (%)": None if error is None else 100 * error,
                     "kind": "measured"})  # fmt: skip

    add("a product, 512 x 512", **product_ratio())
    capped = without_bf16()
    if capped:
        add("the same, without bf16 instructions", **capped)
    times = step_times(batch_size, seq_len)
    for name, ratio in times.ratios.items():
        add(f"training step: {name}", ratio.mean, ratio.low, ratio.high, times.band)
    return rows


# --- Roofs -----------------------------------------------------------------------------------


def baselines(device: Device) -> list[str]:
    """What 16 bits can be compared with on a device: fp32, and tf32 where it has it."""
    return [name for name in ("fp32", "tf32") if name in device.peak_flops]


def roofs_figure():
    """How many times faster a product is in 16 bits, by its size, over each baseline."""
    title = tr("16 bits over what? Square products by their roofline (computed)")
    fig = figures.blank(title, tr("n of an (n, n) product"), tr("times faster"), height=440)
    for i, name in enumerate(GPUS):
        device = DEVICES[name]
        for base in baselines(device):
            y = [recipes.product_speedup(n, device, RECIPES["autocast"], RECIPES[base])
                 for n in SIZES]  # fmt: skip
            label = tr("{device}, over {base}", device=name, base=base)
            fig.add_scatter(
                x=SIZES, y=y, name=label, mode="lines+markers",
                line=dict(color=figures.COLOURS[i], dash="solid" if base == "fp32" else "dot"),
                marker=dict(symbol=figures.MARKERS[i], size=8 if base == "fp32" else 12 - 3 * i),
            )  # fmt: skip
            fig.layout.meta |= {tr("{name}: most", name=label): round(max(y), 2)}
    figures.mark(fig, tr("the article's 3x"), y=3)
    fig.update_xaxes(type="log", tickvals=SIZES, ticktext=[f"{n:,}" for n in SIZES])
    fig.update_yaxes(range=[0, 17])
    fig.add_annotation(x=3.5, y=1.2, text=tr("over TF32: 2x at any size"), showarrow=False)
    return fig.update_layout(legend=dict(x=0.01, y=0.99, yanchor="top"))


STEPS = {"A100 80GB SXM": ((128, 256), (512, 32)), "V100 SXM2": ((128, 64), (512, 8))}
"""Tokens and batch of BERT-large's published pre-training on one device; V100's batches: ours."""


def step_rows() -> list[dict]:
    """BERT-large's step by its roofline over both baselines, beside what was published."""
    rows = []
    for name, shapes in STEPS.items():
        for (seq_len, batch), base in product(shapes, baselines(DEVICES[name])):
            wanted = dict(task="pretraining", n_devices=1, seq_len=seq_len)
            wanted |= dict(baseline=base.upper())
            same = [r for r in published() if wanted.items() <= r.items()]
            found = [r["gain"] for r in same if r["device"].startswith(name[:4])]
            rows.append({
                "device": name, "tokens": seq_len, "batch": batch, "baseline": base,
                "at best (computed)": step_gain(name, base, seq_len, batch),
                "published": found[0] if found else None,
            })  # fmt: skip
    return rows


def step_gain(device: str, base: str, seq_len: int = 128, batch: int = 256) -> float:
    """How many times faster BERT-large's step can be in 16 bits with master weights."""
    config, names = PRESETS["bert-large"], (base, "master weights")
    old, new = (
        sum(recipes.step_seconds(config, seq_len, batch, DEVICES[device], RECIPES[n]).values())
        for n in names
    )
    return old / new


# --- What the verdict rests on ---------------------------------------------------------------


def speed_evidence(batch_size: int, seq_len: int) -> list[Evidence]:
    """Published gains, what the roofline allows, and this CPU."""
    tf32, fp32 = gains("TF32", "A100"), gains("FP32", "V100")
    a100 = DEVICES["A100 80GB SXM"]
    most = max(
        recipes.product_speedup(n, a100, RECIPES["autocast"], RECIPES["tf32"]) for n in SIZES
    )
    here = step_times(batch_size, seq_len).ratios["autocast"]
    faster = Estimate(1 / here.mean, 1 / here.high, 1 / here.low)
    return [
        Evidence(
            "a100-most", "A100, mixed over TF32, the most published", max(tf32), "x", "published"
        ),
        Evidence(
            "a100-least", "A100, mixed over TF32, the least published", min(tf32), "x", "published"
        ),
        Evidence(
            "a100-roofline", "A100, 16 bits over TF32, roofline at any shape", most, "x", "computed"
        ),
        Evidence(
            "a100-step",
            "A100, BERT-large's step over FP32, roofline",
            step_gain(a100.name, "fp32"),
            "x",
            "computed",
        ),
        Evidence(
            "v100-least", "V100, mixed over FP32, the least published", min(fp32), "x", "published"
        ),
        Evidence(
            "v100-most", "V100, mixed over FP32, the most published", max(fp32), "x", "published"
        ),
        Evidence.of("bf16-here", "this CPU, bf16 autocast, times faster than fp32", faster, "x"),
    ]


# --- The explorer ----------------------------------------------------------------------------


@explorer(
    batch=Slider(1, 1024, 32, scale="log2", label="batch (sequences)"),
    recipe=Choice(tuple(RECIPES), "autocast", label="precision"),
    device=Choice(GPUS, "A100 80GB SXM", label="device"),
    model=Choice(MODELS, "bert-large", label="model"),
    seq_len=Choice((128, 512), label="sequence length (tokens)"),
)
def training(batch=32, recipe="autocast", device="A100 80GB SXM", model="bert-large", seq_len=128):
    """Least time and bytes of a training step by part, and the batch that fits."""
    require_int("batch", batch)
    require_one_of("recipe", recipe, RECIPES)
    require_one_of("device", device, GPUS)
    require_one_of("model", model, MODELS)
    require_one_of("seq_len", seq_len, (128, 512))
    config, roof, how = PRESETS[model], DEVICES[device], RECIPES[recipe]
    seconds = recipes.step_seconds(config, seq_len, batch, roof, how)
    n_bytes = {k: v for k, v in recipes.memory_parts(config, seq_len, batch, how).items() if v}
    fits = recipes.largest_batch(config, seq_len, roof, how)
    time, memory_gb = sum(seconds.values()), sum(n_bytes.values()) / 1e9
    meta = {"batch": batch, tr("milliseconds"): 1e3 * time, "GB": memory_gb,
            tr("batch that fits"): fits, tr("sequences a second"): batch / time}  # fmt: skip
    if recipe != "fp32":
        full = sum(recipes.step_seconds(config, seq_len, batch, roof, RECIPES["fp32"]).values())
        meta[tr("times faster than fp32")] = full / time
    verdict = tr("fits") if batch <= fits else tr("does not fit")
    title = tr("{model}, {recipe} on {device}: {time} ms at best, {gb} GB: {verdict}", model=model,
               recipe=tr_name(recipe), device=device, time=number(1e3 * time),
               gb=number(memory_gb), verdict=verdict)  # fmt: skip
    title += "<br>" + tr("batch that fits: {n}", n=number(fits))
    titles = [tr("least time by part (ms)"), tr("memory by part (GB)")]
    fig = figures.panels(titles, title, meta=meta, horizontal_spacing=0.2)
    for column, (parts, unit) in enumerate(((seconds, 1e3), (n_bytes, 1e-9)), start=1):
        values = [v * unit for v in parts.values()]
        fig.add_bar(x=values, y=[tr(p) for p in parts], orientation="h", showlegend=False,
                    marker_color=figures.COLOURS[column - 1], row=1, col=column,
                    text=[number(v, 2) for v in values], textposition="auto")  # fmt: skip
        fig.update_yaxes(autorange="reversed", col=column)
    limit = roof.memory_bytes / 1e9
    fig.add_annotation(x=1, y=-0.22, xref="x2 domain", yref="y2 domain", showarrow=False,
                       text=tr("memory of the device: {gb} GB", gb=number(limit)))  # fmt: skip
    return fig.update_layout(height=430, margin_t=112, title=dict(y=0.95, yanchor="top"))
