"""Pruning at once and step by step, against a control that three rounds leave as it is.

Answers `prune-gradual` and `prune-finetune`. One-shot removes all before three rounds
of training. Gradual takes ten increments, which fill rounds 1 and 2, and trains on to the same end:
every part of training warms up and cools down by itself. Runs of a seed see the same batches, and
what begins alike is trained once. `pruning-recovery-pilot` chooses the rate.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from itertools import pairwise, product

from efflab import evaluate, train
from efflab.bench import one_thread
from efflab.compression import pruning
from efflab.estimate import Estimate, paired_difference
from efflab.experiments.record import read_record, run_cases
from efflab.experiments.registration import rules_for
from efflab.experiments.training import training_windows
from efflab.model import Transformer
from efflab.pretrained import load_stdlib_gpt, read_card

NAME, PILOT = "pruning-recovery", "pruning-recovery-pilot"
N_ROUNDS, STEPS_PER_ROUND, BATCH_SIZE, SEQ_LEN = 3, 200, 8, 512
INITIAL, N_INCREMENTS, STEPS_PER_INCREMENT = 0.1, 10, 40
RATES, PILOT_SEEDS = (6e-4, 2e-4, 6e-5, 2e-5), (90, 91, 92)
MARGIN, N_WINDOWS = 0.01, 32
SEEDS = (100, 101, 102, 103, 104)
RATIOS = (0.5, 0.8, 0.9)
CONTROL, EASY = ("one-shot", 0.0), ("one-shot", 0.2)
POINTS = (CONTROL, EASY, *product(("one-shot", "gradual"), RATIOS))
"""Schedule and share removed; the control loses nothing, the easy one has to recover."""
Parts = tuple[tuple[float, int], ...]
"""The share removed in all during each part of a training, and the part's steps."""


def parts(schedule: str, ratio: float) -> Parts:
    """A schedule in parts, all with the same number of steps together."""
    if schedule == "one-shot":
        return ((ratio, STEPS_PER_ROUND),) * N_ROUNDS
    increments = pruning.gradual_schedule(INITIAL, ratio, N_INCREMENTS)
    rest = N_ROUNDS * STEPS_PER_ROUND - N_INCREMENTS * STEPS_PER_INCREMENT
    return (*((round(share, 4), STEPS_PER_INCREMENT) for share in increments), (ratio, rest))


def bits(model: Transformer) -> tuple[float, list[float]]:
    """Bits per byte over all held-out windows and in each, which are the same for every run."""
    n_bits, n_bytes = evaluate.window_bits(model, N_WINDOWS, seq_len=SEQ_LEN)
    by_text = (n_bits / n_bytes).round(4).tolist()
    return round(float(n_bits.sum() / n_bytes.sum()), 5), by_text


# more models than one training has parts, lest the next that begins alike find the first ones gone
@lru_cache(maxsize=16)
def train_parts(parts: Parts, seed: int, lr: float) -> tuple[Transformer, tuple[dict, ...]]:
    """The model after these parts; the bits per byte with which each begins and ends.

    The first row is the dense model's. The smallest weights go when a part begins.
    """
    if not parts:
        model = load_stdlib_gpt()
        level = bits(model)[0]
        return model, (dict(removed=0.0, steps=0, before=level, after=level),)
    earlier, (ratio, n_steps) = parts[:-1], parts[-1]
    start, rows = train_parts(earlier, seed, lr)
    model, n_done = deepcopy(start), sum(n for _, n in earlier)
    batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6 + n_done)
    masks = pruning.weight_masks(model, partial(pruning.magnitude_mask, ratio=ratio))
    with pruning.hold_masks(model, masks):
        before = rows[-1]["after"] if ratio == rows[-1]["removed"] else bits(model)[0]
        train.fit(model, batch, n_steps, optimizers=train.adamw(model, lr))
    row = dict(removed=ratio, steps=n_steps, before=before, after=bits(model)[0])
    return model, (*rows, row)


def run_one(schedule: str, ratio: float, seed: int, lr: float) -> dict:
    """Bits per byte of the dense model, at the "end" (over all and by text), the largest "drop".

    That is the most that pruning costs at once, before any training mends it.
    """
    model, rows = train_parts(parts(schedule, ratio), seed, lr)
    drop = max(row["before"] - level["after"] for level, row in pairwise(rows))
    end, texts = bits(model)
    return dict(dense=rows[0]["after"], drop=round(drop, 5), end=end, parts=rows, texts=texts)


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """Differences in bits per byte by the ids of the rules, paired by seed.

    "drop" and "end": gradual less one-shot; "above-control": one-shot less the control; "control":
    the control less the dense model. Seeds that lack a run do not count.
    """
    by_point: dict[tuple[str, float], dict[int, Mapping]] = {point: {} for point in POINTS}
    for run in runs:
        by_point[run["schedule"], run["ratio"]][run["seed"]] = run
    seeds = sorted(set.intersection(*map(set, by_point.values())))

    def difference(key: str, point: tuple, less: tuple, less_key: str = "") -> Estimate:
        values = [by_point[point][seed][key] for seed in seeds]
        return paired_difference(values, [by_point[less][seed][less_key or key] for seed in seeds])

    pairs = {"control": difference("end", CONTROL, CONTROL, "dense")}
    for ratio in (EASY[1], *RATIOS):
        pairs[f"above-control-{ratio:.0%}"] = difference("end", ("one-shot", ratio), CONTROL)
    for key, ratio in product(("drop", "end"), RATIOS):
        pairs[f"{key}-{ratio:.0%}"] = difference(key, ("gradual", ratio), ("one-shot", ratio))
    return {key.removesuffix("%"): pair for key, pair in pairs.items()}


def stays(increases: Iterable[float]) -> bool:
    """Whether a control's distance from the dense model is within `MARGIN` after every round."""
    return all(abs(increase) <= MARGIN for increase in increases)


def choose_rate(runs: Iterable[Mapping]) -> float:
    """The largest rate at which the pilot's control stays with every seed."""
    for lr in RATES:
        controls = [run["increases"] for run in runs if run["lr"] == lr]
        if len(controls) == len(PILOT_SEEDS) and all(map(stays, controls)):
            return lr
    raise ValueError(f"{PILOT}: no rate keeps the control within {MARGIN}; has the pilot ended?")


def settings() -> dict:
    """What all runs have in common but the rate."""
    shape = dict(n_rounds=N_ROUNDS, steps_per_round=STEPS_PER_ROUND, initial=INITIAL)
    shape |= dict(n_increments=N_INCREMENTS, steps_per_increment=STEPS_PER_INCREMENT)
    shape |= dict(batch_size=BATCH_SIZE, seq_len=SEQ_LEN, n_windows=N_WINDOWS)
    return shape | dict(rates=RATES, pilot_seeds=PILOT_SEEDS)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every point with every seed; recorded as data/experiments/pruning-recovery."""
    lr = choose_rate(read_record(PILOT)["runs"])
    each = [dict(schedule=s, ratio=r, seed=seed) for seed, (s, r) in product(SEEDS, POINTS)]
    rules, models = rules_for(NAME), {"stdlib-gpt": read_card()["sha256"]}
    options = dict(models=models, rules=rules, any_machine=True)
    own, one = settings() | dict(lr=lr), partial(run_one, lr=lr)
    return run_cases(NAME, each, one, settings=own, fresh=fresh, **options)
