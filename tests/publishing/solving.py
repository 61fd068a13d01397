"""A notebook run with its exercises solved, its checks strict, and its Chinese complete."""

import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from efflab.base.files import part_path
from efflab.base.formats import OTHER
from efflab.errors import require
from efflab.publishing.execute import execute
from efflab.publishing.parameters import check_values_for
from efflab.publishing.source import read_source, tags, translate

STRICT = "from efflab.lab import check\n\ncheck.strict(True)"
COMPLETE = "from efflab.lab import text\n\nassert not text.missing, sorted(text.missing)"


def is_stub(cell: NotebookNode) -> bool:
    """Whether this code cell is for the learner to fill in."""
    return cell.cell_type == "code" and "exercise" in tags(cell)


def exercise_name(cell: NotebookNode) -> str:
    """ "03-1" of a cell tagged "ex-03-1"."""
    names = [t.removeprefix("ex-") for t in tags(cell) if t.startswith("ex-")]
    require(len(names) == 1, "tags", tags(cell), 'one exercise such as "ex-03-1"')
    return names[0]


def solution(source: NotebookNode, name: str, language: str) -> str:
    """The code for the stub of exercise `name`, from its folded solution."""
    required, other = {"solution", f"ex-{name}"}, OTHER[language]
    cells = [c.source for c in source.cells if required <= set(tags(c)) and other not in tags(c)]
    require(len(cells) == 1, f"solutions of {name} in {language}", len(cells), "exactly one")
    blocks = re.findall(r"```python\n(.*?)\n```", cells[0], re.DOTALL)
    require(len(blocks) == 1 and "<details>" in cells[0], name, cells[0], "one folded python block")
    return blocks[0]


def solve(notebook: NotebookNode, source: NotebookNode, language: str) -> None:
    """Put the folded solutions of `source` into the stubs of one of its languages."""
    for cell in filter(is_stub, notebook.cells):
        cell.source = solution(source, exercise_name(cell), language)


def execute_solved(
    path: Path, given: dict, target: Path, *, solved=True, strict=True, complete=True
) -> NotebookNode:
    """Run a source with these parameters and store it at `target`, as `efflab run` does.

    `solved` puts the folded solutions into the stubs; `strict` makes every `check` raise on a wrong
    answer; `complete` ends with a cell that fails if a text without Chinese was shown.
    """
    source, language = read_source(path), given.get("language", "en")
    notebook = translate(source, language)
    check_values_for(path, source, given)
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
