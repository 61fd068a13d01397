"""`linformer-places` again, with seeds that no record had when its rule was registered."""

from itertools import product

from efflab.bench import one_thread
from efflab.experiments.linformer_places import VARIANTS, run_one, settings
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for

NAME, SEEDS = "linformer-places-2", range(210, 222)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every variant with every seed; recorded as data/experiments/linformer-places-2."""
    each = [dict(variant=variant, seed=seed) for seed, variant in product(SEEDS, VARIANTS)]
    rules = rules_for(NAME)
    return run_cases(NAME, each, run_one, settings=settings(), rules=rules, fresh=fresh)
