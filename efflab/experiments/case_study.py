"""The article's chapters on one model, end to end: lighten, fine-tune, prune, INT8; and in orders.

`stdlib-gpt` at 512 tokens. Attention is lightened until 30 % of the FLOPs are removed (`lighten`),
a quarter of the FFN's neurons are pruned, rounds of fine-tuning recover, an engine computes in
INT8. A path is an order of these steps. All have the same two rounds; within a seed a round has the
same batches wherever it comes. INT8 comes last: an engine's integers have no gradient, so nothing
after INT8 is trained, and quantizing earlier means pruning after all training. No step is timed
here: `case-study-latency` does that, for which the weights do not matter.
"""

from copy import deepcopy
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from torch import Tensor

from efflab import data, points, train
from efflab.bench import one_thread
from efflab.compression import language, pruning
from efflab.compression.openvino import seven_bits_needed
from efflab.errors import require_int, require_one_of
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import lighten, training
from efflab.experiments.lighten import Recipe
from efflab.experiments.record import round_floats, run_cases, with_ends
from efflab.model import Transformer, n_parameters
from efflab.pretrained import read_card

NAME = "case-study"
SHARE, PRUNED = 0.3, 0.25  # of the model's FLOPs, by lighter attention; of the FFN's neurons
N_STEPS, BATCH_SIZE, SEQ_LEN, LR = 80, 4, 512, 6e-4
EARLY = 8  # one path is also evaluated after these first steps, which a notebook repeats
EVEN_WIDTH = 64  # the window of "evenly": the width with the least loss before training
N_CALIBRATION = 8  # training windows to try changes on, and for INT8's ranges
SEEDS = (0, 1, 2)
PRECISIONS = ("bf16 autocast", "fp32")
MAIN = "lighten, prune"
PATHS: dict[str, tuple[str, ...]] = {
    "as shipped": (),
    MAIN: ("lighten", "tune", "prune", "tune"),
    "prune, lighten": ("prune", "tune", "lighten", "tune"),
    "both, then tune": ("lighten", "prune", "tune", "tune"),
    "prune after INT8": ("lighten", "tune", "tune", "prune"),
    "all after INT8": ("tune", "tune", "lighten", "prune"),
    "lighten evenly": ("lighten evenly", "tune", "prune", "tune"),
}
"""Order of steps, INT8 at the end of each. "all after INT8" begins with the trained control."""


# --- Steps -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def calibration() -> tuple[Tensor, Tensor]:
    """(ids, targets) of training windows that are in no round, (N_CALIBRATION, 512) each."""
    return data.random_windows(data.stdlib_tokens("train"), N_CALIBRATION, SEQ_LEN, 10**9)


@lru_cache(maxsize=1)
def shipped_damage() -> lighten.Damage:
    """The added loss of each single change to the model as shipped."""
    return lighten.damage(points.language_model(), calibration())


def recipe_for(model: Transformer, step: str) -> Recipe:
    """The recipe by which `step` changes this model's attention."""
    shipped = model is points.language_model()
    costs = shipped_damage() if shipped else lighten.damage(model, calibration())
    if step == "lighten evenly":
        return lighten.evenly(model.config, costs, EVEN_WIDTH, SHARE, SEQ_LEN)
    return lighten.by_layer(model.config, costs, SHARE, SEQ_LEN)


def prune_neurons(model: Transformer, ratio: float = PRUNED) -> Transformer:
    """A copy without the least important neurons over all layers."""
    batches = list(zip(*(x.split(4) for x in calibration()), strict=True))
    importance = pruning.neuron_importance(model, batches)
    return pruning.prune_ffn(model, pruning.least_important(importance, ratio))


def loss_in(precision: str) -> training.Loss:
    """The language-model loss in one of the `PRECISIONS`."""
    require_one_of("precision", precision, PRECISIONS)
    return training.loss_in(bf16=precision != "fp32")


