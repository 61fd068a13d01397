"""What notebook 14 counts, measures and reads from its records: FLOPs, paths, engines, 72 hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from efflab import bench, cost, points
from efflab.compression.language import LanguageEngine
from efflab.config import PRESETS, ModelConfig
from efflab.data import read_published
from efflab.devices import DEVICES
from efflab.distributed.plan import fitting_plans
from efflab.distributed.split import Cluster, Plan, Training
from efflab.errors import require, require_positive
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import case_study, case_study_2, lighten
from efflab.experiments import case_study_latency as latency
from efflab.experiments.case_study import MAIN, PRECISIONS, SEQ_LEN
from efflab.experiments.case_study_latency import BOTH, FP32, INT8, OPENVINO, SHIPPED
from efflab.experiments.record import by_seed, machines, read_record

CONFIG = PRESETS["stdlib-gpt"]


@lru_cache(maxsize=1)
def record() -> dict:
    """The recorded case study."""
    return read_record(case_study.NAME)


@lru_cache(maxsize=1)
def latencies() -> dict:
    """The recorded latencies of the last machine that also ran as an older one, if any did."""
    records = [read_record(latency.NAME, machine) for machine in machines(latency.NAME)]
    older = [r for r in records if any(run.get("isa") for run in r["runs"])]
    return (older or records)[-1]


def part(name: str) -> dict:
    """The recorded run of a part that has one: widths; memory, training."""
    (run,) = [run for run in record()["runs"] + latencies()["runs"] if run["part"] == name]
    return run


def runs(path: str = MAIN, precision: str = PRECISIONS[0]) -> dict[int, dict]:
    """Seed -> the recorded run of a path."""
    return case_study.paths(record(), path, precision)


# --- Windows and heads -----------------------------------------------------------------------


@lru_cache(maxsize=1)
def damage() -> lighten.Damage:
    """What each window and each head alone adds to the loss, as recorded."""
    run = part("widths")
    windows = {
        (layer, width): nats
        for layer, row in enumerate(run["windows"])
        for width, nats in zip(lighten.WIDTHS, row, strict=True)
    }
    heads = {(i, head): nats for i, row in enumerate(run["heads"]) for head, nats in enumerate(row)}
    return lighten.Damage(windows, heads)


def recipe(share: float = case_study.SHARE) -> lighten.Recipe:
    """Windows and heads by layer, the cheapest first, until that share of the FLOPs is gone."""
    return lighten.by_layer(CONFIG, damage(), share, SEQ_LEN)


def damage_sum(recipe: lighten.Recipe) -> float:
    """Nats a token that the changes of a recipe add, each measured alone and then summed."""
    costs = damage()
    narrower = sum(costs.windows[i, w] for i, w in enumerate(recipe.windows) if w)
    return narrower + sum(costs.heads[i, h] for i, gone in enumerate(recipe.removed) for h in gone)


def damage_together(recipe: lighten.Recipe) -> float:
    """Nats a token that the changes of a recipe add when made together, on the same windows."""
    whole, windows = points.language_model(), case_study.calibration()
    return lighten.loss(lighten.lighten(whole, recipe), windows) - lighten.loss(whole, windows)


# --- Paths -----------------------------------------------------------------------------------


def ends(path: str = MAIN, engine: str = INT8, precision: str = PRECISIONS[0]) -> dict[int, float]:
    """Seed -> bits per byte at the end of a path, in that engine."""
    name = None if engine == FP32 else engine  # torch's fp32 is the model before any engine
    return {seed: case_study.end_bits(run, name) for seed, run in runs(path, precision).items()}


def steps() -> list[dict]:
    """Bits per byte (mean and ends over seeds) and FLOPs: as shipped, after each step, in INT8."""
    shipped, bits = record()["settings"]["shipped"], ends().values()
    flops = lighten.forward_flops(points.language_model(), SEQ_LEN)
    first = dict(step="as shipped", bits=shipped, low=shipped, high=shipped, flops=flops)
    rows = [first, *case_study.waterfall(runs())]
    last = dict(step="INT8", bits=mean(bits), low=min(bits), high=max(bits))
    return [*rows, last | dict(flops=rows[-1]["flops"])]


def rounds() -> list[dict]:
    """The recorded runs of the lightened and of the plain model, each trained in four rounds."""
    return read_record(case_study_2.NAME)["runs"]


def round_rows() -> list[dict]:
    """Bits per byte of both models by training steps (means of seeds), and their difference."""
    levels = by_seed(rounds(), "variant", "levels")
    plain, light = (zip(*levels[variant], strict=True) for variant in case_study_2.VARIANTS)
    n_steps, rows = case_study_2.N_STEPS // case_study_2.N_ROUNDS, []
    for i, (a, b) in enumerate(zip(plain, light, strict=True)):
        above = paired_difference(b, a)
        row = {"training steps": i * n_steps, "bits per byte, nothing removed (control)": mean(a)}
        row |= {"bits per byte, lightened": mean(b), "lightened - control, by seed": above.mean}
        rows.append(row | {"from": above.low, "to": above.high})
    return rows


# --- Engines ---------------------------------------------------------------------------------

CPUS = {None: "all instructions", latency.OLDER: "VNNI switched off"}


def cpus() -> dict[str | None, str]:
    """The recorded machine with all its instructions, and without some: `isa` -> name."""
    isas = {run["isa"] for run in latencies()["runs"] if run["part"] == "time"}
    return {isa: name for isa, name in CPUS.items() if isa in isas}


def times(isa: str | None = None, n: int = 1) -> dict[tuple[str, str], dict]:
    """(stage, engine) -> the recorded row with n texts at once."""
    return latency.rows_of(latencies(), n, isa)


def quality(stage: str, engine: str) -> float:
    """Bits per byte as shipped or at the end of the path trained in fp32, the mean of seeds."""
    if (stage, engine) == (SHIPPED, FP32):
        return record()["settings"]["shipped"]
    return mean(ends(MAIN if stage == BOTH else stage, engine, "fp32").values())


def engine_rows(stage: str) -> list[dict]:
    """Each engine at a stage: quality, bytes, memory, time over the shipped model's in torch."""
    memory = {(row["stage"], row["engine"]): row for row in part("memory")["rows"]}
    rows = []
    for engine in latency.ENGINES:
        row = {"engine": engine, "bits per byte": quality(stage, engine)}
        row |= {"size (MB)": times()[stage, engine]["nbytes"] / 1e6}
        for isa, cpu in cpus().items():
            time = times(isa)[stage, engine]
            row |= {f"time ratio, {cpu}": time["ratio"]}
            row |= {f"error of the logits, {cpu} (%)": 100 * time["error"]}
        loads = memory.get((stage, engine))  # torch's engines load no file
        rows.append(row | {"resident memory added (MB)": loads and loads["resident_bytes"] / 1e6})
    return rows


