"""Runs a notebook with other parameters, once or over a grid, and reuses finished runs."""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import efflab
import efflab_rooms
from efflab.base.busy import Others
from efflab.base.files import part_path, require_writable
from efflab.base.formats import STATEMENT, VERDICT
from efflab.base.significant import significant
from efflab.experiments.provenance import libraries, versions
from efflab.publishing.catalog import NOTEBOOKS, find
from efflab.publishing.execute import execute, seconds, title_of
from efflab.publishing.outputs import of_kind
from efflab.publishing.parameters import check_values_for, checked, literal, parse
from efflab.publishing.source import code_cells, read_notebook, read_source, translate
from efflab.publishing.usage import entry, watching_memory

CODE = tuple(Path(package.__file__).parent for package in (efflab, efflab_rooms))
TABLES = ("claims.toml", "statements.toml", "rules.toml", "registrations.json")
TABLES += ("board.json", "verdicts.json")
"""Files of data/ by which a notebook judges, and those that hold what other notebooks found."""
__all__ = ["checked", "literal", "parse", "run", "sweep"]  # others call the first three here too


# --- One run ---------------------------------------------------------------------------------


def execute_with(path: Path, given: dict, target: Path, *, quiet: bool = False) -> NotebookNode:
    """Run the source at `path` with parameters `given` through papermill; store it at `target`.

    The notebook is that of `given["language"]`, English by default; `quiet`: no progress is shown.
    A wrong parameter is a `ValueError` before a kernel starts, a failing cell a `CellFailed`; then
    a `.part.ipynb` beside `target` holds the notebook so far, and `target` is unchanged.
    """
    source = read_source(path)
    given, language = check_values_for(path, source, given), given.get("language", "en")
    notebook = translate(source, language)
    mark = fingerprint(notebook, path, given)
    notebook.metadata.efflab = {"fingerprint": mark, "parameters": given}
    part = part_path(target, ".ipynb")
    others = Others()
    with watching_memory() as memory, others.watched():
        title = f"{path.stem} ({language})"
        result = execute(notebook, title, path.parents[1], part, given=given, show=not quiet)
    cost = entry(sum(map(seconds, result.cells)), memory.peak_bytes)
    cost |= dict(busy_cores=round(others.cores, 2), versions=versions())
    result.metadata.efflab["cost"] = cost
    nbformat.write(result, part)
    os.replace(part, target)
    return result


def run_name(given: dict) -> str:
    """A file name that shows the parameters, such as "causal=True,window_size=64.ipynb".

    A hash is added for texts, which may differ in characters that a file name cannot hold.
    """
    text = ",".join(f"{k}={v}" for k, v in sorted(given.items())) or "defaults"
    safe = re.sub(r"[^A-Za-z0-9=,.-]", "_", text)[:100]
    plain = all(  # file systems may not distinguish N and n
        isinstance(v, int | float) and re.fullmatch("[a-z0-9_]+", k) for k, v in given.items()
    )
    if not plain or len(safe) < len(text):
        safe += "-" + hashlib.sha256(canonical(given).encode()).hexdigest()[:16]
    return safe + ".ipynb"


def canonical(given: dict) -> str:
    """Parameters as canonical JSON, to compare and hash them; a tuple equals a list."""
    return json.dumps(given, sort_keys=True, default=repr)


def run(
    name: str, given: dict, *, folder: Path = NOTEBOOKS, fresh: bool = False, say: Callable = print
) -> Path:
    """Run notebook `name` with parameters `given`, or reuse the same stored run unless `fresh`.

    Returns the executed notebook under runs/, which git does not track. Raises as `execute_with`,
    and a `ValueError` for an unknown notebook.
    """
    path = find(name, folder)
    given = check_values_for(path, read_source(path), given)
    if not fresh and (earlier := is_done(name, given, folder, say)):
        say("kept from before, as nothing that it depends on has changed; --fresh runs it again")
        return earlier
    target = writable(run_folder(path, given), say)
    notebook = execute_with(path, given, target)
    for cell in notebook.cells:
        if seconds(cell):
            say(f"{seconds(cell):7.2f} s  {title_of(cell)}")
    for verdict in of_kind(notebook, VERDICT) + of_kind(notebook, STATEMENT):
        first = verdict["parts"][0]["figures"][0]
        figure = f"{first['name']} {significant(first['value'], 4)} {first['unit']}".strip()
        say(f"{verdict['claim']}: {verdict['outcome']}, {figure}")
    return target


