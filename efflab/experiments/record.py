"""Records of experiments: data/experiments/NAME.json, with the runs of all machines.

    {"name": ..., "machines": [
        {"machine": {"cpu", "features", "threads"}, "settings": {...}, "models": {name: sha256},
         "complete": true,
         "provenance": [{"command", "date", "commit", "versions", perhaps "rules", "machine"}, ...],
         "runs": [{..., "seed": 0, "made": 0}, ...]}]}

A block holds runs of one machine under one set of settings and models; blocks are in the order in
which they were begun. `made` is the index of the run's entry in `provenance`, since the runs of a
block may be made on several days. Where no time is measured another machine may go on with a
block; `provenance` names it beside what it made. Values missing in old records are null.
"""

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import stdev
from typing import Any

from efflab.base.files import require_writable, update
from efflab.base.json_files import parse_file, parse_json
from efflab.base.places import DATA_DIR
from efflab.base.significant import significant
from efflab.errors import require, require_one_of
from efflab.experiments import cluster
from efflab.experiments.form import require_record, require_run
from efflab.experiments.provenance import describe_run, machine, machine_name

EXPERIMENTS = DATA_DIR / "experiments"

# --- Reading ---------------------------------------------------------------------------------


def read_record(name: str, machine: str | None = None, folder: Path = EXPERIMENTS) -> dict:
    """What an experiment found on one machine: settings, runs, and what made the last of them.

    `machine`: one of `machines(name)`; else the last one whose runs are complete. Returns name,
    machine (in words), features, threads, settings, models, complete, seeds, runs and provenance;
    command, date, commit and versions are those of the last provenance.
    """
    matching = blocks(name, folder)
    if machine is not None:
        require_one_of("machine", machine, machines(name, folder))
        matching = [b for b in matching if machine_name(b["machine"]) == machine]
    return _view(name, ([b for b in matching if b["complete"]] or matching)[-1])


