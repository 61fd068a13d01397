"""How long a step of a decoder takes on this CPU, predicted with four constants a format.

    seconds = a layers + b bytes of weights + c FLOPs + d bytes of cache

Nothing hides behind anything else: on one core, reading waits for computing more often than not.
The constants, none negative, are fitted to random models' steps (`experiments.decoder_steps`); the
interval holds 90 % of the errors of a model that was left out (conformal prediction: Lei et al.
2018, section 2).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil, exp, log
from typing import NamedTuple

import numpy as np

from efflab import cost, inference
from efflab.compression.decoders import FORMATS, OPENVINO, weight_bytes
from efflab.config import ModelConfig
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.experiments.decoder_steps import DECODE, SHAPES, Step, step_of

CONFIDENCE = 0.9
TYPICAL_ERROR = 0.2
"""Of a time's natural logarithm; larger ones count linearly, not squared."""
TERMS = ("layers", "bytes of weights", "FLOPs", "bytes of cache")
PACKING = {"torch fp32": 1.5, "torch int8": 2}
"""How often torch's products of several rows read the weights, which they reorder first; chosen by
the errors on `decoder-steps`, after the first freeze was measured."""


class Constants(NamedTuple):
    """Milliseconds for one of each of `TERMS`; `spread`: the factor by which a time may be off."""

    costs: tuple[float, ...]
    spread: float


def work(config: ModelConfig, format: str, step: Step) -> tuple[float, ...]:
    """How many of each of `TERMS` a step has."""
    require_one_of("format", format, FORMATS)
    flops = inference.decode_flops if step.phase == DECODE else inference.prefill_flops
    n_flops = flops(config, step.n_tokens, step.n_texts)
    n_cache = _cache_bytes(config, format, step) if config.causal else 0
    n_rows = step.n_texts * (1 if step.phase == DECODE else step.n_tokens)
    n_weights = weight_bytes(config, format) * (PACKING.get(format, 1) if n_rows > 1 else 1)
    return config.n_layer, n_weights, n_flops, n_cache


def _cache_bytes(config: ModelConfig, format: str, step: Step) -> int:
    """What is read of keys and values: OpenVINO's cache drops nothing behind a window, and torch
    gives each query head a copy of its group's."""
    if format.startswith(OPENVINO):
        attention = replace(config.attention, windows=(None,))
    else:
        attention = replace(config.attention, n_kv_head=config.n_head)
    kept, sizes = replace(config, attention=attention), (step.n_tokens, step.n_texts)
    return cost.kv_cache_bytes(kept, *sizes, value_bytes=FORMATS[format][2])


def fit(
    runs: Iterable[Mapping], shapes: Mapping[str, ModelConfig] = SHAPES
) -> dict[str, Constants]:
    """{format: Constants} from runs of `decoder-steps`, which has the models of `shapes`."""
    by_format: dict[str, list[Mapping]] = {}
    for run in runs:
        by_format.setdefault(run["format"], []).append(run)
    return {format: _fit_format(own, shapes) for format, own in by_format.items()}


def _fit_format(runs: list[Mapping], shapes: Mapping[str, ModelConfig]) -> Constants:
    rows = np.array([work_of(run, shapes) for run in runs], dtype=float)
    ms = np.array([run["ms"] for run in runs])
    names = np.array([run["model"] for run in runs])
    require(len(set(names)) > 1, "runs", sorted(set(names)), "those of two models at least")
    errors = []
    for name in set(names):
        costs = _solve(rows[names != name], ms[names != name])
        errors += np.abs(np.log(ms[names == name] / (rows[names == name] @ costs))).tolist()
    # the quantile of n errors that the next one stays below in 90 % of cases
    rank = min(len(errors), ceil(CONFIDENCE * (len(errors) + 1)))
    return Constants(tuple(_solve(rows, ms).tolist()), exp(sorted(errors)[rank - 1]))


def _solve(rows: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """The costs, none negative, whose errors have the least logarithms; large ones weigh less."""
    from scipy.optimize import least_squares, nnls

    # columns of like size: the terms differ by nine orders of magnitude
    scaled = rows / rows.max(0)
    start = nnls(scaled / ms[:, None], np.ones(len(ms)))[0]
    errors = lambda logs: np.log(scaled @ np.exp(logs) / ms)  # noqa: E731
    first = np.log(np.maximum(start, start.max() * 1e-9))
    logs = least_squares(errors, first, loss="soft_l1", f_scale=TYPICAL_ERROR).x
    return np.exp(logs) / rows.max(0)


def work_of(case: Mapping, shapes: Mapping[str, ModelConfig]) -> tuple[float, ...]:
    """`work` of a case or run with one of the models of `shapes`."""
    return work(shapes[case["model"]], case["format"], step_of(case))


def predict(constants: Constants, terms: Iterable[float]) -> Estimate:
    """Milliseconds of a step with so many of each of `TERMS`, and the 90 % interval."""
    ms = float(np.dot(constants.costs, list(terms)))
    return Estimate(ms, ms / constants.spread, ms * constants.spread)


class Score(NamedTuple):
    """How good intervals were: the share that held the time, the median of high over low, the mean
    interval score of log2 times (Gneiting and Raftery 2007, equation 43: width plus 2 / 0.1 times
    what is missed; less is better), and pairs of which one had been told faster and was not."""

    coverage: float
    width: float
    score: float
    wrong_orders: int
    n_orders: int


def rate(predictions: list[Estimate], times: list[float]) -> Score:
    """Score predictions against the milliseconds that were measured, in the same order."""
    require(len(predictions) == len(times) > 0, "times", len(times), f"{len(predictions)}")
    both = list(zip(predictions, times, strict=True))
    inside = [p.low <= t <= p.high for p, t in both]
    widths = [p.high / p.low for p in predictions]
    missed = [max(log(p.low / t, 2), log(t / p.high, 2), 0) for p, t in both]
    scores = [log(w, 2) + 2 / (1 - CONFIDENCE) * m for w, m in zip(widths, missed, strict=True)]
    orders = [(s < t) for p, s in both for q, t in both if p.high < q.low]
    figures = (np.mean(inside), np.median(widths), np.mean(scores))
    return Score(*map(float, figures), orders.count(False), len(orders))
