"""The ledger's columns: from built notebooks and other machines' files."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from efflab.base.files import require_writable, write_atomically
from efflab.base.formats import VERDICT
from efflab.errors import require
from efflab.experiments.provenance import machine, versions
from efflab.publishing import usage
from efflab.publishing.catalog import NOTEBOOKS, ROOT, catalog
from efflab.publishing.column import Column, parse, read
from efflab.publishing.execute import CellFailed
from efflab.publishing.grid import run_ahead
from efflab.publishing.ledger import claims, verdicts
from efflab.publishing.outputs import of_kind
from efflab.publishing.run import is_done, run
from efflab.publishing.source import read_notebook

FOLDER = Path("data") / "ledger"
"""Folder of other machines' columns in the repository."""
UNKNOWN = dict(machine=dict(cpu="unknown machine", features=None, threads=None), date="")
"""In place of the build's entry of a notebook that has none."""


def due(root: Path = ROOT) -> list[str]:
    """The claims whose notebook is written; a whole column judges all of them."""
    numbers = catalog(root / "notebooks")
    return [name for name, claim in claims(root).items() if claim["notebook"] in numbers]


def columns(root: Path = ROOT) -> list[Column]:
    """The built notebooks' columns, then other machines' files.

    A file in data/ledger that was edited by hand, or judged by other rules, is a `ValueError` that
    names it.
    """
    return [*built_columns(root), *stored_columns(root)]


# --- Of the built notebooks ------------------------------------------------------------------


def built_columns(root: Path = ROOT) -> list[Column]:
    """The verdicts of the built notebooks, by the machine that built each; the largest first.

    A column's date is that of its newest build.
    """
    builds = usage.read_builds(root / "data" / "builds.json")
    known, by_machine = claims(root), {}
    for claim, record in verdicts(root).items():
        build = builds.get(f"{known[claim]['notebook']} en", UNKNOWN)
        key = json.dumps(build["machine"])
        column = by_machine.get(key, Column(build["machine"], "", {}, source="built"))
        day, records = max(column.date, build["date"]), column.verdicts | {claim: record}
        by_machine[key] = replace(column, date=day, verdicts=records)
    return sorted(by_machine.values(), key=lambda column: -len(column.verdicts))


# --- Of other machines -----------------------------------------------------------------------


def stored_columns(root: Path = ROOT) -> list[Column]:
    """The columns in data/ledger, each checked again."""
    columns = []
    for path in sorted((root / FOLDER).glob("*.json")):
        column = read(path, root)
        require(path.name == column.file_name, "file", path.name, f"its name, {column.file_name}")
        columns.append(column)
    return columns


def add(path: Path, root: Path = ROOT) -> Path:
    """Add another machine's column to data/ledger, replacing an earlier one of that machine.

    The stored file is written from the checked values, not copied; a refused file changes nothing.
    Raises as `column.read`.
    """
    column = read(Path(path), root)
    target = root / FOLDER / column.file_name
    write_atomically(target, column.text())
    return target


def run_here(
    out: Path | None = None,
    *,
    fresh: bool = False,
    busy: bool = False,
    dask: str | None = None,
    folder: Path = NOTEBOOKS,
    say: Callable = print,
) -> Path:
    """Run every notebook that judges a claim, and write this machine's column as JSON.

    A notebook that already ran, with nothing changed since, is not run again unless `fresh`, so a
    killed run can be resumed. A notebook that fails is left out: the column, if anything is left,
    is written without it, and then a `CellFailed` is raised. A busy machine is a `ValueError`,
    unless `busy`.

    `dask`: the address of a scheduler whose workers, alike to this machine, run the notebooks.
    """
    require(out is None or not out.is_dir(), "--out", str(out), "a file, not a folder")
    own = Column(machine(), date.today().isoformat(), {}, versions=versions())
    out = Path(out or folder.parent / "runs" / "ledger" / own.file_name)
    require_writable(out)  # before an hour of notebooks
    if not busy:
        usage.require_idle()
    numbers = [n for n, entry in catalog(folder).items() if entry["claims"]]
    elsewhere = run_ahead(numbers, folder, dask, fresh) if dask else {}
    by_claim, failed = {}, {}
    for number in numbers:
        try:
            if number in elsewhere:
                raise CellFailed(elsewhere[number])
            verdicts = _verdicts_of(number, folder, fresh and not dask)
        except CellFailed as error:
            failed[number] = str(error)
            say(f"{number}: failed, left out")
            continue
        say(f"{number}: " + ", ".join(f"{v['claim']} {v['outcome']}" for v in verdicts))
        by_claim |= {verdict["claim"]: verdict for verdict in verdicts}
    reasons = "\n\n".join(failed.values())
    if failed and not by_claim:
        raise CellFailed(f"no column: {len(failed)} failed\n\n{reasons}")
    column = replace(own, verdicts=by_claim)
    parse(column.text().encode(), folder.parent)  # refuse what `ledger add` would refuse
    write_atomically(out, column.text())
    if failed:
        raise CellFailed(f"{out} is partial: {len(failed)} failed\n\n{reasons}")
    return out


def _verdicts_of(number: str, folder: Path, fresh: bool) -> list[dict]:
    """The verdicts of one notebook with default parameters, from a stored run if there is one."""
    earlier = None if fresh else is_done(number, {}, folder)
    path = earlier or run(number, {}, folder=folder, fresh=True, say=lambda line: None)
    return of_kind(read_notebook(path), VERDICT)