def by_seed(runs: Iterable[Mapping], group: str, value: str) -> dict[str, list[float]]:
    """{a run's `group`: its `value`s in the order of seeds}; groups of other seeds are refused."""
    groups: dict[str, dict[int, float]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        groups.setdefault(run[group], {})[run["seed"]] = run[value]
    seeds = {name: tuple(values) for name, values in groups.items()}
    require(len(set(seeds.values())) <= 1, "seeds", seeds, f"the same for each {group}")
    return {name: list(values.values()) for name, values in groups.items()}


def machines(name: str, folder: Path = EXPERIMENTS) -> list[str]:
    """The distinct machines of a record in words, in the order in which they were begun."""
    return list(dict.fromkeys(machine_name(b["machine"]) for b in blocks(name, folder)))


def blocks(name: str, folder: Path = EXPERIMENTS) -> list[dict]:
    """The blocks of a record, one per machine and settings; a damaged one is a `ValueError` that
    names it and the remedy."""
    require_one_of("name", name, sorted(path.stem for path in folder.glob("*.json")))
    return _parse(name, (folder / f"{name}.json").read_text(encoding="utf-8"))["machines"]


def _view(name: str, block: dict) -> dict:
    where = block["machine"]
    seeds = sorted({run["seed"] for run in block["runs"]})
    view = where | dict(name=name, machine=machine_name(where), seeds=seeds)
    return block | block["provenance"][-1] | view


def _parse(name: str, text: str) -> dict:
    remedy = f"restore it, or `efflab experiment {name}` makes it anew"
    return parse_file(text, f"{name}.json", check=partial(require_record, name), remedy=remedy)


# --- Running ---------------------------------------------------------------------------------


def run_cases(
    name: str,
    cases: Iterable[dict],
    run_one: Callable[..., dict],
    *,
    settings: dict,
    models: Mapping[str, str] | None = None,
    versions_of: Iterable[str] = (),
    rules: Iterable[str] = (),
    fresh: bool = False,
    any_machine: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    folder: Path = EXPERIMENTS,
) -> dict:
    """Call `run_one(**case)` for every case not recorded on this machine yet; returns the record.

    A case has a `seed`. Each finished run is written at once, so a kill loses only the current one.
    Runs under other `settings`, with other `models` (name -> SHA-256) or of another machine are not
    mixed in; this machine's runs under other settings are kept until all cases are done. `fresh`:
    finished runs are repeated too, each kept until its repeat is done. `versions_of`: packages
    whose versions to record, besides torch; `rules`: hashes of the registered rules
    (`registration.rule_hash`) for which the runs are made. `any_machine`: another machine's block
    is gone on with, where no time is measured.
    """
    cases = _plain(list(cases))
    require(bool(cases) and all("seed" in c for c in cases), "cases", cases, "cases with a seed")
    parts = [c for c in cases if sum(c.items() <= other.items() for other in cases) > 1]
    require(not parts, "cases", parts, "no case twice, nor one that is a part of another")
    path = folder / f"{name}.json"
    require_writable(path)  # before the first run
    record = _open_record(name, path, say)
    here = _plain(machine())
    key = dict(machine=here) | _plain(dict(settings=settings, models=dict(models or {})))
    key = _of_any_machine(record, key) if any_machine else key
    block = _block(record, key)
    others = [b for b in record["machines"] if b is not block and _place(b) == _place(block)]
    say(_intention(name, cases, others, block, fresh))
    command = f"efflab experiment {name}{' --fresh' if fresh else ''}"
    provenance = describe_run(command, versions_of, rules)
    provenance |= dict(machine=here) if here != key["machine"] else {}

    def waits(case: dict) -> bool:  # read anew: another process may have done it by now
        return fresh or _find(_block(_open_record(name, path, say), key), case) is None

    for case, result, seconds in cluster.call_cases(run_one, filter(waits, cases)):
        require_run("run", case | result)
        run = (case, _plain(result), provenance)
        is_kept = case.items() <= (case | run[1]).items()  # else it would not be found again
        require(is_kept, "result", result, "no key of its case with another value")
        _change(name, path, lambda record, run=run: _add(record, key, cases, *run))
        place = f"{cases.index(case) + 1}/{len(cases)}"
        say(f"{place}  {_brief(case)}:  {_brief(result)}  ({seconds:.0f} s)")
    return _view(name, _change(name, path, lambda record: _finish(record, key, cases, others)))


def _open_record(name: str, path: Path, say: Callable[[str], None]) -> dict:
    """The record so far; a damaged one is renamed."""
    if path.exists():
        try:
            return _parse(name, path.read_text(encoding="utf-8"))
        except ValueError as error:
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            say(f"{error}: put aside as {aside.name}")
    return dict(name=name, machines=[])


def _change(name: str, path: Path, change: Callable[[dict], Any]) -> Any:
    """Apply `change` to the current record on disk and write it; returns the result of `change`.

    Under a lock, so that runs added by another process at the same time are not lost.
    """
    returned = []

    def apply(text: str | None) -> str:
        record = dict(name=name, machines=[]) if text is None else _parse(name, text)
        returned.append(change(record))
        return json.dumps(record, indent=1) + "\n"

    update(path, apply)
    return returned[0]


def _of_any_machine(record: dict, key: dict) -> dict:
    """`key`, with the machine of a block of its settings and models if there is one."""
    rest = {name: value for name, value in key.items() if name != "machine"}
    alike = (block for block in record["machines"] if rest.items() <= block.items())
    return key | dict(machine=next(alike, key)["machine"])


def _block(record: dict, key: dict) -> dict:
    """The record's block of this machine, settings and models; appended if it does not exist."""
    block = next((b for b in record["machines"] if key.items() <= b.items()), None)
    if block is None:
        block = key | dict(complete=False, provenance=[], runs=[])
        record["machines"].append(block)
    return block


def _add(record: dict, key: dict, cases: list, case: dict, result: dict, entry: dict) -> None:
    """Add or replace the case's run, and remove provenance entries that no run refers to."""
    block = _block(record, key)
    block["complete"] &= all(_find(block, other) is not None for other in cases)
    entries, place = block["provenance"], _find(block, case)
    if entry not in entries:
        entries.append(entry)
    run = case | result | dict(made=entries.index(entry))
    if place is None:
        block["runs"].append(run)
    else:
        block["runs"][place] = run
    used = sorted({r["made"] for r in block["runs"]})
    for r in block["runs"]:
        r["made"] = used.index(r["made"])
    block["provenance"] = [entries[i] for i in used]


def _finish(record: dict, key: dict, cases: list, others: list) -> dict:
    """Mark the block complete after all cases, and remove `others` that no process has changed."""
    block = _block(record, key)
    block["complete"] = all(_find(block, case) is not None for case in cases)
    record["machines"] = [b for b in record["machines"] if b not in others]
    return block


def _place(block: dict) -> tuple:
    """The machine, and its GPU, which stands in the settings."""
    return block["machine"], block["settings"].get("gpu")


def _find(block: dict, case: dict) -> int | None:
    """Index of a case's finished run, or None."""
    return next((i for i, r in enumerate(block["runs"]) if case.items() <= r.items()), None)


def _intention(name: str, cases: list, others: list, block: dict, fresh: bool) -> str:
    """A line that says how many runs are recorded, and whether they are repeated."""
    n_done = sum(_find(block, case) is not None for case in cases)
    text = f"{name}: {n_done} of {len(cases)} runs are recorded"
    if n_done:
        text += "; each stays until its repeat" if fresh else "; --fresh repeats them"
    for other in others:
        text += f"; {len(other['runs'])} under other settings stay until all is done"
    return text


def _plain(value):
    """The value after a round trip through JSON: tuples become lists; NaN is a `ValueError`."""
    return parse_json(json.dumps(value), object)


def _brief(values: dict) -> str:
    """The scalar values of a case or a result that fit a line of progress."""
    scalars = ((k, v) for k, v in values.items() if isinstance(v, str | int | float))
    texts = ((k, significant(v, 4) if isinstance(v, float) else str(v)) for k, v in scalars)
    return ", ".join(f"{k} {text}" for k, text in texts if len(text) <= 60)


# --- Recorded, then repeated here ------------------------------------------------------------

DECIMAL = 1e-4
"""Precision of recorded numbers: a difference of two is off by at most this."""


def expected_repeat(by_seed: Mapping[int, float], seed: int) -> tuple[float, float]:
    """What a repeat with `seed` should give, and how far off it may be, from recorded values.

    A recorded seed repeats the same computation, up to another processor's rounding: it may deviate
    from its record by one standard deviation over seeds. A new seed must lie in the 95 % prediction
    interval (`estimate.one_more`).
    """
    from efflab.estimate import one_more

    other = one_more(list(by_seed.values()))
    if seed in by_seed:
        return by_seed[seed], stdev(by_seed.values())
    return other.mean, other.high - other.mean


def agrees(live: float, recorded: float, spread: float | None) -> bool | None:
    """Whether a value measured here is within `spread` of the recorded one.

    `spread` comes from the record, as `expected_repeat` derives it; None where there is nothing to
    compare with, such as the text of another Python's library: then the answer is None too.
    """
    return None if spread is None else abs(live - recorded) <= spread


def with_ends(name: str, estimate) -> dict[str, float]:
    """An estimate as a row stores it: its value under `name`, and the ends of its interval."""
    return {name: estimate.mean, "low": estimate.low, "high": estimate.high}


def round_floats(value, decimals: int = 4):
    """A value as it is stored: all floats in it, at any depth, with so many decimals."""
    if isinstance(value, dict):
        return {key: round_floats(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(item, decimals) for item in value]
    return round(value, decimals) if isinstance(value, float) else value


def same_python(experiment: dict) -> bool:
    """Whether it was recorded with this minor version of Python, whose library is the data."""
    versions = experiment["versions"]["python"], platform.python_version()
    return len({v.rsplit(".", 1)[0] for v in versions}) == 1
