"""From how many calibration tokens on GPTQ's layers err less than layers rounded to nearest.

Answers `gptq-error.layers`: every linear map in the layers of `stdlib-gpt`, 3 bits, a scale
for each row. A seed draws the calibration text; the held-out text is the same for all of them. The
error is that of `gptq-quality`; it is kept map by map, since a wide map asks for more tokens.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import product

import numpy as np

from efflab.bench import one_thread
from efflab.compression.calibration import SEQ_LEN, calibration, quantize_by
from efflab.compression.gptq import output_error
from efflab.compression.packed import Quantized
from efflab.estimate import Estimate, of_mean
from efflab.experiments.gptq_quality import language_model
from efflab.experiments.record import run_cases
from efflab.experiments.registration import rules_for
from efflab.pretrained import read_card

NAME = "gptq-crossing"
BITS, TOKENS = 3, (128, 256, 512, 1024, 2048, 4096)
SEEDS = (100, 101, 102, 103, 104)


def map_errors(quantized: Quantized) -> np.ndarray:
    """Squared error of each map's output over its squared norm, on held-out text."""
    model, held_out = language_model()
    weights = ((name, q, model.get_parameter(name)) for name, q in quantized.items())
    return np.array([output_error(weight, q, held_out[name]) for name, q, weight in weights])


@lru_cache(maxsize=1)
def nearest_errors() -> np.ndarray:
    """`map_errors` of rounding to nearest, which no calibration changes."""
    return map_errors(quantize_by("rtn", language_model()[0], BITS, None))


def run_one(n_tokens: int, seed: int) -> dict:
    """The layers' mean error by both methods, GPTQ's over the other's, and that ratio by map."""
    batches = calibration(n_tokens, seed=seed)
    errors = map_errors(quantize_by("gptq", language_model()[0], BITS, None, batches))
    gptq, nearest = float(errors.mean()), float(nearest_errors().mean())
    maps = (errors / nearest_errors()).round(4).tolist()
    return dict(gptq=gptq, nearest=nearest, ratio=gptq / nearest, maps=maps)


def cases(runs: Iterable[Mapping]) -> dict[str, Estimate]:
    """{"tokens-128": GPTQ's error over rounding to nearest's, mean and interval over seeds, ...}"""
    ratios = {n: [run["ratio"] for run in runs if run["n_tokens"] == n] for n in TOKENS}
    return {f"tokens-{n}": of_mean(v) for n, v in ratios.items()}


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Every number of tokens with every seed; recorded as data/experiments/gptq-crossing."""
    each = [dict(n_tokens=n, seed=seed) for seed, n in product(SEEDS, TOKENS)]
    own = dict(bits=BITS, seq_len=SEQ_LEN, damp=0.01, maps=list(language_model()[1]))
    rules, models = rules_for(NAME), {"stdlib-gpt": read_card()["sha256"]}
    return run_cases(NAME, each, run_one, settings=own, models=models, rules=rules, fresh=fresh)
