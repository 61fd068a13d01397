"""What a notebook's cells put out: reading it, and settling it so that it may be stored."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from efflab.base.formats import PICTURE, WIDGET
from efflab.publishing.catalog import NOTEBOOKS, built_path, sources
from efflab.publishing.source import KEPT, METADATA, code_cells, read_built


def of_kind(notebook: NotebookNode, kind: str) -> list:
    """What the cells put out under mime type `kind`, in reading order."""
    return [
        output["data"][kind]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if kind in output.get("data", {})
    ]


def read_outputs(kind: str, folder: Path = NOTEBOOKS) -> dict[str, list]:
    """{number: what the built English notebook holds of mime type `kind`}, without empty ones.

    A damaged one is a `ValueError` that names it.
    """
    built = {number: built_path(path, "en") for number, path in sources(folder).items()}
    by_number = {
        number: of_kind(read_built(path), kind) for number, path in built.items() if path.exists()
    }
    return {number: outputs for number, outputs in by_number.items() if outputs}


def settle(notebook: NotebookNode, old: NotebookNode | None) -> None:
    """Take out of an executed notebook what differs from run to run and says nothing.

    Views of widgets that no longer live go; a picture whose figure is the same stays the old
    picture, byte for byte, for another browser or font would draw other pixels.
    """
    before = {c.id: c.get("outputs", []) for c in old.cells} if old else {}
    for cell in notebook.cells:
        metadata = {k: v for k, v in cell.metadata.items() if k in KEPT and v != []}
        cell.metadata = NotebookNode(metadata)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
        cell.outputs = [o for o in cell.outputs if o.get("data", True)]
        earlier = before.get(cell.id, [])
        if list(map(without_picture, earlier)) == list(map(without_picture, cell.outputs)):
            cell.outputs = earlier
    count(notebook)
    notebook.metadata = nbformat.from_dict(METADATA)


def count(notebook: NotebookNode) -> None:
    """Number the code cells from 1, as in a session that ran nothing before them."""
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.get("execution_count") is not None:
                output.execution_count = number


def without_picture(output: NotebookNode) -> dict:
    """An output but for its pixels and the execution's number."""
    data = {k: v for k, v in output.get("data", {}).items() if k != PICTURE}
    return {**output, "data": data, "execution_count": None, "metadata": None}
