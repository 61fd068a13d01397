"""Run a notebook with other parameters, once or over a grid; nothing finished is done twice."""

import ast
import hashlib
import itertools
import json
import os
import platform
import sysconfig
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path

import nbformat
from nbformat import NotebookNode

import efflab
from efflab.errors import require, require_one_of
from efflab.files import part_path
from efflab.formats import LANGUAGES, VERDICT
from efflab.limits import limits_of, require_within
from efflab.publishing.catalog import NOTEBOOKS, find
from efflab.publishing.execute import execute, seconds, title_of
from efflab.publishing.outputs import of_kind
from efflab.publishing.source import code_cells, parameters, read_source, solve, translate

PACKAGE = Path(efflab.__file__).parent
STRICT = "from efflab.lab import check\n\ncheck.strict(True)"
COMPLETE = "from efflab.lab import text\n\nassert not text.missing, sorted(text.missing)"


# --- Parameters ------------------------------------------------------------------------------


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


def checked(given: dict, known: dict, limits: dict | None = None) -> dict:
    """`given`, each a known parameter of the default's type and within its limits.

    An int may stand for a float. Anything else is a `ValueError` that says what is allowed.
    """
    for name, value in given.items():
        require(name in known, "parameter", name, "one of " + ", ".join(known))
        default = known[name]
        kinds = (int, float) if isinstance(default, float) else type(default)
        right = isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
        kind = type(default).__name__
        require(right or default is None, name, value, f"a value of type {kind}, like {default!r}")
        if name == "language":
            require_one_of(name, value, LANGUAGES)
    require_within(given, limits or {})
    return given


def checked_for(path: Path, source: NotebookNode, given: dict) -> dict:
    """`given` checked against one source's parameters and the limits of its catalog."""
    limits = limits_of(path.stem, path.parents[1] / "catalog.toml")
    return checked(given, parameters(source), limits)


# --- One run ---------------------------------------------------------------------------------


def execute_with(
    path: Path,
    given: dict,
    target: Path,
    *,
    solved: bool = False,
    strict: bool = False,
    complete: bool = False,
) -> NotebookNode:
    """Run the source at `path` with parameters `given` through papermill; keep it at `target`.

    The notebook is that of `given["language"]`, English by default. `solved` puts the folded
    solutions into the stubs; `strict` begins with a cell that makes every `check` raise on a wrong
    answer; `complete` ends with a cell that fails if a text was shown that has no Chinese. So

        probe = {"language": "zh", **catalog()[number]["probe"]}
        target = ROOT / "runs" / "probes" / f"{path.stem}.ipynb"
        execute_with(path, probe, target, solved=True, strict=True, complete=True)

    A wrong parameter is a `ValueError` before a kernel starts, a failing cell a `CellFailed`;
    then a `.part.ipynb` beside `target` holds what there is, and `target` what it held before.
    """
    source = read_source(path)
    given, language = checked_for(path, source, given), given.get("language", "en")
    notebook = translate(source, language)
    notebook.metadata.efflab = {"fingerprint": fingerprint(notebook, path), "parameters": given}
    if solved:
        solve(notebook, source, language)
    if strict:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(STRICT))
    if complete:
        notebook.cells.append(nbformat.v4.new_code_cell(COMPLETE))
    part = part_path(target, ".ipynb")
    done = execute(notebook, f"{path.stem} ({language})", path.parents[1], part, given=given)
    os.replace(part, target)
    return done


def run_name(given: dict) -> str:
    """A file name that says the parameters: "window_size=64,causal=True.ipynb"."""
    text = ",".join(f"{k}={v}" for k, v in sorted(given.items())) or "defaults"
    safe = "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in text)
    if safe != text or len(safe) > 120:
        safe = f"{safe[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return safe + ".ipynb"


