"""The runs of `linformer_trained`, with seeds that no record had when their rule was registered."""

from efflab.bench import one_thread
from efflab.experiments.linformer_trained import VARIANTS, run_one, settings
from efflab.experiments.variants import run_variants

NAME, SEEDS = "linformer-trained-2", range(200, 205)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every variant with every seed; recorded as data/experiments/linformer-trained-2."""
    return run_variants(NAME, run_one, VARIANTS, SEEDS, settings(), fresh=fresh)