def over(a: Mapping, b: Mapping) -> Estimate:
    """Ratio of two recorded ratios; its interval as wide as both ends allow."""
    return Estimate(a["ratio"] / b["ratio"], a["low"] / b["high"], a["high"] / b["low"])


@lru_cache(maxsize=4)
def score_share(stage: str) -> float:
    """Share of a stage's FLOPs in attention's scores, which the INT8 engine computes in floats."""
    model = latency.model_at(stage, recipe())
    scores = sum(
        4 * attention.n_head * attention.head_dim * lighten.pairs(SEQ_LEN, window)
        for attention, window in lighten.attentions(model)
    )
    return scores / lighten.forward_flops(model, SEQ_LEN)


@lru_cache(maxsize=1)
def engines_here() -> tuple[dict[str, LanguageEngine], dict[str, int]]:
    """The lightened and pruned model, not tuned, in three engines; {engine: weights' bytes}."""
    model, engines, weights = latency.model_at(BOTH, recipe()), {}, {}
    with TemporaryDirectory() as folder, bench.one_thread():
        for i, name in enumerate((FP32, OPENVINO, INT8)):
            path = Path(folder) / f"{i}.xml"
            engines[name] = latency.make_engine(name, model, path, (1, SEQ_LEN))
            if path.exists():
                weights[name] = path.with_suffix(".bin").stat().st_size
    return engines, weights


@lru_cache(maxsize=1)
def times_here(repeats: int = 9) -> bench.Comparison:
    """Each of OpenVINO's on one text, over torch's fp32, on one thread."""
    ids = case_study.calibration()[0][:1]
    calls = {name: lambda e=engine: e(ids) for name, engine in engines_here()[0].items()}
    with bench.one_thread():
        return bench.compare(calls.pop(FP32), calls, 2, repeats)


# --- 72 hours --------------------------------------------------------------------------------