def tune(
    model: Transformer, precision: str, seed: int, round_: int, stop: int | None = None
) -> Transformer:
    """Train `model` in place for a round, or for `stop` of its steps."""
    require_int("seed", seed, 0)
    batch = training.training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6 + round_ * N_STEPS)
    options = dict(optimizers=train.adamw(model, LR), loss_fn=loss_in(precision), stop=stop)
    with one_thread():
        train.fit(model, batch, N_STEPS, **options)
    return model


# --- Paths -----------------------------------------------------------------------------------


def walk(path: str, precision: str, seed: int) -> tuple[Transformer, list[dict]]:
    """The model at the end of a path, and a row for each step with the model's state after it."""
    require_one_of("path", path, PATHS)
    model, rows, n_rounds = points.language_model(), [], 0
    for step in PATHS[path]:
        row = dict(step=step)
        if step == "tune":
            model = tune(deepcopy(model), precision, seed, n_rounds)
            n_rounds += 1
        elif step == "prune":
            model = prune_neurons(model)
            row |= dict(neurons=[layer.ffn.body.up.out_features for layer in model.layers])
        else:
            recipe = recipe_for(model, step)
            model = lighten.lighten(model, recipe)
            row |= dict(windows=recipe.windows, removed=recipe.removed)
        rows.append(row | judge(model))
    return model, rows


def judge(model: Transformer) -> dict:
    """Bits per byte as on the board, FLOPs of 512 tokens by both counts, parameters."""
    computed, visible = (lighten.forward_flops(model, SEQ_LEN, c) for c in lighten.COUNTS)
    counts = dict(flops=computed, visible_flops=visible, n_params=n_parameters(model))
    return interval(points.language_quality(model)) | counts


def interval(quality: Estimate) -> dict[str, float]:
    """Bits per byte with the interval over windows, as stored in a row."""
    return round_floats(with_ends("bits", quality))


def int8(
    model: Transformer, folder: Path, seven_bits: bool | None = None
) -> language.LanguageEngine:
    """The model in OpenVINO's INT8, one window of 512 tokens at a time."""
    path, shape, ids = folder / "int8.xml", (1, SEQ_LEN), calibration()[0]
    return language.openvino_language_int8(model, path, shape, ids, seven_bits=seven_bits)


def engines(model: Transformer, folder: Path) -> list[language.LanguageEngine]:
    """The other engines: in 16 bits, and other INT8."""
    shape = (1, SEQ_LEN)
    return [
        language.bf16_language(model),
        language.dynamic_language(model),
        language.openvino_language(model, folder / "fp32.xml", shape),
        language.openvino_language(model, folder / "fp16.xml", shape, half=True),
        language.openvino_language(model, folder / "bf16.xml", shape, precision="bf16"),
    ]


def early(precision: str, seed: int) -> float:
    """Bits per byte of the lightened model after `EARLY` steps of its first round."""
    shipped = points.language_model()
    light = lighten.lighten(shipped, recipe_for(shipped, "lighten"))
    return points.language_quality(tune(light, precision, seed, 0, EARLY)).mean


# --- The experiment --------------------------------------------------------------------------


def run_path(path: str, precision: str, seed: int) -> dict:
    """The rows of one path, then its INT8; every engine for the main path and the start."""
    model, rows = walk(path, precision, seed)
    with TemporaryDirectory() as folder:
        int8_engines = [int8(model, Path(folder))]
        if path in (MAIN, "as shipped"):
            int8_engines += engines(model, Path(folder))
        sizes = [dict(engine=engine.name, nbytes=engine.nbytes) for engine in int8_engines]
        qualities = [interval(points.language_quality(engine)) for engine in int8_engines]
    result = dict(rows=rows, engines=[a | b for a, b in zip(sizes, qualities, strict=True)])
    if path == MAIN and precision == "fp32":
        result["early"] = round(early(precision, seed), 4)
    return result


