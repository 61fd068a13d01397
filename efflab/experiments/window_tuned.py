"""Bits per byte of stdlib-gpt with a window in every layer, trained on for it.

Beside it the model as shipped and the plain one trained on alike. Every seed trains on its own
batches and judges by its own held-out windows, both the same for all variants, so that an interval
over seeds covers texts too. The control: the window in the shipped model, which must show.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy

from efflab import points, train
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate, paired_difference
from efflab.experiments import lighten
from efflab.experiments.record import by_seed
from efflab.experiments.training import held_out_bits, training_windows
from efflab.experiments.variants import run_variants
from efflab.model import Transformer
from efflab.pretrained import read_card

NAME = "window-tuned"
WIDTH = 64
N_STEPS, BATCH_SIZE, SEQ_LEN, LR, N_WINDOWS = 200, 4, 512, 3e-4, 64
VARIANTS = ("full", "window")
SEEDS = range(230, 235)
CASES = {
    "window-untrained": (("window", "before"), ("full", "before")),
    "window-trained": (("window", "after"), ("full", "before")),
    "full-trained": (("full", "after"), ("full", "before")),
    "trained-alike": (("window", "after"), ("full", "after")),
}
"""Id of evidence -> whose bits per byte and when, less whose: (variant, before or after)."""


def make(variant: str) -> Transformer:
    """`stdlib-gpt` as shipped, or a copy with `WIDTH` tokens before each query in every layer."""
    require_one_of("variant", variant, VARIANTS)
    model = points.language_model()
    if variant == "full":
        return deepcopy(model)
    return lighten.lighten(model, lighten.windows_alone((WIDTH,) * model.config.n_layer))


def seed_bits(model: Transformer, seed: int) -> float:
    """Bits per byte of the second halves of the seed's held-out windows."""
    return held_out_bits(model, N_WINDOWS, SEQ_LEN, seed)


def run_one(variant: str, seed: int) -> dict:
    """Bits per byte before and after training."""
    model = make(variant)
    before = seed_bits(model, seed)
    batch = training_windows(BATCH_SIZE, SEQ_LEN, seed * 10**6)
    train.fit(model, batch, N_STEPS, optimizers=train.adamw(model, LR))
    return dict(before=round(before, 5), after=round(seed_bits(model, seed), 5))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """`CASES` in bits per byte, paired by seed."""
    bits = {when: by_seed(runs, "variant", when) for when in ("before", "after")}
    return {
        key: paired_difference(bits[when][variant], bits[then][other])
        for key, ((variant, when), (other, then)) in CASES.items()
    }


def settings() -> dict:
    """What all runs have in common."""
    shape = dict(width=WIDTH, seq_len=SEQ_LEN, batch_size=BATCH_SIZE, n_steps=N_STEPS)
    return shape | dict(lr=LR, n_windows=N_WINDOWS)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Both variants with every seed; recorded as data/experiments/window-tuned."""
    options = dict(models={"stdlib-gpt": read_card()["sha256"]}, any_machine=True, fresh=fresh)
    return run_variants(NAME, run_one, VARIANTS, SEEDS, settings(), **options)
