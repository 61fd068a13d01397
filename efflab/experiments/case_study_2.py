"""Attention lightened by 30 % of the FLOPs, then trained 1,000 steps; the plain model beside it.

The design to come of `ernie-dynamic`: twelve times the steps of `case-study`, with its recipe, at
the rate that `pruning-recovery-pilot` chose by the plain model (in batches of 8, where these are of
4). Training goes in rounds, each with its own warm-up and cool-down, so that what a further round
gains can be seen. Every seed trains on its own batches and judges by its own held-out windows, both
the same for both variants, so that an interval over seeds covers texts too. All controls are run
first: where they leave the rule's margin the rest need not be trained.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import partial

from efflab import points, train
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import lighten
from efflab.experiments.case_study import BATCH_SIZE, SEQ_LEN, SHARE
from efflab.experiments.case_study_latency import read_recipe
from efflab.experiments.pruning_recovery import PILOT, choose_rate
from efflab.experiments.record import by_seed, read_record
from efflab.experiments.training import held_out_bits, training_windows
from efflab.experiments.variants import run_variants
from efflab.model import Transformer
from efflab.pretrained import read_card

NAME = "case-study-2"
VARIANTS = ("control", "lightened")
N_STEPS, N_ROUNDS, N_WINDOWS = 1000, 4, 256
SEEDS = range(300, 305)


def make(variant: str) -> Transformer:
    """`stdlib-gpt` as shipped, or a copy lightened as in `case-study`; not trained yet."""
    require_one_of("variant", variant, VARIANTS)
    model = points.language_model()
    return deepcopy(model) if variant == "control" else lighten.lighten(model, read_recipe())


def seed_bits(model: Transformer, seed: int) -> float:
    """Bits per byte of the second halves of the seed's held-out windows."""
    return round(held_out_bits(model, N_WINDOWS, SEQ_LEN, seed), 5)


def run_one(variant: str, seed: int, lr: float) -> dict:
    """Bits per byte before training and after each round; the FLOPs."""
    model = make(variant)
    levels, n_steps = [seed_bits(model, seed)], N_STEPS // N_ROUNDS
    for done in range(0, N_STEPS, n_steps):
        batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6 + done)
        train.fit(model, batch, n_steps, optimizers=train.adamw(model, lr))
        levels.append(seed_bits(model, seed))
    flops = lighten.forward_flops(model, SEQ_LEN)
    return dict(before=levels[0], end=levels[-1], levels=levels, flops=flops)


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """Differences in bits per byte, paired by seed.

    "tuned": lightened less the control; "control": the control less the model as shipped;
    "last-round": what the last of the rounds added to the lightened model.
    """
    runs = [run | dict(earlier=run["levels"][-2]) for run in runs]
    end, before, earlier = (by_seed(runs, "variant", key) for key in ("end", "before", "earlier"))
    return {
        "tuned": paired_difference(end["lightened"], end["control"]),
        "control": paired_difference(end["control"], before["control"]),
        "last-round": paired_difference(end["lightened"], earlier["lightened"]),
    }


def settings() -> dict:
    """What all runs have in common but the rate."""
    recipe = read_recipe()
    shape = dict(n_steps=N_STEPS, n_rounds=N_ROUNDS, batch_size=BATCH_SIZE, seq_len=SEQ_LEN)
    shape |= dict(share=SHARE, n_windows=N_WINDOWS)
    return shape | dict(windows=recipe.windows, removed=recipe.removed)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Both variants with every seed; recorded as data/experiments/case-study-2."""
    lr = choose_rate(read_record(PILOT)["runs"])
    options = dict(models={"stdlib-gpt": read_card()["sha256"]}, any_machine=True, fresh=fresh)
    own, one = settings() | dict(lr=lr), partial(run_one, lr=lr)
    return run_variants(NAME, one, VARIANTS, SEEDS, own, seeds_first=False, **options)
