"""Reads a notebook's source and splits it into an English and a Chinese notebook.

People edit `notebooks/src/NN_name.py` (jupytext's percent format). It has each text cell twice,
tagged `en` and `zh`, and shared code cells. A solution without a word of prose stands once.
"""

import ast
import hashlib
import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from efflab.base.formats import LANGUAGES, OTHER
from efflab.errors import require, require_one_of
from efflab.publishing.catalog import built_path

KEPT = ("tags", "jupyter", "editable")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TWIN = {"en": "[Chinese edition](zh/{name}.ipynb)", "zh": "[英文版](../{name}.ipynb)"}
"""The line under a notebook's heading that links to the other language's edition."""

SUMMARY = {"en": "<summary>Solution</summary>", "zh": "<summary>答案</summary>"}
"""The heading of a folded solution."""


def read_source(path: Path) -> NotebookNode:
    """A source as a notebook with its name in the metadata and text cells in both languages."""
    source = jupytext.read(path, fmt="py:percent")
    source.metadata.efflab = {"name": path.stem}
    return source


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in a file; a `ValueError` names an invalid file."""
    content = path.read_bytes()
    try:
        notebook = nbformat.v4.reads(content.decode("utf-8"))
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many types for an invalid notebook
        reason = f"{error}".partition("\n")[0][:80] or type(error).__name__
        raise ValueError(f"{path.name} is damaged, no notebook ({reason})") from error
    return notebook


def read_built(path: Path) -> NotebookNode:
    """`read_notebook` for a built notebook; the error says how to build it again."""
    try:
        return read_notebook(path)
    except ValueError as error:
        raise ValueError(f"{error}; efflab build {path.stem[:2]} makes it anew") from error


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags; [] for none."""
    return cell.metadata.get("tags", [])


def parameters_cell(notebook: NotebookNode) -> NotebookNode:
    """The notebook's only cell that is tagged `parameters`."""
    cells = [c for c in notebook.cells if "parameters" in tags(c)]
    require(len(cells) == 1, "parameters cells", len(cells), "exactly one")
    return cells[0]


def parameters(notebook: NotebookNode) -> dict:
    """Name -> default of the notebook's `parameters` cell, which holds plain literals."""
    statements = ast.parse(parameters_cell(notebook).source).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# A line break, and a list's indentation, between two Chinese characters or punctuation marks. A
# bold mark before punctuation stays apart: it would not be read as one.
CHINESE_BREAK = re.compile(
    r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef\u201c\u201d])\n *"
    r"(?=(\*\*)?[\u4e00-\u9fff]|[\uff08\u201c\u300a])"
)


def join_lines(text: str) -> str:
    """Chinese prose without its line breaks, which a page would show as spaces.

    >>> join_lines("- 核心，\\n  随长度增长\\n（如下）\\n- 其次")
    '- 核心，随长度增长（如下）\\n- 其次'
    """
    return CHINESE_BREAK.sub("", text)


def link_twin(text: str, name: str, language: str) -> str:
    """A notebook's first text with a link to the other edition under the heading.

    >>> link_twin("# A title\\n\\nText", "03_windows", "en")
    '# A title\\n\\n[Chinese edition](zh/03_windows.ipynb)\\n\\nText'
    """
    heading, _, rest = text.partition("\n")
    return f"{heading}\n\n{TWIN[language].format(name=name)}\n{rest}".rstrip("\n")


def translate(source: NotebookNode, language: str) -> NotebookNode:
    """The notebook in one language, not yet executed: its text cells, and all the code.

    Cell ids are hashes of what the cell says, so an edit changes no other cell's id.
    """
    require_one_of("language", language, LANGUAGES)
    notebook, seen = nbformat.v4.new_notebook(metadata=METADATA), Counter()
    for cell in source.cells:
        if OTHER[language] in tags(cell):
            continue
        text = cell.source
        if "parameters" in tags(cell):
            text = text.replace('language = "en"', f'language = "{language}"', 1)
        if language == "zh" and cell.cell_type == "markdown":
            text = join_lines(text).replace(SUMMARY["en"], SUMMARY["zh"])
        if not notebook.cells:
            text = link_twin(text, source.metadata.efflab["name"], language)
        new = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
        cell_id = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[cell_id] += 1
        cell_id += f"-{seen[cell_id]}" if seen[cell_id] > 1 else ""
        metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        notebook.cells.append(new[cell.cell_type](text, id=cell_id, metadata=metadata))
    return notebook


def differences(path: Path, language: str) -> list[str]:
    """The cells in which the built notebook differs from its source, one per line; [] if none.

    Compares type, source and tags, but neither outputs nor file times.
    """
    target = built_path(path, language)
    if not target.exists():
        return [f"{target.name} ({language}) is not built"]

    def cells_of(notebook):
        return [(c.cell_type, c.source.strip(), tuple(tags(c))) for c in notebook.cells]

    wanted = cells_of(translate(read_source(path), language))
    try:
        texts = cells_of(read_notebook(target))
    except ValueError as error:
        return [f"{error} ({language})"]
    return [
        f"{target.name} ({language}), cell {i}: {b and b[1][:60]!r} instead of {a and a[1][:60]!r}"
        for i, (a, b) in enumerate(zip_longest(wanted, texts))
        if a != b
    ]
