"""Where an experiment's numbers are kept: data/experiments/NAME.json, machines side by side.

    {"name": ..., "machines": [
        {"machine": {"cpu", "features", "threads"}, "settings": {...}, "models": {name: sha256},
         "complete": true,
         "provenance": [{"command", "date", "commit", "versions"}, ...],
         "runs": [{..., "seed": 0, "made": 0}, ...]}]}

A block holds runs of one machine under one set of settings and models; blocks stand in the order
in which they were begun. `made` is the run's place in `provenance`, so that runs made on several
days keep what made each of them. What an old record does not tell is null.
"""

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import stdev

from efflab.base.files import require_writable, update
from efflab.base.json_files import parse_file, parse_json
from efflab.base.significant import significant
from efflab.data import DATA_DIR
from efflab.errors import require, require_one_of
from efflab.estimate import one_more
from efflab.experiments.form import require_record, require_run
from efflab.experiments.provenance import describe_run, machine, machine_name, provenance

__all__ = [
    "agrees",
    "blocks",
    "expected_repeat",
    "machines",
    "provenance",
    "read_record",
    "run_cases",
    "same_python",
]

EXPERIMENTS = DATA_DIR / "experiments"

# --- Reading ---------------------------------------------------------------------------------


def read_record(name: str, machine: str | None = None, folder: Path = EXPERIMENTS) -> dict:
    """What an experiment found on one machine: settings, runs, and what made the last of them.

    `machine`: one of `machines(name)`; else the one begun last whose runs are complete. Gives name,
    machine (in words), features, threads, settings, models, complete, seeds, runs and provenance;
    command, date, commit and versions are those of the last provenance.
    """
    matching = blocks(name, folder)
    if machine is not None:
        require_one_of("machine", machine, machines(name, folder))
        matching = [b for b in matching if machine_name(b["machine"]) == machine]
    return _view(name, ([b for b in matching if b["complete"]] or matching)[-1])


def machines(name: str, folder: Path = EXPERIMENTS) -> list[str]:
    """The machines of a record in words, each once, in the order in which they were begun."""
    return list(dict.fromkeys(machine_name(b["machine"]) for b in blocks(name, folder)))


def blocks(name: str, folder: Path = EXPERIMENTS) -> list[dict]:
    """What a record holds, machine by machine, settings by settings; a damaged one is a
    `ValueError` that names it and the remedy."""
    require_one_of("name", name, sorted(path.stem for path in folder.glob("*.json")))
    return _parse(name, (folder / f"{name}.json").read_text(encoding="utf-8"))["machines"]


def _view(name: str, block: dict) -> dict:
    where = block["machine"]
    known = dict(
        name=name, machine=machine_name(where), seeds=sorted({r["seed"] for r in block["runs"]})
    )
    known |= dict(features=where["features"], threads=where["threads"])
    return block | block["provenance"][-1] | known


def _parse(name: str, text: str) -> dict:
    again = f"restore it, or `efflab experiment {name}` makes it anew"
    return parse_file(text, f"{name}.json", check=partial(require_record, name), remedy=again)


# --- Running ---------------------------------------------------------------------------------


def run_cases(
    name: str,
    cases: Iterable[dict],
    run_one: Callable[..., dict],
    *,
    settings: dict,
    models: Mapping[str, str] | None = None,
    versions_of: Iterable[str] = (),
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    folder: Path = EXPERIMENTS,
) -> dict:
    """`run_one(**case)` for every case that this machine has not finished; what is then recorded.

    A case names its `seed`. Each finished run is written at once: a kill costs the run that it
    interrupts and no other. Runs under other `settings`, with other `models` (name -> SHA-256) or
    of another machine are not mixed in; those of this machine under other settings stay until all
    is done. `fresh`: finished runs are repeated too, and each stays until its repeat is done.
    `versions_of`: packages measured, besides torch.
    """
    cases = _plain(list(cases))
    require(bool(cases) and all("seed" in c for c in cases), "cases", cases, "cases with a seed")
    require(all(cases.count(c) == 1 for c in cases), "cases", cases, "no case twice")
    path = folder / f"{name}.json"
    require_writable(path)  # now, not after the first run
    record = _open_record(name, path, say)
    want = _plain(dict(machine=machine(), settings=settings, models=dict(models or {})))
    block = _block(record, want)
    others = [b for b in record["machines"] if b is not block]
    say(_intention(name, cases, record, block, fresh))
    provenance = describe_run(f"efflab experiment {name}{' --fresh' if fresh else ''}", versions_of)
    for i, case in enumerate(cases, start=1):
        block = _block(
            _open_record(name, path, say), want
        )  # another process may have done it by now
        if _find(block, case) is None or fresh:
            start = time.perf_counter()
            result = run_one(**case)
            require_run("run", case | result)
            run = (case, _plain(result), provenance)
            block = _change(name, path, lambda record, run=run: _add(record, want, run, cases))
            took = f"{time.perf_counter() - start:.0f} s"
            say(f"{i}/{len(cases)}  {_brief(case)}:  {_brief(result)}  ({took})")
    return _view(name, _change(name, path, lambda record: _finish(record, want, cases, others)))