def run_widths() -> dict:
    """Before any training, on training text: the added loss of each change, and of even widths.

    `windows` and `heads` by layer, nats per token; a row of `widths` for each window shared by all
    layers: the FLOPs it removes alone, the heads to remove to reach 30 %, and the loss of both.
    """
    shipped, costs = points.language_model(), shipped_damage()
    config, base = shipped.config, lighten.loss(shipped, calibration())
    rows = []
    for width in (None, *lighten.WIDTHS):
        recipe = lighten.evenly(config, costs, width, SHARE, SEQ_LEN)
        alone = lighten.windows_alone((width,) * config.n_layer)
        row = dict(width=width, windows_alone=lighten.removed_share(config, alone, SEQ_LEN))
        gone, visible = (lighten.removed_share(config, recipe, SEQ_LEN, c) for c in lighten.COUNTS)
        row |= dict(removed=gone, removed_visible=visible)
        added = lighten.loss(lighten.lighten(shipped, recipe), calibration()) - base
        rows.append(row | dict(n_heads=sum(map(len, recipe.removed)), added=added))
    layers = range(config.n_layer)
    windows = [[costs.windows[i, w] for w in lighten.WIDTHS] for i in layers]
    heads = [[costs.heads[i, h] for h in range(config.n_head)] for i in layers]
    return round_floats(dict(widths=rows, windows=windows, heads=heads, loss=base))


def run_one(part: str, seed: int, **where) -> dict:
    """Run one case, of either part."""
    return run_widths() if part == "widths" else run_path(**where, seed=seed)


def cases() -> list[dict]:
    """The widths and the model as shipped once, every path with every seed, the main one in fp32.

    Seed by seed, so that paths can be compared in an incomplete record too.
    """
    cases = [dict(part="widths", seed=0)]
    cases += [dict(part="path", path="as shipped", precision="fp32", seed=0)]
    paths = [(path, PRECISIONS[0]) for path, steps in PATHS.items() if steps] + [(MAIN, "fp32")]
    return cases + [
        dict(part="path", path=path, precision=precision, seed=seed)
        for seed, (path, precision) in product(SEEDS, paths)
    ]


def settings() -> dict:
    """The settings of all runs; runs under other settings are not mixed in."""
    training = dict(n_steps=N_STEPS, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, lr=LR, early=EARLY)
    changes = dict(share=SHARE, pruned=PRUNED, even_width=EVEN_WIDTH, n_calibration=N_CALIBRATION)
    evaluation = dict(n_windows=points.N_WINDOWS, shipped=points.shipped_quality())
    return training | changes | evaluation | dict(paths=PATHS, seven_bits=seven_bits_needed())


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every path with every seed, recorded as case-study. About 30 minutes of one core."""
    models = {"stdlib-gpt": read_card()["sha256"]}
    options = dict(models=models, versions_of=("openvino", "nncf"))
    return run_cases(NAME, cases(), run_one, settings=settings(), fresh=fresh, **options)


# --- Reading ---------------------------------------------------------------------------------


def paths(experiment: dict, path: str, precision: str = PRECISIONS[0]) -> dict[int, dict]:
    """Seed -> the recorded run of that path."""
    require_one_of("path", path, PATHS)
    runs = [r for r in experiment["runs"] if r["part"] == "path" and r["path"] == path]
    return {r["seed"]: r for r in runs if not PATHS[path] or r["precision"] == precision}


def end_bits(run: dict, engine: str | None = "OpenVINO INT8") -> float:
    """Bits per byte at the end of a run: in that engine, or (None) before INT8."""
    if engine is None:
        return run["rows"][-1]["bits"]
    return next(row["bits"] for row in run["engines"] if row["engine"] == engine)


def difference(a: dict[int, float], b: dict[int, float]) -> Estimate:
    """How far `a` is above `b`, paired over the seeds of both."""
    seeds = sorted(a.keys() & b.keys())
    return paired_difference([a[seed] for seed in seeds], [b[seed] for seed in seeds])


def waterfall(runs: dict[int, dict]) -> list[dict]:
    """Steps of a path in order: bits per byte (mean, minimum, maximum over seeds) and FLOPs."""
    steps = []
    for rows in zip(*(run["rows"] for run in runs.values()), strict=True):
        bits, flops = ([row[key] for row in rows] for key in ("bits", "flops"))
        entry = dict(step=rows[0]["step"], bits=mean(bits), low=min(bits), high=max(bits))
        steps.append(entry | dict(flops=mean(flops)))
    return steps
