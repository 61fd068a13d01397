"""Run a notebook with other parameters, once or over a grid; nothing finished is done twice."""

import ast
import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from efflab.errors import require, require_one_of
from efflab.publishing.build import MIME, parameters, plain, read_source, title_of, translate
from efflab.publishing.catalog import LANGUAGES, NOTEBOOKS, CellFailed, find


def literal(text: str):
    """The Python value that `text` writes, or the text itself: "512" -> 512, "gpt2" -> "gpt2"."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """["n=3", "model=gpt2"] -> {"n": "3", "model": "gpt2"}."""
    pairs = list(pairs)
    for pair in pairs:
        require("=" in pair, "-p", pair, "name=value")
    return dict(pair.split("=", 1) for pair in pairs)


def checked(given: dict, known: dict) -> dict:
    """`given`, each a known parameter of the default's type; an int may stand for a float."""
    for name, value in given.items():
        require(name in known, "parameter", name, "one of " + ", ".join(known))
        default = known[name]
        kinds = (int, float) if isinstance(default, float) else type(default)
        right = isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
        kind = type(default).__name__
        require(right or default is None, name, value, f"a value of type {kind}, like {default!r}")
        if name == "language":
            require_one_of(name, value, LANGUAGES)
    return given


def fingerprint(notebook: NotebookNode) -> str:
    """Changes when the notebook's code does: a run of other code is not the same run."""
    code = [c.source for c in notebook.cells if c.cell_type == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:16]


def run_name(given: dict) -> str:
    """A file name that says the parameters: "window_size=64,causal=True.ipynb"."""
    text = ",".join(f"{k}={v}" for k, v in sorted(given.items())) or "defaults"
    safe = "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in text)
    if safe != text or len(safe) > 120:
        safe = f"{safe[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe + ".ipynb"


def run(name: str, given: dict, *, folder: Path = NOTEBOOKS, say: Callable = print) -> Path:
    """Run notebook `name` with parameters `given` through papermill, with a progress bar.

    Returns the executed notebook under runs/, which git does not track. Raises `ValueError` for
    an unknown notebook or parameter before anything runs, and `CellFailed` for a failing cell.
    """
    path = find(name, folder)
    source = read_source(path)
    given = checked(given, parameters(source))
    notebook = translate(source, given.get("language", "en"))
    target = folder.parent / "runs" / path.stem / run_name(given)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"part-{os.getpid()}-{target.name}")
    notebook.metadata.efflab = {"code": fingerprint(notebook), "parameters": given}
    done = executed(notebook, part, given, folder)
    for cell in done.cells:
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds is not None:
            say(f"{seconds:7.2f} s  {title_of(cell)}")
    os.replace(part, target)
    return target


def executed(notebook: NotebookNode, part: Path, given: dict, folder: Path) -> NotebookNode:
    """The notebook after papermill; `part` holds what there is, even when a cell fails."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return papermill.execute_notebook(
                notebook,
                str(part),
                given,
                kernel_name="python3",
                cwd=str(folder),
                extra_arguments=["--log-level=40"],
            )
        except PapermillExecutionError as error:
            raise CellFailed(
                f"cell {error.cell_index} failed:\n\n{error.source}\n\n"
                f"{plain(chr(10).join(error.traceback))}\n\nIts notebook so far: {part}"
            ) from None


def is_done(name: str, given: dict, folder: Path = NOTEBOOKS) -> Path | None:
    """The finished run of the same notebook code with the same parameters, if there is one."""
    path = find(name, folder)
    target = folder.parent / "runs" / path.stem / run_name(given)
    if not target.exists():
        return None
    wanted = fingerprint(translate(read_source(path), given.get("language", "en")))
    found = nbformat.read(target, as_version=4).metadata.get("efflab", {}).get("code")
    return target if found == wanted else None


def combinations(choices: dict[str, list]) -> list[dict]:
    """Every combination, in order: {"n": [1, 2]} -> [{"n": 1}, {"n": 2}]."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def sweep(
    name: str, choices: dict[str, list], *, folder: Path = NOTEBOOKS, say: Callable = print
) -> list[Path]:
    """Run every combination of `choices`; what a killed sweep had finished is not run again."""
    known = parameters(read_source(find(name, folder)))
    grid = [checked(given, known) for given in combinations(choices)]
    paths = []
    for i, given in enumerate(grid):
        path = is_done(name, given, folder)
        say(f"{i + 1} of {len(grid)}: {given}" + (" (done before)" if path else ""))
        paths.append(path or run(name, given, folder=folder, say=lambda line: None))
        for verdict in verdicts_of(paths[-1]):
            say(f"    {verdict['claim']}: {verdict['figures']}")
    return paths


def verdicts_of(path: Path) -> list[dict]:
    outputs = [o for c in nbformat.read(path, as_version=4).cells for o in c.get("outputs", [])]
    kind = MIME.format("verdict")
    return [o["data"][kind] for o in outputs if kind in o.get("data", {})]
