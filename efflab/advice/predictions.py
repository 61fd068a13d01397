"""The plan's predictions against the case study's measurements: ratios, errors, order of pairs.

No prediction uses the case study's measurements: FLOPs and parameters are from formulas, an
engine's time per FLOP from random models of other widths, its loss of quality from MiniLM. If these
models do not all order two engines alike beyond their noise, the plan makes no statement.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import log
from statistics import geometric_mean, median

from efflab.advice import recorded as found
from efflab.advice.compression import FP32_BYTES, SCALE, map_weights, packed_bytes
from efflab.advice.engines import DYNAMIC, STATIC
from efflab.config import PRESETS
from efflab.cost import num_params
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import case_study, language_engines, openvino_graphs
from efflab.experiments import case_study_latency as timed
from efflab.experiments.record import EXPERIMENTS, read_record

LATENCY, SIZE, QUALITY = "latency", "size", "quality"
FAINT = 0.001
"""Relative difference of bytes that counts as equal: file headers."""
TORCH_SCALE = 16
"""Bytes of a scale (float64) and zero point (int64) in torch.quantize_per_channel's tensor."""
Rows = Mapping[tuple[str, str], dict]
Windows = Sequence[int | None]


def latency_rows(n: int = 1, isa: str | None = None) -> Rows:
    """(stage, engine) -> measured row of the case study; without its record a `ValueError`."""
    exists = (EXPERIMENTS / f"{timed.NAME}.json").exists()
    allowed = f"no record yet: `efflab experiment {timed.NAME}` makes it"
    require(exists, "record", timed.NAME, allowed)
    return timed.rows_of(read_record(timed.NAME), n, isa)


# --- Predicted beside measured ---------------------------------------------------------------


def latency(
    rows: Rows, windows: Mapping[str, Windows], factors: Mapping[tuple[str, str], list[Estimate]]
) -> list[dict]:
    """Time relative to the first row: FLOPs by formula times the engine's time per FLOP.

    `windows` of each stage; `factors` as from `language_engines.factors`. In a row, `each` holds
    the interval by each of the timed models.
    """
    base = rows[timed.SHIPPED, timed.FP32]["flops"]
    predictions = []
    for (stage, engine), row in rows.items():
        windowed = any(w is not None for w in windows[stage])
        speed = (language_engines.WINDOWS if windowed else language_engines.PLAIN, engine)
        flops, value = row["flops"] / base, (row["ratio"], row["low"], row["high"])
        predicted = flops * geometric_mean(f.mean for f in factors[speed])
        each = [(flops * f.low, flops * f.high) for f in factors[speed]]
        predictions.append(_row(LATENCY, stage, engine, predicted, value, speed, each))
    return predictions


def size(rows: Rows, n_params: Mapping[str, int], windows: Mapping[str, Windows]) -> list[dict]:
    """Bytes relative to the first row, by formula; `n_params` and `windows` of each stage."""
    base = rows[timed.SHIPPED, timed.FP32]["nbytes"]
    plain = bytes_of(timed.FP32, n_params[timed.SHIPPED], windows[timed.SHIPPED])
    predictions = []
    for (stage, engine), row in rows.items():
        share = bytes_of(engine, n_params[stage], windows[stage]) / plain
        ratio = row["nbytes"] / base
        value = ratio, ratio - FAINT, ratio + FAINT
        predictions.append(_row(SIZE, stage, engine, share, value))
    return predictions


def bytes_of(engine: str, n_params: int, windows: Windows) -> float:
    """File size of `stdlib-gpt` with `n_params` left (removed ones are of linear maps) and a window
    per layer: weights, scales, and the graph if the engine stores one.
    """
    if engine in (timed.DYNAMIC, timed.INT8):
        weights = int8_bytes(engine, n_params)
    else:
        weights = n_params * (2 if engine in (timed.BF16, timed.FP16) else 4)
    file = timed.OPENVINO if engine == timed.OPENVINO_BF16 else engine  # only computing is in bf16
    return weights + (graph_bytes(file, windows) if file in openvino_graphs.ENGINES else 0)


def int8_bytes(engine: str, n_params: int) -> float:
    """Bytes of weights and scales. torch stores a row's scale and zero point in 8 bytes each, and
    the tables in fp32; NNCF quantizes what is multiplied or looked up, so the position table, of
    which a slice is added, stays in fp32.
    """
    config = PRESETS["stdlib-gpt"]
    removed = num_params(config) - n_params  # one byte each
    if engine == timed.DYNAMIC:
        weights, n_rows = map_weights(config)
        wider = (1 - removed / weights) * n_rows * (TORCH_SCALE - SCALE)
        return packed_bytes(config, 8, table_bits=None) - removed + wider
    positions = config.max_len * config.embed_dim
    return packed_bytes(config, 8) - removed + positions * (FP32_BYTES - 1)


def graph_bytes(engine: str, windows: Windows) -> int:
    """Bytes recorded for a narrow model with the same layers; a `ValueError` for other windows."""
    stored = read_record(openvino_graphs.NAME)["runs"]
    runs = {(run["engine"], tuple(run["windows"])): run for run in stored}
    require_one_of("windows", tuple(windows), sorted({w for _, w in runs}, key=str))
    run = runs[engine, tuple(windows)]
    return run["text"] + run["masks"]


