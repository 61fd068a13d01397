"""Predictions that are frozen in a commit before anything is measured, and how they fared.

`data/predicted/decoder-N.json`: {"machine", "date", "constants": {format: {"costs", "spread"}},
"cases": [{"model", "format", "phase", "n_tokens", "n_texts", "low", "ms", "high"}, ...]}. Its times
are measured by `decoder-cases`; `docs/predictions.md` has every freeze, those that failed too.
"""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from efflab.advice.step_times import Constants, Score, fit, predict, rate, work_of
from efflab.base.files import write_atomically
from efflab.base.json_files import read_json
from efflab.errors import require, require_one_of
from efflab.estimate import Estimate
from efflab.experiments import decoder_cases, decoder_steps
from efflab.experiments.decoder_steps import CASE
from efflab.experiments.record import EXPERIMENTS, read_record

COVERAGE, WIDTH = 0.85, 2.0
"""What a freeze has to reach, as set beforehand: at least this share of times inside their
intervals, and at most this median of high over low. No pair may be in the wrong order."""


def freeze(folder: Path = decoder_cases.FROZEN) -> Path:
    """Write predictions of 40 new cases, fitted to `decoder-steps` and all earlier freezes."""
    number = len(decoder_cases.frozen(folder)) + 1
    drawn, record = decoder_cases.draw_cases(number), read_record(decoder_steps.NAME)
    shapes = decoder_steps.SHAPES | decoder_cases.SHAPES
    constants = fit([*record["runs"], *_measured_runs()], shapes)
    cases = []
    for case in drawn:
        told = predict(constants[case["format"]], work_of(case, shapes))
        ends = dict(low=round(told.low, 4), ms=round(told.mean, 4), high=round(told.high, 4))
        cases.append({k: v for k, v in case.items() if k != "seed"} | ends)
    content = dict(machine=record["machine"], date=str(date.today()))
    content |= dict(constants={f: c._asdict() for f, c in constants.items()}, cases=cases)
    path = folder / f"decoder-{number}.json"
    require(not path.exists(), "file", path.name, "a freeze is never written again")
    write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def constants(number: int) -> dict[str, Constants]:
    """{format: Constants} that a freeze was computed with."""
    paths = dict(enumerate(decoder_cases.frozen(), 1))
    require_one_of("number", number, paths)
    known = read_json(paths[number])["constants"]
    return {format: Constants(tuple(c["costs"]), c["spread"]) for format, c in known.items()}


def rows(path: Path) -> list[dict]:
    """The cases of a freeze with "measured" beside, ms; without it where nothing was measured."""
    number = int(path.stem.split("-")[1])
    times = {_key(r): {"measured": r["ms"]} for r in _measured_runs() if r["seed"] == number}
    return [case | times.get(_key(case), {}) for case in read_json(path)["cases"]]


def _measured_runs() -> list[dict]:
    """What was measured of all freezes; a run's seed is its freeze's number."""
    exists = (EXPERIMENTS / f"{decoder_cases.NAME}.json").exists()
    return read_record(decoder_cases.NAME)["runs"] if exists else []


def _key(case: Mapping) -> tuple:
    return tuple(case[name] for name in CASE)


def score(cases: list[Mapping]) -> Score:
    """How the predictions of `rows` fared."""
    told = [Estimate(case["ms"], case["low"], case["high"]) for case in cases]
    return rate(told, [case["measured"] for case in cases])


def holds(score: Score) -> bool:
    """Whether a freeze is as good as was asked beforehand."""
    narrow = score.coverage >= COVERAGE and score.width <= WIDTH
    return narrow and score.wrong_orders == 0
