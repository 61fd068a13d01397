"""Smoothed static INT8 over 3,000 functions, calibrated on five draws of text.

What `int8-accuracy.calibrated` rests on. Methods count as functions here, since the library's
module-level ones are a third as many. The rank of each function is kept, so that forms pair by it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from efflab import data, evaluate, points
from efflab.bench import one_thread
from efflab.errors import require_one_of
from efflab.estimate import Estimate, bootstrap
from efflab.experiments import int8_engines
from efflab.experiments import int8_ranges as ranges
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for

NAME = "int8-ranges-2"
N_FUNCTIONS, N_CALIBRATIONS, N_TEXTS = 3000, 5, int8_engines.N_CALIBRATION
SEEDS = tuple(range(100, 100 + N_CALIBRATIONS))
FORMS = {"fp32": "", "control": ranges.CONTROL, "smoothed": ranges.SMOOTHED}
"""What is embedded; the first two use no text for calibration, and run once."""


@lru_cache(maxsize=1)
def functions() -> tuple[list, list]:
    """(functions for evaluation, the others): a draw that no seed changes."""
    every = data.documented_functions(methods=True)
    order = np.random.default_rng(0).permutation(len(every))
    return [every[i] for i in order[:N_FUNCTIONS]], [every[i] for i in order[N_FUNCTIONS:]]


def run_one(form: str, seed: int) -> dict:
    """The rank of each function among all by its docstring, as one text: "1 3 1 12 ..."."""
    require_one_of("form", form, FORMS)
    model, tokenizer = points.encoder()
    test, others = functions()
    draw = np.random.default_rng(seed).choice(len(others), N_TEXTS, replace=False)
    if form != "fp32":  # single docstrings, as `int8_engines.calibration` has them
        batches = int8_engines.batches(tokenizer, [others[i].query for i in draw], 1)
        model = ranges.make_encoder(FORMS[form], model, batches)
    reciprocal = evaluate.reciprocal_ranks(*ranges.vectors(model, test))
    return dict(ranks=" ".join(str(round(1 / value)) for value in reciprocal.tolist()))


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """MRR less fp32's, in % of fp32's: each function's mean over the draws, functions resampled."""
    reciprocal: dict[str, list] = {form: [] for form in FORMS}
    for run in runs:
        reciprocal[run["form"]].append(1 / np.array(run["ranks"].split(), dtype=float))
    mean = {form: np.mean(values, axis=0) for form, values in reciprocal.items()}
    fp32 = mean.pop("fp32")
    return {
        f"{form}-{N_FUNCTIONS}": bootstrap(100 * (ours - fp32), fp32) for form, ours in mean.items()
    }


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every form, smoothed with every seed; recorded as data/experiments/int8-ranges-2."""
    each = [dict(form=form, seed=SEEDS[0]) for form in FORMS]
    each += [dict(form="smoothed", seed=seed) for seed in SEEDS[1:]]
    own = dict(n_functions=N_FUNCTIONS, n_calibrations=N_CALIBRATIONS, n_texts=N_TEXTS)
    options = dict(models={"MiniLM-L6": data.MINILM_SHA256}, rules=rules_for(NAME))
    options |= dict(settings=own, versions_of=("transformers",))
    return run_cases(NAME, each, run_one, fresh=fresh, **options)
