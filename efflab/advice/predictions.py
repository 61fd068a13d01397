"""The plan's predictions beside what the case study measured: ratios, errors, and pairs in order.

Predicted from nothing that the case study measured: FLOPs and parameters by formula, an engine's
speed and what it takes from the quality by the records of another model (MiniLM).
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import log
from statistics import median

from efflab.advice import recorded as found
from efflab.advice.compression import DYNAMIC, STATIC, packed_bytes
from efflab.config import PRESETS
from efflab.cost import num_params
from efflab.errors import require
from efflab.experiments import case_study
from efflab.experiments import case_study_latency as timed
from efflab.experiments.record import EXPERIMENTS, recorded

LATENCY, SIZE, QUALITY = "latency", "size", "quality"
LIKE = {
    timed.FP32: "fp32 eager",
    timed.BF16: "bf16 eager",
    timed.DYNAMIC: DYNAMIC,
    timed.OPENVINO: "OpenVINO fp32",
    timed.FP16: "OpenVINO fp32",  # fp16 is how it is stored, not what it computes in
    timed.INT8: STATIC,
}
"""The case study's engine -> the engine of int8-engines that it is predicted by; OpenVINO in bf16
was recorded for no other model, and is not predicted."""
SHAPES = {1: "4x64", 8: "16x128"}
"""Texts of 512 tokens at once -> the recorded batch whose tokens come closest."""
FAINT = 0.001
"""Bytes that differ by less count as equal: they are headers."""
Rows = Mapping[tuple[str, str], dict]


def latency_rows(n: int = 1, isa: str | None = None) -> Rows:
    """(stage, engine) -> measured row of the case study; without its record a `ValueError`."""
    there = (EXPERIMENTS / f"{timed.NAME}.json").exists()
    allowed = f"no record yet: `efflab experiment {timed.NAME}` makes it"
    require(there, "record", timed.NAME, allowed)
    return timed.rows_of(recorded(timed.NAME), n, isa)


# --- Predicted beside measured ---------------------------------------------------------------


def latency(rows: Rows, device: str, n: int = 1, band: float = 0.0) -> list[dict]:
    """Time over the first of all, predicted: FLOPs of the stage times the engine's own ratio."""
    base = rows[timed.SHIPPED, timed.FP32]["flops"]
    made = []
    for (stage, engine), row in rows.items():
        if engine in LIKE:
            factor = found.engine_row(LIKE[engine], device)[SHAPES[n]]
            ends = row["low"] - band, row["high"] + band
            measured = dict(predicted=factor * row["flops"] / base, measured=row["ratio"])
            made.append(_row(LATENCY, stage, engine, measured, *ends))
    return made


def size(rows: Rows, n_params: Mapping[str, int]) -> list[dict]:
    """Bytes over the first of all, by formula; `n_params` of each stage."""
    base = rows[timed.SHIPPED, timed.FP32]["nbytes"]
    made = []
    for (stage, engine), row in rows.items():
        if engine in LIKE:
            share = bytes_a_parameter(engine) / 4 * n_params[stage] / n_params[timed.SHIPPED]
            ratio = row["nbytes"] / base
            ends = ratio * (1 - FAINT), ratio * (1 + FAINT)
            made.append(_row(SIZE, stage, engine, dict(predicted=share, measured=ratio), *ends))
    return made


def bytes_a_parameter(engine: str) -> float:
    """Of `stdlib-gpt` in that engine, by formula."""
    config = PRESETS["stdlib-gpt"]
    whole = {timed.BF16: 2.0, timed.FP16: 2.0}
    tables = {timed.DYNAMIC: None, timed.INT8: 8}
    if engine in tables:
        return packed_bytes(config, 8, table_bits=tables[engine]) / num_params(config)
    return whole.get(engine, 4.0)


def quality(engines: list[dict], shipped: float, device: str) -> list[dict]:
    """Bits per byte over the model as shipped: what each engine takes, predicted from MiniLM's
    retrieval or the board. `engines`: rows of `case-study` for the path "as shipped"."""
    losses = {
        timed.BF16: found.board_loss("bf16 throughout").value,
        timed.DYNAMIC: found.engine_loss(DYNAMIC, device).value,
        timed.INT8: found.engine_loss(STATIC, device).value,
    }
    made = []
    for row in engines:
        if row["engine"] in losses:
            predicted = 1 + losses[row["engine"]] / 100
            value = dict(predicted=predicted, measured=row["bits"] / shipped)
            ends = row["low"] / shipped, row["high"] / shipped
            made.append(_row(QUALITY, timed.SHIPPED, row["engine"], value, *ends))
    return made


def _row(what: str, stage: str, engine: str, value: dict, low: float, high: float) -> dict:
    error = value["predicted"] / value["measured"] - 1
    return dict(what=what, stage=stage, engine=engine, **value, low=low, high=high, error=error)


def stage_params(experiment: dict) -> dict[str, int]:
    """Parameters of each stage, from the orders of `case-study`."""

    def first(path: str) -> list[dict]:
        return next(iter(case_study.paths(experiment, path).values()))["rows"]

    main, other = first(case_study.MAIN), first("prune, lighten")
    return {
        timed.SHIPPED: num_params(PRESETS["stdlib-gpt"]),
        timed.LIGHT: main[0]["n_params"],
        timed.PRUNED: other[0]["n_params"],
        timed.BOTH: main[-1]["n_params"],
    }


# --- Pairs -----------------------------------------------------------------------------------


def pairs(rows: list[dict]) -> Iterator[dict]:
    """Every two rows that were measured as different: is the order the predicted one?

    Different: intervals that do not touch. `is_right` is False too where both are predicted equal.
    """
    for a, b in combinations(rows, 2):
        if a["what"] == b["what"] and (a["high"] < b["low"] or b["high"] < a["low"]):
            right = (a["predicted"] - b["predicted"]) * (a["measured"] - b["measured"]) > 0
            yield dict(what=a["what"], a=_name(a), b=_name(b), is_right=right,
                       predicted=a["predicted"] / b["predicted"],
                       measured=a["measured"] / b["measured"])  # fmt: skip


def _name(row: dict) -> str:
    return f"{row['stage']}, {row['engine']}"


def summary(rows: list[dict]) -> list[dict]:
    """For each quantity: pairs that differ, those in order, and the typical and largest error."""
    made = []
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        judged = list(pairs(mine))
        errors = sorted(abs(log(1 + row["error"])) for row in mine)
        right = sum(pair["is_right"] for pair in judged)
        row = dict(what=what, predictions=len(mine), pairs=len(judged), right=right)
        made.append(row | dict(median_error=median(errors), largest_error=errors[-1]))
    return made


def predictions(device: str = "CPU with VNNI", n: int = 1, isa: str | None = None) -> list[dict]:
    """All that can be predicted of what the case study measured; a `ValueError` without records."""
    rows, study = latency_rows(n, isa), recorded(case_study.NAME)
    shipped = next(iter(case_study.paths(study, "as shipped").values()))
    return [
        *latency(rows, device, n),
        *size(rows, stage_params(study)),
        *quality(shipped["engines"], study["settings"]["shipped"], device),
    ]
