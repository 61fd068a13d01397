"""Builds two executed notebooks (English, Chinese) from one source, and collects their results.

Every function takes the `notebooks` folder, so that tests can use their own.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path

import nbformat

from efflab.base.files import part_path, require_writable, update, write_atomically
from efflab.base.formats import BOARD, LANGUAGES, STATEMENT, VERDICT
from efflab.errors import require
from efflab.publishing import usage
from efflab.publishing.catalog import NOTEBOOKS, built_path, find, sources
from efflab.publishing.execute import execute, plain, seconds, title_of
from efflab.publishing.outputs import read_outputs, settle
from efflab.publishing.source import code_cells, read_notebook, read_source, translate

PRELUDE = "from efflab.lab import prepare_build\nprepare_build()"


def build_one(path: Path, language: str, *, prelude: str = PRELUDE, say=print) -> dict:
    """Execute one source in one language and store the notebook; on failure the old one stays.

    `prelude` runs in a first cell that is not stored. Returns the entry for data/builds.json.
    """
    target, name = built_path(path, language), f"{path.stem} ({language})"
    notebook = translate(read_source(path), language)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(prelude))
    target.parent.mkdir(parents=True, exist_ok=True)  # the kernel starts there
    part = part_path(path.parents[2] / "runs" / "build" / f"{path.stem}.{language}", ".ipynb")
    with usage.watching_memory() as memory:
        notebook = execute(notebook, name, target.parent, part)
    del notebook.cells[0]
    cost = usage.entry(sum(map(seconds, notebook.cells)), memory.peak_bytes)
    report_cells(notebook, f"{path.stem[:2]} {language}", say)
    _store(notebook, target, _read_old(target))
    part.unlink()
    size = f"{target.stat().st_size / 1e3:.0f} kB"
    say(f"{name}: {cost['seconds']} s in its cells, {cost['peak_mb']} MB at most, {size}")
    return cost


def take_texts(path: Path, language: str) -> None:
    """Update one built notebook's texts from its source; nothing runs, outputs stay unchanged.

    A `ValueError` if there is no built notebook yet, or its code differs from the source's.
    """
    target = built_path(path, language)
    notebook = translate(read_source(path), language)
    old = _read_old(target)
    before, after = code_cells(old) if old else [], code_cells(notebook)
    same = [c.id for c in before] == [c.id for c in after]
    allowed = f"one built from the code that it has now: first efflab build {path.stem[:2]}"
    require(same, "notebook", f"{path.stem} ({language})", allowed)
    for new, previous in zip(after, before, strict=True):
        new.outputs = previous.outputs
    _store(notebook, target, old)


def _read_old(target: Path) -> nbformat.NotebookNode | None:
    """The notebook built before; None if there is none or it is damaged, since it is rebuilt."""
    with suppress(ValueError):
        return read_notebook(target) if target.exists() else None


def _store(
    notebook: nbformat.NotebookNode, target: Path, old: nbformat.NotebookNode | None
) -> None:
    settle(notebook, old)
    nbformat.validate(notebook)
    write_atomically(target, nbformat.writes(notebook) + "\n")


def report_cells(notebook, name: str, say) -> None:
    """Print a line per code cell with its seconds, and a warning if it prints to stderr."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        say(f"{name}  cell {index + 1:2d}  {seconds(cell):6.2f} s  {title_of(cell)}")
        for output in cell.outputs:
            if output.get("name") == "stderr":
                say(f"{name}  warning: the cell prints to stderr: {plain(output.text)[:300]}")


def collect(folder: Path = NOTEBOOKS) -> None:
    """Write verdicts, our own statements and the board to data/, from the built notebooks."""

    def write(name: str, make: Callable[[Path], dict]) -> None:
        # Read under the file's lock, so that the later of two builds sees what both have stored.
        as_json = partial(json.dumps, indent=1, ensure_ascii=False)
        update(folder.parent / "data" / name, lambda _: as_json(make(folder)) + "\n")

    write("verdicts.json", partial(read_outputs, VERDICT))
    write("statements.json", partial(read_outputs, STATEMENT))
    write("board.json", _board)


def _board(folder: Path) -> dict:
    points = [p for outputs in read_outputs(BOARD, folder).values() for p in outputs]
    board = {(p["technique"], p["model"]): p for p in points}  # the later notebook's point wins
    return {"points": list(board.values())}


def build(
    names: list[str] | None = None,
    *,
    languages: tuple[str, ...] = LANGUAGES,
    folder: Path = NOTEBOOKS,
    prelude: str = PRELUDE,
    busy: bool = False,
    texts: bool = False,
    say=print,
) -> None:
    """Build the named notebooks (all by default), then collect verdicts and board from all.

    `texts`: only `take_texts`. A busy machine is a `ValueError` unless `busy` is True.
    """
    paths = [find(name, folder) for name in names or sources(folder)]
    if texts:
        for path, language in product(paths, languages):
            take_texts(path, language)
        return
    for path, language in product(paths, languages):
        require_writable(built_path(path, language))
    if not busy:
        usage.require_idle()
    record = folder.parent / "data" / "builds.json"
    before, now = usage.read_builds(record), {}
    for path, language in product(paths, languages):
        now[f"{path.stem[:2]} {language}"] = build_one(path, language, prelude=prelude, say=say)
        usage.keep_builds(record, now)
    for line in usage.warnings_about(before, now):
        say(f"warning: {line}")
    collect(folder)