N_PARAMS, DAYS = 100e9, 3
BEFORE = 2021  # when ERNIE 3.0 Titan, the largest of its kind, was published
GPUS = ("V100 SXM2", "A100 80GB SXM", "H100 SXM")
MODEL = ModelConfig(80, 80, 10240, 40960, 51200, 2048, causal=True)
"""A GPT of 101 billion parameters: the shape of Megatron's 76 B row with 80 layers."""


def run_days(n_params, n_tokens, n_devices, peak, utilization) -> float:
    """Days of training at 6 FLOPs a parameter and token; what is computed twice counts once.

    `peak`: FLOP/s of a device in 16 bits; `utilization`: the share of it that the model's own FLOPs
    come to (Chowdhery et al. 2022, section 4.1).
    """
    require(0 < utilization <= 1, "utilization", utilization, "a share above 0, up to 1")
    return cost.training_days(n_params, n_tokens, n_devices, peak * utilization, recompute=False)


def devices_needed(n_params, n_tokens, days, peak, utilization) -> float:
    """Devices with which the run takes so many days; a fraction, round it up."""
    require_positive("days", days)
    return run_days(n_params, n_tokens, 1, peak, utilization) / days


def tokens_possible(n_params, days, n_devices, peak, utilization) -> float:
    """Tokens on which so many devices train the model in so many days."""
    require_positive("days", days)
    return days / run_days(n_params, 1, n_devices, peak, utilization)


@dataclass(frozen=True)
class TrainingRun:
    """A run that its authors report, or in "(estimate)" work out; the sources count differently."""

    name: str
    year: int
    n_params: float
    n_tokens: float
    device: str
    peak: float  # FLOP/s of a device in 16 bits
    n_devices: int | None  # at most at once; None where it is not published
    device_hours: float  # with restarts and failures in some sources
    reported: float | None  # utilization, a share; None where it is not published

    @property
    def days(self) -> float | None:
        """Days on all its devices at once; None where their number is not published."""
        return self.n_devices and self.device_hours / self.n_devices / 24

    @property
    def utilization(self) -> float:
        """The model's own FLOPs, 6 a parameter and token, over what these hours could have done."""
        return devices_needed(self.n_params, self.n_tokens, self.device_hours / 24, self.peak, 1)

    @property
    def sustained(self) -> float:
        """The utilization that its authors report, else the one that follows from its hours."""
        return self.reported or self.utilization

    def tokens(self, n_params: float = N_PARAMS, days: float = DAYS) -> float:
        """Tokens on which its devices, at that utilization, train a model in so many days."""
        return tokens_possible(n_params, days, self.n_devices, self.peak, self.sustained)


def published_runs(rows: Sequence[Mapping] | None = None) -> list[TrainingRun]:
    """The rows of runs.csv, or others of its columns, in their order."""
    return [
        TrainingRun(
            name=row["model"],
            year=row["year"],
            n_params=row["params_billions"] * 1e9,
            n_tokens=row["tokens_billions"] * 1e9,
            device=row["device"],
            peak=row["peak_tflops"] * 1e12,
            n_devices=row["n_devices"],
            device_hours=row["device_hours"] or row["n_devices"] * row["days"] * 24,
            reported=row["utilization_percent"] and row["utilization_percent"] / 100,
        )
        for row in (read_published("runs") if rows is None else rows)
    ]


def largest_cluster(runs: Sequence[TrainingRun], until: int | None = None) -> TrainingRun:
    """The run whose devices have the highest peak together, of those published by then."""
    known = [run for run in runs if run.n_devices and (until is None or run.year <= until)]
    require(bool(known), "until", until, "a year by which a run of known size was published")
    return max(known, key=lambda run: run.n_devices * run.peak)


@lru_cache(maxsize=1)
def plans() -> dict[str, Plan | None]:
    """The fastest plan of each kind on the largest cluster of A100s; None where none fits."""
    n = largest_cluster(published_runs(), BEFORE).n_devices
    training = Training(MODEL, DEVICES["A100 80GB SXM"], n, MODEL.max_len, Cluster())
    by_stage = [fitting_plans(training, n, zero_stage) for zero_stage in (0, 1)]
    uncut = [next((plan for plan in fitting if plan.tp == 1), None) for fitting in by_stage]
    names = ("best split", "pipeline and data only", "pipeline and data only, ZeRO-1")
    fastest = min((plans[0] for plans in by_stage), key=lambda plan: plan.step_seconds)
    return dict(zip(names, (fastest, *uncut), strict=True))
