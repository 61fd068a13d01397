"""The case study's models: latency, bytes and memory by stage and by engine.

The measurements depend on shapes only, so nothing is trained here: the recipe is the one recorded
by `case-study`, and the neurons are chosen before any training. All stages and engines of a case
are interleaved with the model as shipped in PyTorch's fp32, on one thread. Run it on an idle
machine; on another machine only this experiment is needed. A CPU with VNNI is also timed without.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from torch import Tensor

from efflab import bench, data, points, train
from efflab.bench import one_thread
from efflab.compression import language
from efflab.compression.language import LanguageEngine, Shape
from efflab.errors import require_one_of
from efflab.estimate import Estimate
from efflab.experiments import case_study, lighten, resident
from efflab.experiments.case_study import PRECISIONS, SEQ_LEN
from efflab.experiments.isolated import run_isolated
from efflab.experiments.lighten import Recipe
from efflab.experiments.record import read_record, run_cases, with_ends
from efflab.model import Transformer
from efflab.pretrained import read_card

NAME = "case-study-latency"
SHIPPED, LIGHT, PRUNED, BOTH = "as shipped", "lightened", "pruned", "lightened, pruned"
STAGES = (SHIPPED, LIGHT, PRUNED, BOTH)
FP32, BF16, DYNAMIC = "torch fp32", "torch bf16", "torch dynamic INT8"
OPENVINO, FP16, OPENVINO_BF16 = "OpenVINO fp32", "OpenVINO fp16 stored", "OpenVINO bf16"
INT8 = "OpenVINO INT8"
FILES = (OPENVINO, FP16, OPENVINO_BF16, INT8)
"""Engines that load a file, whose memory can be measured in a separate process."""
ENGINES = (FP32, BF16, DYNAMIC, *FILES)
REPEATS = {1: 21, 4: 9}
"""Batch size in texts of 512 tokens -> repeats."""
TRAINING_REPEATS, MEMORY_PROCESSES = 9, 3
OLDER = "AVX512_CORE"
"""ONEDNN_MAX_CPU_ISA under which oneDNN and OpenVINO have no 8-bit products (VNNI) and no bf16.

At "AVX2" OpenVINO mixes kernels of both kinds and gives wrong logits, as `error` shows.
"""


# --- The models ------------------------------------------------------------------------------


def read_recipe() -> Recipe:
    """The recipe by which `case-study` lightened the model; without its record a `ValueError`."""
    runs = case_study.paths(read_record(case_study.NAME), case_study.MAIN)
    row = next(iter(runs.values()))["rows"][0]
    return Recipe(tuple(row["windows"]), tuple(map(tuple, row["removed"])))


def model_at(stage: str, recipe: Recipe) -> Transformer:
    """The model at that stage, without any training."""
    require_one_of("stage", stage, STAGES)
    model = points.language_model()
    if stage in (LIGHT, BOTH):
        model = lighten.lighten(model, recipe)
    return case_study.prune_neurons(model) if stage in (PRUNED, BOTH) else model


def make_engine(
    engine: str, model: Transformer, path: Path, shape: Shape, seven_bits: bool | None = None
) -> LanguageEngine:
    """The model in that engine; OpenVINO's file is at `path` (.xml)."""
    require_one_of("engine", engine, ENGINES)
    ids = case_study.calibration()[0]
    makers: dict[str, Callable[[], LanguageEngine]] = {
        FP32: lambda: language.torch_language(FP32, model),
        BF16: lambda: language.bf16_language(model),
        DYNAMIC: lambda: language.dynamic_language(model),
        OPENVINO: lambda: language.openvino_language(model, path, shape),
        FP16: lambda: language.openvino_language(model, path, shape, half=True),
        OPENVINO_BF16: lambda: language.openvino_language(model, path, shape, precision="bf16"),
        INT8: lambda: language.openvino_language_int8(
            model, path, shape, ids, seven_bits=seven_bits
        ),
    }
    return makers[engine]()


def round_digits(value) -> float:
    """The value with four significant digits."""
    return float(f"{float(value):.4g}")


def ratio(estimate: Estimate) -> dict[str, float]:
    """A ratio and its 95 % interval, as stored in a row."""
    return {name: round_digits(value) for name, value in with_ends("ratio", estimate).items()}


# --- Time ------------------------------------------------------------------------------------


@one_thread()
def latencies(recipe: list, n: int, repeats: int, seven_bits: bool | None = None) -> dict:
    """Times of each stage in each engine on n texts of 512 tokens, over the first of both."""
    models = {stage: model_at(stage, Recipe(*recipe)) for stage in STAGES}
    return side_by_side(models, n, repeats, seven_bits)


def side_by_side(
    models: Mapping[str, Transformer], n: int, repeats: int, seven_bits: bool | None = None
) -> dict:
    """Times of each model ("stage") in each engine, n texts of 512 tokens, over the first of both.

    A row has the ratio of times with its interval, bytes, FLOPs, and `error`: the difference of
    the logits from the same model in fp32, which reveals an engine that lacks an instruction.
    `band` is the A/A noise, `milliseconds` the time of the first.
    """
    ids = data.random_windows(data.stdlib_tokens("held-out"), n, SEQ_LEN, 0)[0]
    places = list(product(models, ENGINES))
    with TemporaryDirectory() as folder:
        engines = {
            (stage, engine): make_engine(
                engine, models[stage], Path(folder) / f"{i}.xml", (n, SEQ_LEN), seven_bits
            )
            for i, (stage, engine) in enumerate(places)
        }
        calls = {place: lambda e=e: e(ids) for place, e in engines.items()}
        times = bench.compare(calls[places[0]], calls, 2, repeats)
        rows = []
        for stage, engine in places:
            exact, this = engines[stage, FP32](ids), engines[stage, engine]
            row = dict(stage=stage, engine=engine, nbytes=this.nbytes)
            row |= dict(flops=lighten.forward_flops(models[stage], SEQ_LEN))
            row |= ratio(times.ratios[stage, engine])
            rows.append(row | dict(error=round_digits((this(ids) - exact).norm() / exact.norm())))
    milliseconds = 1e3 * times.timings["baseline"].median
    return dict(rows=rows, band=round_digits(times.band), milliseconds=round_digits(milliseconds))