def quality(engines: list[dict], shipped: float, device: str) -> list[dict]:
    """Bits per byte relative to the shipped model, predicted from MiniLM's loss of retrieval or the
    board. `engines`: rows of `case-study` for the path "as shipped"."""
    losses = {
        timed.BF16: found.board_loss("bf16 throughout").value,
        timed.DYNAMIC: found.engine_loss(DYNAMIC, device).value,
        timed.INT8: found.engine_loss(STATIC, device).value,
    }
    predictions = []
    for row in engines:
        if row["engine"] in losses:
            predicted = 1 + losses[row["engine"]] / 100
            value = tuple(row[key] / shipped for key in ("bits", "low", "high"))
            predictions.append(_row(QUALITY, timed.SHIPPED, row["engine"], predicted, value))
    return predictions


def _row(what: str, stage: str, engine: str, predicted: float, value, speed=None, each=()) -> dict:
    """A prediction beside the measured `value` with its ends; without a `speed` it is exact."""
    each, (measured, low, high) = each or [(predicted, predicted)], value
    row = dict(what=what, stage=stage, engine=engine, predicted=predicted, speed=speed, each=each)
    row |= dict(measured=measured, least=min(each)[0], most=max(end for _, end in each))
    return row | dict(low=low, high=high, error=predicted / measured - 1)


def stage_params(experiment: dict) -> dict[str, int]:
    """Parameters of each stage, from the paths of `case-study`."""
    paths = (case_study.MAIN, "prune, lighten")
    main, other = (_first_run(experiment, path)["rows"] for path in paths)
    return {
        timed.SHIPPED: num_params(PRESETS["stdlib-gpt"]),
        timed.LIGHT: main[0]["n_params"],
        timed.PRUNED: other[0]["n_params"],
        timed.BOTH: main[-1]["n_params"],
    }


def _first_run(experiment: dict, path: str) -> dict:
    return next(iter(case_study.paths(experiment, path).values()))


def stage_windows(light: Windows) -> dict[str, Windows]:
    """Windows of each stage, by layer; the lightened stages have `light`."""
    plain = (None,) * len(light)
    lightened = (timed.LIGHT, timed.BOTH)
    return {stage: light if stage in lightened else plain for stage in timed.STAGES}


# --- Pairs -----------------------------------------------------------------------------------


def pairs(rows: list[dict]) -> Iterator[dict]:
    """Every pair of rows whose measured intervals do not overlap, with its predicted order.

    `rows` are the two, and ratios the first's over the second's. `is_right` is None if the plan
    makes no statement (see `predicted_order`).
    """
    for a, b in combinations(rows, 2):
        measured = (a["low"], a["high"]), (b["low"], b["high"])
        if a["what"] == b["what"] and _apart(*measured):
            order = predicted_order(a, b)
            is_right = None if order == 0 else (order > 0) == (a["measured"] > b["measured"])
            yield dict(
                rows=(a, b),
                is_right=is_right,
                predicted=a["predicted"] / b["predicted"],
                measured=a["measured"] / b["measured"],
            )


def predicted_order(a: dict, b: dict) -> int:
    """1 if `a` is predicted larger, -1 if smaller, 0 if unknown.

    If both use the same speed, or none, it cancels. Else every timed model must agree, with
    intervals for the two that do not overlap.
    """
    if a["speed"] == b["speed"]:
        difference = a["predicted"] - b["predicted"]
        return (difference > 1e-9) - (difference < -1e-9)
    orders = {_apart(x, y) for x, y in zip(a["each"], b["each"], strict=True)}
    return orders.pop() if len(orders) == 1 else 0


def _apart(x: tuple[float, float], y: tuple[float, float]) -> int:
    """1 if the interval `x` lies entirely above `y`, -1 if below, 0 if they overlap."""
    return (x[0] > y[1]) - (x[1] < y[0])


def summary(rows: list[dict]) -> list[dict]:
    """For each quantity: number of differing pairs; right, wrong and untold (unknown) ones; errors.

    Errors are logarithms of predicted over measured; `middle`: pairs in the right order by the
    predictions' means alone.
    """
    lines = []
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        differing = list(pairs(mine))
        errors = sorted(abs(log(1 + row["error"])) for row in mine)
        answers = [pair["is_right"] for pair in differing]
        middle = sum((pair["predicted"] > 1) == (pair["measured"] > 1) for pair in differing)
        row = dict(what=what, predictions=len(mine), pairs=len(differing))
        row |= dict(right=answers.count(True), wrong=answers.count(False))
        row |= dict(untold=answers.count(None), middle=middle)
        lines.append(row | dict(median_error=median(errors), largest_error=errors[-1]))
    return lines


def predictions(device: str = "CPU with VNNI", n: int = 1, isa: str | None = None) -> list[dict]:
    """All predictions of the case study's measurements; a `ValueError` without records."""
    rows, study = latency_rows(n, isa), read_record(case_study.NAME)
    n_params, windows = stage_params(study), stage_windows(timed.read_recipe().windows)
    factors = language_engines.factors(read_record(language_engines.NAME), isa)
    engines = _first_run(study, "as shipped")["engines"]
    return [
        *latency(rows, windows, factors),
        *size(rows, n_params, windows),
        *quality(engines, study["settings"]["shipped"], device),
    ]