def _open_record(name: str, path: Path, say: Callable[[str], None]) -> dict:
    """The record so far; a damaged one is put aside."""
    if not path.exists():
        return dict(name=name, machines=[])
    try:
        return _parse(name, path.read_text(encoding="utf-8"))
    except ValueError as error:
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        say(f"{error}: put aside as {aside.name}")
        return dict(name=name, machines=[])


def _change(name: str, path: Path, change: Callable[[dict], dict]) -> dict:
    """Let `change` work on the record as it stands by now, and keep that; gives what it returned.

    Another process may add runs of its own at the same time: both stay.
    """
    returned = []

    def apply(text: str | None) -> str:
        record = dict(name=name, machines=[]) if text is None else _parse(name, text)
        returned.append(change(record))
        return json.dumps(record, indent=1) + "\n"

    update(path, apply)
    return returned[0]


def _block(record: dict, want: dict) -> dict:
    """The record's block of this machine, these settings and models; a new one at its end."""
    block = next((b for b in record["machines"] if want.items() <= b.items()), None)
    if block is None:
        block = want | dict(complete=False, provenance=[], runs=[])
        record["machines"].append(block)
    return block


def _add(record: dict, want: dict, run: tuple[dict, dict, dict], cases: list) -> dict:
    """Keep a finished run (its case, result and provenance) in its block, which it returns."""
    block = _block(record, want)
    block["complete"] &= all(_find(block, case) is not None for case in cases)
    _keep(block, *run)
    return block


def _finish(record: dict, want: dict, cases: list, others: list) -> dict:
    """All cases are done: the block is complete, and stands in place of the machine's `others`.

    One of these that has changed since the start belongs to a process that still works on it.
    """
    block = _block(record, want)
    block["complete"] = all(_find(block, case) is not None for case in cases)
    record["machines"] = [
        b for b in record["machines"] if b["machine"] != block["machine"] or b not in others
    ]
    return block


def _find(block: dict, case: dict) -> int | None:
    """Place of a case's finished run."""
    return next((i for i, r in enumerate(block["runs"]) if case.items() <= r.items()), None)


def _keep(block: dict, case: dict, result: dict, made: dict) -> None:
    """Add or replace the case's run; provenance that no run needs any more goes."""
    entries = block["provenance"]
    place = _find(block, case)
    if made not in entries:
        entries.append(made)
    run = case | result | dict(made=entries.index(made))
    if place is None:
        block["runs"].append(run)
    else:
        block["runs"][place] = run
    used = sorted({r["made"] for r in block["runs"]})
    for r in block["runs"]:
        r["made"] = used.index(r["made"])
    block["provenance"] = [entries[i] for i in used]


def _intention(name: str, cases: list, record: dict, block: dict, fresh: bool) -> str:
    """What this start keeps, repeats and leaves alone, and from when that is."""
    places = [i for i in (_find(block, case) for case in cases) if i is not None]
    total = f"{len(cases)} runs"
    text = f"{name}: {total} to do"
    if places:
        when = _dates(block, places)
        if fresh:
            text = f"{name}: repeats {total}; {len(places)} of {when} stay until their repeat"
        else:
            text = f"{name}: keeps {len(places)} of {total}, of {when}; --fresh repeats them"
    for other in record["machines"]:
        if other is not block and other["machine"] == block["machine"]:
            n, when = len(other["runs"]), _dates(other, range(len(other["runs"])))
            text += f"; {n} of {when} under other settings stay until all is done"
    return text


def _dates(block: dict, places: Iterable[int]) -> str:
    provenances = {block["runs"][i]["made"] for i in places}
    dates = sorted(block["provenance"][i]["date"] for i in provenances)
    return dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"


def _plain(value):
    """As JSON gives it back: tuples become lists, keys texts; a NaN is a `ValueError`."""
    return parse_json(json.dumps(value), object)


def _brief(values: dict) -> str:
    """The single numbers and words of a case or a result, for a line of progress."""
    shown = {k: v for k, v in values.items() if isinstance(v, str | int | float)}
    return ", ".join(
        f"{k} {significant(v, 4)}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
    )


# --- Recorded, then repeated here ------------------------------------------------------------

DECIMAL = 1e-4
"""The last one that records keep: a difference of two kept numbers is off by so much at most."""


def expected_repeat(by_seed: Mapping[int, float], seed: int) -> tuple[float, float]:
    """What a repeat with `seed` should give, and how far off it may be, from recorded values.

    A recorded seed is the same computation once more, which only another processor's rounding can
    move: it may be off its own record by one standard deviation over seeds, so that it stays
    nearer to it than another seed. A new seed has to fall where one more seed does with 95 %
    confidence (`estimate.one_more`).
    """
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


def same_python(experiment: dict) -> bool:
    """Whether it was recorded with this minor version of Python, whose library is the corpus."""
    versions = experiment["versions"]["python"], platform.python_version()
    return len({v.rsplit(".", 1)[0] for v in versions}) == 1