@one_thread()
def training_steps(recipe: list, repeats: int = TRAINING_REPEATS) -> dict:
    """Training steps of the case study by stage and precision, over the first of both.

    `peak_bytes`: peak of a step's tensors in addition to weights and optimizer state.
    """
    batch = data.random_windows(data.stdlib_tokens("train"), case_study.BATCH_SIZE, SEQ_LEN, 0)
    places = list(product((SHIPPED, LIGHT), sorted(PRECISIONS, reverse=True)))
    calls = {(s, p): step(model_at(s, Recipe(*recipe)), p, batch) for s, p in places}
    times = bench.compare(calls[places[0]], calls, 1, repeats)
    rows = [
        dict(stage=s, precision=p, peak_bytes=bench.peak_bytes(calls[s, p]))
        | ratio(times.ratios[s, p])
        for s, p in places
    ]
    return dict(rows=rows, band=round_digits(times.band))


def step(model: Transformer, precision: str, batch: tuple[Tensor, Tensor]) -> Callable[[], None]:
    """A function that trains a copy of `model` by one step on the batch at each call."""
    own, loss = deepcopy(model).train(), case_study.loss_in(precision)
    (optimizer,) = train.adamw(own, case_study.LR)

    def run() -> None:
        loss(own, *batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run


# --- Memory ----------------------------------------------------------------------------------


def memory(recipe: Recipe, n: int, processes: int = MEMORY_PROCESSES) -> dict:
    """Resident bytes added by each stage in each OpenVINO engine: median over processes."""
    rows = []
    with TemporaryDirectory() as folder:
        for i, (stage, engine) in enumerate(product(STAGES, FILES)):
            path = Path(folder) / f"{i}.xml"
            make_engine(engine, model_at(stage, recipe), path, (n, SEQ_LEN))
            task = dict(path=str(path), n=n, seq_len=SEQ_LEN)
            task |= dict(precision="bf16" if engine == OPENVINO_BF16 else "f32")
            runs = [alone(f"{resident.__name__}:added", task) for _ in range(processes)]
            n_bytes = median(run["resident_bytes"] for run in runs)
            rows.append(dict(stage=stage, engine=engine, resident_bytes=n_bytes))
    return dict(rows=rows)


def alone(function: str, task: dict, environment: dict[str, str] | None = None) -> dict:
    """`run_isolated` on one thread."""
    environment = dict(OMP_NUM_THREADS="1") | (environment or {})
    return run_isolated(function, task, environment, timeout=1800)


# --- The experiment --------------------------------------------------------------------------


def cases() -> list[dict]:
    """Memory first, which does not need an idle machine; then times."""
    cases = [dict(part="memory", n=1, seed=0)]
    cases += [dict(part="time", n=n, isa=isa, seed=0) for isa, n in product(limits(), REPEATS)]
    return [*cases, dict(part="training", seed=0)]


def limits() -> tuple[str | None, ...]:
    """The instruction sets to run with: all and, if the CPU has VNNI, an older CPU's."""
    cpu = bench.cpu_features()
    return (None, OLDER) if cpu["avx512"] and cpu["vnni"] else (None,)


def run_one(part: str, seed: int, n: int = 1, isa: str | None = None) -> dict:
    """Run one case; times and steps in separate processes. `isa`: ONEDNN_MAX_CPU_ISA or None."""
    recipe = read_recipe()
    task: dict = dict(recipe=[recipe.windows, recipe.removed])
    if part == "memory":
        return memory(recipe, n)
    if part == "training":
        return alone(f"{__name__}:training_steps", task)
    return run_limited(f"{__name__}:latencies", task | dict(n=n, repeats=REPEATS[n]), isa)


def run_limited(function: str, task: dict, isa: str | None) -> dict:
    """`alone`, under an ONEDNN_MAX_CPU_ISA; without VNNI weights need 7 bits."""
    if isa:
        task = task | dict(seven_bits=True)
    return alone(function, task, dict(ONEDNN_MAX_CPU_ISA=isa) if isa else None)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Measure, and record in data/experiments/case-study-latency.json; ratios are portable."""
    recipe = read_recipe()
    settings = dict(windows=recipe.windows, removed=recipe.removed, repeats=REPEATS)
    settings |= dict(seq_len=SEQ_LEN, pruned=case_study.PRUNED, memory_processes=MEMORY_PROCESSES)
    settings |= dict(training_repeats=TRAINING_REPEATS, batch_size=case_study.BATCH_SIZE)
    options = dict(models={"stdlib-gpt": read_card()["sha256"]}, versions_of=("openvino", "nncf"))
    return run_cases(NAME, cases(), run_one, settings=settings, fresh=fresh, **options)


def rows_of(experiment: dict, n: int = 1, isa: str | None = None) -> dict[tuple[str, str], dict]:
    """(stage, engine) -> its row of times with batches of n texts."""
    runs = [r for r in experiment["runs"] if r["part"] == "time"]
    (run,) = [r for r in runs if (r["n"], r["isa"]) == (n, isa)]
    return {(row["stage"], row["engine"]): row for row in run["rows"]}
