"""Attention lightened by 30 % of the FLOPs, then trained 1,000 steps; the plain model beside it.

The design to come of `ernie-dynamic`: twelve times the steps of `case-study`, at the rate that
`pruning-recovery-pilot` chooses by the plain model, with batches twice as large. Training goes in
rounds, each with its own warm-up and cool-down, so that what a further round gains can be seen.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import partial

from efflab import points, train
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import case_study, lighten
from efflab.experiments.case_study import BATCH_SIZE, SEQ_LEN, SHARE
from efflab.experiments.pruning_recovery import N_WINDOWS, PILOT, bits, choose_rate
from efflab.experiments.record import by_seed, read_record
from efflab.experiments.training import training_windows
from efflab.experiments.variants import run_variants
from efflab.model import Transformer
from efflab.pretrained import read_card

NAME = "case-study-2"
VARIANTS = ("control", "lightened")
N_STEPS, N_ROUNDS = 1000, 4
SEEDS = range(100, 105)


def make(variant: str) -> Transformer:
    """`stdlib-gpt` as shipped, or a copy lightened as in `case-study`; not trained yet."""
    require_one_of("variant", variant, VARIANTS)
    model = points.language_model()
    if variant == "control":
        return deepcopy(model)
    return lighten.lighten(model, case_study.recipe_for(model, "lighten"))


def run_one(variant: str, seed: int, lr: float) -> dict:
    """Bits per byte before training and after each round, at the end also by text; the FLOPs."""
    model = make(variant)
    levels, n_steps = [bits(model)[0]], N_STEPS // N_ROUNDS
    for done in range(0, N_STEPS, n_steps):
        batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6 + done)
        train.fit(model, batch, n_steps, optimizers=train.adamw(model, lr))
        end, texts = bits(model)
        levels.append(end)
    flops = lighten.forward_flops(model, SEQ_LEN)
    return dict(before=levels[0], end=end, levels=levels, texts=texts, flops=flops)


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
    shape = dict(n_steps=N_STEPS, n_rounds=N_ROUNDS, batch_size=BATCH_SIZE, seq_len=SEQ_LEN)
    return shape | dict(share=SHARE, n_windows=N_WINDOWS)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Both variants with every seed; recorded as data/experiments/case-study-2."""
    lr = choose_rate(read_record(PILOT)["runs"])
    options = dict(models={"stdlib-gpt": read_card()["sha256"]}, any_machine=True, fresh=fresh)
    own, one = settings() | dict(lr=lr), partial(run_one, lr=lr)
    return run_variants(NAME, one, VARIANTS, SEEDS, own, **options)
