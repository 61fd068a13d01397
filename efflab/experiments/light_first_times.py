"""Times of `light_first`'s models: of one text, and of a training step.

Weights are random: times depend on them only by which layers pruning takes most from. "compiled" is
the largest plain model's graph, by OpenVINO for a text and by `torch.compile` for a step. All are
interleaved with that model itself, in a process of its own for each seed, on a machine that does
nothing else.
"""

from collections.abc import Callable, Hashable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from efflab import bench, data, train
from efflab.base.busy import busy_cores, others
from efflab.bench import one_thread
from efflab.compression.language import torch_language
from efflab.experiments import light_first as models
from efflab.experiments.case_study_latency import alone
from efflab.experiments.int8_latency import require_idle
from efflab.experiments.light_first import COMPILED, INT8, LARGEST, SEQ_LEN, VARIANTS
from efflab.experiments.record import round_floats, run_cases
from efflab.experiments.registration import rules_for
from efflab.model import Transformer

NAME = "light-first-times"
REPEATS, WARMUP = {"latency": 15, "training": 7}, 2


def make_models() -> dict[str, Transformer]:
    """Untrained models of all `VARIANTS`; the pruned one without its neurons."""
    made = {variant: models.make(variant).eval() for variant in VARIANTS}
    return made | {models.PRUNED: models.prune(made[models.PRUNED])}


def compare(calls: dict[Hashable, Callable], repeats: int, n_warmup: int) -> tuple[dict, float]:
    """{name: time over the largest plain model's}, and that model's second run over its first."""
    times = bench.compare(calls[LARGEST], calls, n_warmup, repeats)
    return {name: ratio.mean for name, ratio in times.ratios.items()}, times.again.mean


def text_calls(made: dict[str, Transformer], folder: Path) -> dict[Hashable, Callable]:
    """A function for every model that gives the logits of one text."""
    ids = data.random_windows(data.stdlib_tokens("held-out"), 1, SEQ_LEN, 0)[0]
    engines = {name: torch_language(name, model) for name, model in made.items()}
    engines[COMPILED] = models.make_compiled(made[LARGEST], folder)
    engines[INT8] = models.make_int8(made[LARGEST], folder)
    return {name: lambda engine=engine: engine(ids) for name, engine in engines.items()}


def step_calls(made: dict[str, Transformer]) -> dict[Hashable, Callable]:
    """A function for every model that trains it by one step."""
    batch = data.random_windows(data.stdlib_tokens("train"), models.BATCH_SIZE, SEQ_LEN, 0)
    compiled = deepcopy(made[LARGEST])
    compiled.compile()

    def step(model: nn.Module) -> Callable:
        optimizers = train.muon(model)
        return lambda: train.fit(model, lambda _: batch, 1, optimizers=optimizers)

    return {name: step(model) for name, model in (made | {COMPILED: compiled}).items()}


@one_thread()
def measure(
    seed: int, repeats: dict[str, int] = REPEATS, n_warmup: int = WARMUP
) -> dict[str, dict | float]:
    """Times of a text ("latency") and of a step ("training") by name, over the largest plain
    model's, medians of paired repeats; `again`: that model's second run over its first."""
    torch.manual_seed(seed)
    made, again = make_models(), {}
    with TemporaryDirectory() as folder:
        calls = text_calls(made, Path(folder))
        latency, again["latency"] = compare(calls, repeats["latency"], n_warmup)
    training, again["training"] = compare(step_calls(made), repeats["training"], n_warmup)
    row = dict(latency=latency, training=training, again=again, busy_cores=others.cores)
    return round_floats(row)


def run_one(seed: int) -> dict:
    """Measure in a separate process; a machine that was busy before or meanwhile is refused."""
    require_idle(busy_cores())
    row = alone(f"{__name__}:measure", dict(seed=seed))
    require_idle(row["busy_cores"])
    return row


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every seed; recorded as data/experiments/light-first-times for `light-first`'s rules."""
    cases = [dict(seed=seed) for seed in models.SEEDS]
    own = models.settings() | dict(repeats=REPEATS, warmup=WARMUP)
    options = dict(rules=rules_for(models.NAME), versions_of=("openvino", "nncf"), fresh=fresh)
    return run_cases(NAME, cases, run_one, settings=own, **options)
