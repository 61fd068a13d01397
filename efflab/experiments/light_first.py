"""Light structures against other techniques at equal quality: the designs to come of `light-first`.

Small decoders learn Python source from scratch, by the same batches in the same number of steps. A
family of plain ones, by width, says in each seed what a plain model of any quality costs. What a
technique costs over that is its cost at equal quality; each technique stands alone. Bytes are
counted here; `light_first_times` has the times. Controls: a plain model comes to 1 where its family
lacks it, and one that loses neurons after its training comes to more than 1. Pilots with seed 290
chose the steps, by two plain models alone, and the rate, the best of 0.003 to 0.024 for ALBERT, and
of 0.006 and 0.012 for a plain model, after 500 steps.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import torch

from efflab import train
from efflab.bench import one_thread
from efflab.compression.calibration import calibration, quantize_by
from efflab.compression.language import LanguageEngine, openvino_language
from efflab.compression.packed import model_bytes, quantize_weights, with_weights
from efflab.config import PRESETS, ModelConfig
from efflab.errors import require_one_of
from efflab.estimate import Estimate, of_mean
from efflab.experiments import case_study
from efflab.experiments.record import round_floats
from efflab.experiments.training import held_out_bits, training_windows
from efflab.experiments.variants import run_variants
from efflab.model import Transformer
from efflab.points import weight_bytes
from efflab.structure.window import with_windows

NAME = "light-first"
HEAD_DIM, SEQ_LEN, BATCH_SIZE, N_STEPS, N_WINDOWS = 32, 512, 4, 1500, 64
"""A head is as wide, or wider where the width is no multiple."""
TABLE_WIDTH, WINDOW, GROUP = 64, 64, 32
"""Of ALBERT's factorized embedding; tokens that a query sees before it; weights with one scale."""
RATIO, DENSE_SHARE = 0.5, 0.6
"""Neurons that pruning removes, and the share of the steps before it."""
LR = 0.012
"""Muon's peak rate; AdamW's, for tables and norms, is half of it."""
FAMILY = ("plain-32", "plain-48", "plain-64", "plain-80", "plain-96", "plain-128")
LARGEST, WITHHELD = FAMILY[-1], ("plain-64", "plain-96")
LIGHT = ("albert-192", "windows-128")
PRUNED, INT8, GPTQ, COMPILED, NAIVE = "pruned", "int8", "gptq", "compiled", "naive"
OTHERS = (PRUNED, INT8, GPTQ, COMPILED)
"""What is done to the largest plain model; "compiled": its graph in another engine; "naive", a
control, loses as many neurons as "pruned", and trains no more."""
VARIANTS = (*FAMILY, *LIGHT, PRUNED)
SEEDS = tuple(range(270, 275))
BUDGETS = ("checkpoint", "latency", "training")
Points = Mapping[str, Mapping[str, float]]


# --- Training ----------------------------------------------------------------------------------


def config(kind: str, width: int) -> ModelConfig:
    """`stdlib-gpt`'s shape in that width; ALBERT's shares one layer and has a narrow embedding."""
    shape, n_head = PRESETS["stdlib-gpt"], width // HEAD_DIM
    plain = replace(shape, n_head=n_head, d_model=width, d_ff=4 * width)
    return replace(plain, share="all", d_embed=TABLE_WIDTH) if kind == "albert" else plain


def make(variant: str) -> Transformer:
    """The untrained model of one of `VARIANTS`; the pruned one begins as the largest plain one."""
    require_one_of("variant", variant, VARIANTS)
    kind, width = (LARGEST if variant == PRUNED else variant).split("-")
    model = Transformer(config(kind, int(width)))
    return with_windows(model, WINDOW) if kind == "windows" else model


def prune(model: Transformer) -> Transformer:
    """A copy without `RATIO` of its neurons, the least important ones over all layers."""
    return case_study.prune_neurons(model, RATIO)


def train_variant(variant: str, seed: int) -> Transformer:
    """The model of one of `VARIANTS` after `N_STEPS` steps of the seed's batches.

    The pruned one loses its neurons on the way; after a warm-up it goes on at the rate that it had.
    """
    torch.manual_seed(seed)
    model = make(variant)
    batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6)
    n_dense = round(DENSE_SHARE * N_STEPS) if variant == PRUNED else N_STEPS
    train.fit(model, batch, N_STEPS, stop=n_dense, optimizers=train.muon(model, LR, LR / 2))
    if variant == PRUNED:
        model, lr = prune(model), LR * train.learning_rate_factor(n_dense, N_STEPS)
        rest, options = N_STEPS - n_dense, dict(optimizers=train.muon(model, lr, lr / 2))
        train.fit(model, lambda step: batch(n_dense + step), rest, **options)
    return model


# --- A run -------------------------------------------------------------------------------------


def point(model: Callable, n_bytes: int, seed: int) -> dict:
    """Bits per byte on the seed's held-out windows, and the bytes of the checkpoint."""
    return dict(bits=held_out_bits(model, N_WINDOWS, SEQ_LEN, seed), nbytes=n_bytes)


def make_compiled(model: Transformer, folder: Path) -> LanguageEngine:
    """The model's graph as OpenVINO compiles it, in fp32, for one text."""
    return openvino_language(model, folder / "fp32.xml", (1, SEQ_LEN))


def make_int8(model: Transformer, folder: Path) -> LanguageEngine:
    """OpenVINO's INT8 of a model, for one text, as a CPU of either kind computes it exactly."""
    return case_study.int8(model, folder, seven_bits=True)