def run(
    name: str, given: dict, *, folder: Path = NOTEBOOKS, fresh: bool = False, say: Callable = print
) -> Path:
    """Run notebook `name` with parameters `given`, unless the same run is kept and not `fresh`.

    Returns the executed notebook under runs/, which git does not track. Raises as `execute_with`,
    and a `ValueError` for an unknown notebook.
    """
    path = find(name, folder)
    if not fresh and (kept := is_done(name, given, folder)):
        say("kept from before, as nothing that it depends on has changed; --fresh runs it again")
        return kept
    target = folder.parent / "runs" / path.stem / run_name(given)
    for cell in execute_with(path, given, target).cells:
        if seconds(cell):
            say(f"{seconds(cell):7.2f} s  {title_of(cell)}")
    return target


# --- What a run depends on -------------------------------------------------------------------


def fingerprint(notebook: NotebookNode, path: Path) -> str:
    """Changes with whatever a run depends on: a run under another one is not the same run.

    That is the notebook's code, the package's code and texts, the claims, the published rows, the
    records, the shipped model, Python and the versions of all installed libraries.
    """
    h = hashlib.sha256(libraries().encode())
    h.update("\n".join(c.source for c in code_cells(notebook)).encode())
    for file in dependencies(path.parents[2] / "data"):
        h.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return h.hexdigest()[:16]


def dependencies(data: Path) -> list[Path]:
    """The files of the package and of `data` on which every run depends, in order."""
    package = [p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".toml")]
    folders = ("published", "experiments", "stdlib-gpt")
    kept = [p for folder in folders for p in (data / folder).glob("*")]
    files = [*package, data / "claims.toml", *kept]
    return sorted(p for p in files if p.is_file() and not p.name.startswith(("training", ".")))


@lru_cache(maxsize=1)
def libraries() -> str:
    """Python's version and every installed library's, as one text.

    What is installed, not what `sys.path` holds: setuptools adds copies of its own once imported.
    """
    places = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    found = {f"{d.metadata['Name']}=={d.version}" for d in distributions(path=sorted(places))}
    return json.dumps([platform.python_version(), *sorted(found)])


def is_done(name: str, given: dict, folder: Path = NOTEBOOKS) -> Path | None:
    """The finished run with the same fingerprint and parameters, if there is one."""
    path = find(name, folder)
    source = read_source(path)
    checked_for(path, source, given)
    target = folder.parent / "runs" / path.stem / run_name(given)
    if not target.exists():
        return None
    wanted = fingerprint(translate(source, given.get("language", "en")), path)
    found = nbformat.read(target, as_version=4).metadata.get("efflab", {}).get("fingerprint")
    return target if found == wanted else None


# --- Many runs -------------------------------------------------------------------------------


def combinations(choices: dict[str, list]) -> list[dict]:
    """Every combination, in order: {"n": [1, 2]} -> [{"n": 1}, {"n": 2}]."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def sweep(
    name: str,
    choices: dict[str, list],
    *,
    folder: Path = NOTEBOOKS,
    fresh: bool = False,
    say: Callable = print,
) -> list[Path]:
    """Run every combination of `choices`; what a killed sweep had finished is not run again.

    `fresh` runs all of them again. Every value is checked before the first kernel starts.
    """
    path, grid = find(name, folder), combinations(choices)
    source = read_source(path)
    for given in grid:
        checked_for(path, source, given)
    paths = []
    for i, given in enumerate(grid):
        kept = None if fresh else is_done(name, given, folder)
        say(f"{i + 1} of {len(grid)}: {given}" + (" (done before)" if kept else ""))
        quiet = dict(folder=folder, fresh=True, say=lambda line: None)
        paths.append(kept or run(name, given, **quiet))
        for verdict in of_kind(nbformat.read(paths[-1], as_version=4), VERDICT):
            say(f"    {verdict['claim']}: {verdict['outcome']}, {deciding(verdict)}")
    return paths


def deciding(verdict: dict) -> str:
    """A stored verdict's first figure, on which it turns, as "name 24 x"."""
    first = verdict["figures"][0]
    return f"{first['name']} {first['value']:.4g} {first['unit']}".strip()
