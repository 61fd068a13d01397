"""The outputs of a notebook's cells: read them, and normalize them before they are stored."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from efflab.base.formats import PICTURE, WIDGET
from efflab.publishing.catalog import NOTEBOOKS, built_path, sources
from efflab.publishing.source import KEPT, METADATA, code_cells, read_built


def of_kind(notebook: NotebookNode, kind: str) -> list:
    """The cells' outputs of mime type `kind`, in order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def read_outputs(kind: str, folder: Path = NOTEBOOKS) -> dict[str, list]:
    """{number: outputs of mime type `kind` in the built English notebook}, without empty ones.

    A damaged notebook is a `ValueError` that names it.
    """
    built = {number: built_path(path, "en") for number, path in sources(folder).items()}
    by_number = {
        number: of_kind(read_built(path), kind) for number, path in built.items() if path.exists()
    }
    return {number: outputs for number, outputs in by_number.items() if outputs}


def settle(notebook: NotebookNode, old: NotebookNode | None) -> None:
    """Normalize an executed notebook: remove what differs between runs without meaning anything.

    Views of dead widgets are removed, and code cells are numbered from 1, as in a new session. If
    a figure did not change, its old picture is kept, since another browser or font would give
    other pixels.
    """
    before = {c.id: c.get("outputs", []) for c in old.cells} if old else {}
    for cell in notebook.cells:
        metadata = {k: v for k, v in cell.metadata.items() if k in KEPT and v != []}
        cell.metadata = NotebookNode(metadata)
    for number, cell in enumerate(code_cells(notebook), start=1):
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
        cell.outputs = [o for o in cell.outputs if o.get("data", True)]
        earlier = before.get(cell.id, [])
        if list(map(without_picture, earlier)) == list(map(without_picture, cell.outputs)):
            cell.outputs = earlier
        cell.execution_count = number
        for output in cell.outputs:
            if output.get("execution_count") is not None:
                output.execution_count = number
    notebook.metadata = nbformat.from_dict(METADATA)


def without_picture(output: NotebookNode) -> dict:
    """An output without its pixels and its execution number."""
    data = {k: v for k, v in output.get("data", {}).items() if k != PICTURE}
    return {**output, "data": data, "execution_count": None}
