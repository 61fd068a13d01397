"""What experiments that train variants of a model have in common: every seed trains each of them.

Runs of a seed see the same batches, so that losses pair by seed.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product

from efflab.estimate import Estimate, paired_difference
from efflab.experiments.record import by_seed, run_cases
from efflab.experiments.registration import rules_for


def run_variants(
    name: str,
    run_one: Callable[..., dict],
    variants: Iterable[str],
    seeds: Iterable[int],
    settings: dict,
    *,
    seeds_first: bool = True,
    **options,
) -> dict:
    """`run_cases` of every variant with every seed, for the rules that rest on the record.

    `seeds_first`: all variants of a seed before the next; else all seeds of a variant.
    """
    each = [dict(variant=variant, seed=seed) for variant, seed in product(variants, seeds)]
    if seeds_first:
        each.sort(key=lambda case: case["seed"])
    return run_cases(name, each, run_one, settings=settings, rules=rules_for(name), **options)


def paired_losses(
    runs: Iterable[Mapping], cases: Mapping[str, tuple[str, str]]
) -> dict[str, Estimate]:
    """{id: the loss of one variant less another's, paired by seed}; `cases`: id -> the two."""
    losses = by_seed(runs, "variant", "loss")
    return {key: paired_difference(losses[a], losses[b]) for key, (a, b) in cases.items()}