# --- What a run depends on -------------------------------------------------------------------


def fingerprint(notebook: NotebookNode, path: Path, given: dict) -> str:
    """A hash of everything a run depends on: a run is reused only under the same fingerprint.

    That is the notebook's code, the package's and the rooms' code and texts, the claims, rules,
    statements and registrations, the stored board and verdicts, the published rows, the records
    and sweeps, the shipped model, the files that parameters `given` name, Python and all
    installed libraries' versions.
    """
    h = hashlib.sha256(libraries().encode())
    h.update("\n".join(c.source for c in code_cells(notebook)).encode())
    own = [Path(v) for v in given.values() if isinstance(v, str) and os.path.isfile(v)]
    for file in [*dependencies(path.parents[2] / "data"), *own]:
        h.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return h.hexdigest()[:16]


def dependencies(data: Path) -> list[Path]:
    """The files of the package, of the rooms and of `data` on which every run depends, in order."""
    code = [p for f in CODE for p in f.rglob("*") if p.suffix in (".py", ".toml")]
    folders = ("published", "experiments", "sweeps", "stdlib-gpt")
    data_files = [p for folder in folders for p in (data / folder).glob("*")]
    files = [*code, *(data / name for name in TABLES), *data_files]
    return sorted(p for p in files if p.is_file() and not p.name.startswith(("training", ".")))


def is_done(name: str, given: dict, folder: Path = NOTEBOOKS, say: Callable = print) -> Path | None:
    """The finished run with the same fingerprint and parameters, if there is one.

    An invalid or damaged file is reported and ignored.
    """
    path = find(name, folder)
    source = read_source(path)
    given = check_values_for(path, source, given)
    expected = fingerprint(translate(source, given.get("language", "en")), path, given)
    places = run_folder(path, given), own_place(run_folder(path, given))
    return next((p for p in places if p.exists() and _is_run(p, expected, given, say)), None)


def _is_run(target: Path, expected: str, given: dict, say: Callable) -> bool:
    """Whether a file holds the run with fingerprint `expected` and parameters `given`."""
    try:
        about = read_notebook(target).metadata.get("efflab")
    except (ValueError, OSError) as error:
        say(f"{error}: run again")
        return False
    about = about if isinstance(about, dict) else {}
    same = canonical(about.get("parameters")) == canonical(given)
    return same and about.get("fingerprint") == expected


def run_folder(path: Path, given: dict) -> Path:
    """The file of the run of the source at `path` with these parameters."""
    return path.parents[2] / "runs" / path.stem / run_name(given)


def own_place(target: Path) -> Path:
    """The file used instead of `target` if the repository is not writable."""
    return Path.home() / ".efflab" / "runs" / target.parent.name / target.name


def writable(target: Path, say: Callable) -> Path:
    """`target`, or if that is not writable `own_place`, with a message; `OSError` if neither is."""
    try:
        require_writable(target)
        return target
    except OSError as error:
        own = own_place(target)
        require_writable(own)
        say(f"kept in {own.parent}, as runs/ cannot be written ({error.strerror})")
        return own


# --- Many runs -------------------------------------------------------------------------------


def combinations(choices: dict[str, list]) -> list[dict]:
    """Every combination, in order: {"n": [1, 2]} -> [{"n": 1}, {"n": 2}]."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def sweep(name: str, choices: dict[str, list], *, folder: Path = NOTEBOOKS, **options) -> list:
    """Run every combination of `choices`, resuming an earlier sweep that was killed.

    Returns the `grid.Point`s; `options`: those of `grid.run_grid`.
    """
    from efflab.publishing.grid import run_grid

    return run_grid(name, combinations(choices), folder=folder, **options)
