"""Prune at once or step by step, with the same training; answers prune-gradual and prune-finetune.

`stdlib-gpt`, magnitude pruning of every matrix in the layers, masks held through three rounds of
fine-tuning. One-shot removes all before round 1; gradual removes 10 % then, and the rest before
rounds 2 and 3. Within a seed every run sees the same batches, and so does the unpruned control.
"""

from copy import deepcopy
from itertools import product
from statistics import mean, stdev

from efflab import evaluate, train
from efflab.bench import one_thread
from efflab.compression import pruning
from efflab.errors import require, require_int, require_one_of
from efflab.experiments.record import run_cases
from efflab.experiments.training import training_windows
from efflab.model import Transformer
from efflab.pretrained import load_stdlib_gpt, read_card

NAME = "pruning-schedule"
N_ROUNDS, STEPS_PER_ROUND, BATCH_SIZE, SEQ_LEN, LR = 3, 40, 8, 128, 6e-4
N_WINDOWS, INITIAL = 32, 0.1
RATIOS, SEEDS = (0.5, 0.8, 0.9), (0, 1, 2)
SCHEDULES = ("one-shot", "gradual")
EARLY = 10  # one-shot is also evaluated after these first steps, which a notebook repeats


def rounds(schedule: str, ratio: float) -> list[float]:
    """The ratio of removed weights during each round. A `ratio` of 0 is the unpruned control."""
    require_one_of("schedule", schedule, SCHEDULES)
    if schedule == "one-shot" or ratio <= INITIAL:
        return [ratio] * N_ROUNDS
    return pruning.gradual_schedule(INITIAL, ratio, N_ROUNDS)


def bits(model: Transformer) -> float:
    """Bits per byte on held-out windows, the same 32 of 128 tokens for every run."""
    return evaluate.bits_per_byte(model, N_WINDOWS, seq_len=SEQ_LEN).mean


def tune(
    model: Transformer, ratio: float, seed: int, round_: int, stop: int | None = None
) -> tuple[float, float]:
    """Prune `model` in place to `ratio`, train it for a round: bits before and after training.

    `stop`: end after this many of the round's steps.
    """
    masks = pruning.weight_masks(model, lambda w: pruning.magnitude_mask(w, ratio))
    batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6 + round_ * STEPS_PER_ROUND)
    with one_thread():
        with pruning.hold_masks(model, masks):
            before = bits(model)
            optimizers = train.adamw(model, LR)
            train.fit(model, batch, STEPS_PER_ROUND, optimizers=optimizers, stop=stop)
        return before, bits(model)


def prune_and_tune(
    model: Transformer, schedule: str, ratio: float, seed: int = 0, n_rounds: int = N_ROUNDS
) -> list[dict]:
    """A row for each of the first `n_rounds` rounds: ratio, bits before and after its training.

    Works on a copy. The rounds are those of the whole schedule of three.
    """
    require(0 <= ratio < 1, "ratio", ratio, "a share from 0 to below 1")
    require_int("seed", seed, 0)
    require_int("n_rounds", n_rounds)
    require(n_rounds <= N_ROUNDS, "n_rounds", n_rounds, "at most {high}", high=N_ROUNDS)
    model, rows = deepcopy(model), []
    for i, removed in enumerate(rounds(schedule, ratio)[:n_rounds]):
        before, after = tune(model, removed, seed, i)
        rows.append(dict(removed=round(removed, 4), before=round(before, 4), after=round(after, 4)))
    return rows


def early(model: Transformer, ratio: float, seed: int = 0) -> float:
    """Bits per byte of one-shot pruning after `EARLY` steps of its first round, on a copy."""
    return tune(deepcopy(model), ratio, seed, 0, EARLY)[1]


def run_one(schedule: str, ratio: float, seed: int) -> dict:
    """The rounds of one schedule; for one-shot pruning also the result after `EARLY` steps."""
    model = load_stdlib_gpt()
    result = dict(rounds=prune_and_tune(model, schedule, ratio, seed))
    if schedule == "one-shot" and ratio:
        result |= dict(early=round(early(model, ratio, seed), 4))
    return result


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Both schedules at every ratio and seed, and the control; recorded as pruning-schedule.

    About 20 minutes of one core.
    """
    settings = dict(n_rounds=N_ROUNDS, steps_per_round=STEPS_PER_ROUND, batch_size=BATCH_SIZE)
    settings |= dict(seq_len=SEQ_LEN, lr=LR, n_windows=N_WINDOWS, initial=INITIAL)
    settings |= dict(dense=round(bits(load_stdlib_gpt()), 4), early=EARLY)
    points = [("one-shot", 0.0), *((s, ratio) for ratio in RATIOS for s in SCHEDULES)]
    cases = [dict(schedule=s, ratio=r, seed=seed) for seed, (s, r) in product(SEEDS, points)]
    models = {"stdlib-gpt": read_card()["sha256"]}
    return run_cases(NAME, cases, run_one, settings=settings, models=models, fresh=fresh)


def increases(experiment: dict) -> dict[tuple[str, float], dict[str, list]]:
    """(schedule, ratio) -> bits per byte above the dense model by round, over the seeds.

    `removed`, `mean`, `low`, `high`, `sd` after each round's training, and `before` it (mean).
    The control is ("one-shot", 0.0).
    """
    dense, results = experiment["settings"]["dense"], {}
    for key in sorted({(r["schedule"], r["ratio"]) for r in experiment["runs"]}):
        runs = [r["rounds"] for r in experiment["runs"] if (r["schedule"], r["ratio"]) == key]
        by_round = list(zip(*runs, strict=True))
        after = [[row["after"] - dense for row in rows] for rows in by_round]
        results[key] = dict(
            removed=[rows[0]["removed"] for rows in by_round],
            before=[mean(row["before"] - dense for row in rows) for rows in by_round],
            mean=[mean(v) for v in after],
            low=[min(v) for v in after],
            high=[max(v) for v in after],
            sd=[stdev(v) if len(v) > 1 else 0.0 for v in after],
        )
    return results