def compression_points(model: Transformer, seed: int) -> dict[str, dict]:
    """Points of what is done to a trained model: OpenVINO's fp32 and INT8, GPTQ's layers in 4 bits
    beside tables in 8, and neurons removed without training. Bytes are those of packed weights."""
    eight = quantize_weights(model, 8, axis=0)
    four = eight | quantize_by("gptq", model, 4, GROUP, calibration(seed=seed))
    pruned = prune(model)
    with TemporaryDirectory() as folder:
        int8 = point(make_int8(model, Path(folder)), model_bytes(model, eight), seed)
        compiled = point(make_compiled(model, Path(folder)), weight_bytes(model), seed)
    gptq = point(with_weights(model, four), model_bytes(model, four), seed)
    naive = point(pruned, weight_bytes(pruned), seed)
    return {INT8: int8, GPTQ: gptq, COMPILED: compiled, NAIVE: naive}


def run_one(variant: str, seed: int) -> dict:
    """Points of the trained model, and of what is made of it if it is the largest plain one."""
    model = train_variant(variant, seed)
    points = {variant: point(model, weight_bytes(model), seed)}
    if variant == LARGEST:
        points |= compression_points(model, seed)
    return dict(points=round_floats(points, 5))


def settings() -> dict:
    """What all runs have in common."""
    shape = dict(seq_len=SEQ_LEN, batch_size=BATCH_SIZE, n_steps=N_STEPS, n_windows=N_WINDOWS)
    shape |= dict(table_width=TABLE_WIDTH, window=WINDOW, group_size=GROUP)
    return shape | dict(ratio=RATIO, dense_share=DENSE_SHARE, lr=LR)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every variant with every seed; recorded as data/experiments/light-first."""
    options = dict(any_machine=True, versions_of=("openvino", "nncf"), fresh=fresh)
    return run_variants(NAME, run_one, VARIANTS, SEEDS, settings(), **options)


# --- What it comes to ----------------------------------------------------------------------------


def costs(points: Points, times: Mapping) -> dict[str, dict[str, float]]:
    """{budget: {technique: cost}} of a seed; times are over the largest plain model's."""
    latency, step = dict(times["latency"]), dict(times["training"])
    latency |= {GPTQ: latency[LARGEST], NAIVE: latency[PRUNED]}
    step |= {PRUNED: DENSE_SHARE * step[LARGEST] + (1 - DENSE_SHARE) * step[PRUNED]}
    step |= dict.fromkeys((INT8, GPTQ, NAIVE), step[LARGEST])
    n_bytes = {name: values["nbytes"] for name, values in points.items()}
    return dict(checkpoint=n_bytes, latency=latency, training=step)


def plain_cost(points: Points, cost: Mapping[str, float], without: str = "") -> Callable:
    """A function from bits per byte to the logarithm of a plain model's cost, of one seed.

    Through the family's own, without turns between them (Fritsch and Butland 1984), and straight on
    beyond them.
    """
    from scipy.interpolate import PchipInterpolator

    members = sorted((points[m]["bits"], np.log(cost[m])) for m in FAMILY if m != without)
    curve, (least, *_, most) = PchipInterpolator(*zip(*members, strict=True)), dict(members)
    slope = curve.derivative()

    def log_cost(bits: float) -> float:
        inside = min(max(bits, least), most)
        return float(curve(inside) + slope(inside) * (bits - inside))

    return log_cost


def equal_costs(points: list[Points], times: list[Mapping]) -> dict[str, dict[str, list[float]]]:
    """{budget: {technique or control: logarithms of its cost at equal quality, by seed}}.

    `points` and `times` of the same seeds.
    """
    names = (*LIGHT, *OTHERS, NAIVE, *WITHHELD)
    found: dict[str, dict] = {budget: {name: [] for name in names} for budget in BUDGETS}
    for seed_points, seed_times in zip(points, times, strict=True):
        for budget, cost in costs(seed_points, seed_times).items():
            for name, logs in found[budget].items():
                plain = plain_cost(seed_points, cost, without=name)
                logs.append(float(np.log(cost[name])) - plain(seed_points[name]["bits"]))
    return found


def leads(logs: Mapping[str, list[float]]) -> list[float]:
    """By seed the best light structure's cost over the best other technique's, in logarithms.

    The best are those over all seeds; to change nothing, which costs 1, is another technique.
    """
    light = min((logs[name] for name in LIGHT), key=fmean)
    nothing = [0.0] * len(light)
    rest = min((nothing, *(logs[name] for name in OTHERS)), key=fmean)
    return [a - b for a, b in zip(light, rest, strict=True)]


def whole_seeds(
    runs: Iterable[Mapping], times: Iterable[Mapping]
) -> tuple[list[Points], list[Mapping]]:
    """Points and times of every seed that both records have in full."""
    points: dict[int, dict] = {}
    for run in runs:
        points.setdefault(run["seed"], {}).update(run["points"])
    names, timed = {*VARIANTS, *OTHERS, NAIVE}, {run["seed"]: run for run in times}
    seeds = [s for s in sorted(points) if names <= points[s].keys() and s in timed]
    return [points[s] for s in seeds], [timed[s] for s in seeds]


def cases(runs: Iterable[Mapping], times: Iterable[Mapping]) -> dict[str, Estimate]:
    """{"equal-latency": `leads`, "plain-96-latency" and "naive-latency": controls,
    "albert-192-latency": its cost at equal quality, ...}: geometric means and intervals over seeds,
    those of times widened by the A/A noise.
    """
    points, timed = whole_seeds(runs, times)
    estimates = {}
    for budget, logs in equal_costs(points, timed).items():
        # bytes have no noise
        band = of_mean([run["again"].get(budget, 1.0) for run in timed]).band
        for name, values in (logs | dict(equal=leads(logs))).items():
            log = of_mean(values)
            ratio = Estimate(*(float(np.exp(end)) for end in (log.mean, log.low, log.high)))
            estimates[f"{name}-{budget}"] = ratio.with_noise(band)
    return estimates
