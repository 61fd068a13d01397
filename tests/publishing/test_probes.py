"""Every notebook once more, in Chinese, with other parameters and its exercises solved.

The executed notebooks lie under runs/probes, untracked, to be looked at.
"""

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from efflab.publishing import build
from efflab.publishing.catalog import ROOT, catalog, sources, write_atomically

STRICT = "from efflab.lab import check; check.strict(True)"
# The last cell: no text was shown that has no Chinese.
COMPLETE = "from efflab.lab import text\nassert not text.missing, sorted(text.missing)"


def probe(number):
    """The Chinese notebook with the catalog's probe parameters and the solutions for stubs."""
    source = build.read_source(sources()[number])
    notebook = build.translate(source, "zh")
    for cell in filter(build.is_stub, notebook.cells):
        cell.source = build.solution(source, build.exercise_name(cell), "zh")
    given = {"language": "zh", **catalog()[number]["probe"]}
    notebook = load_notebook_node(notebook)
    notebook = parameterize_notebook(notebook, given, kernel_name="python3", language="python")
    notebook.cells.append(nbformat.v4.new_code_cell(COMPLETE))
    return notebook


@pytest.mark.parametrize("number", sources())
def test_other_parameters_and_solutions(number):
    notebook, path = probe(number), sources()[number]
    folder = ROOT / "notebooks" / "zh"
    try:
        build.execute(notebook, folder, prelude=STRICT)
    finally:
        target = ROOT / "runs" / "probes" / f"{path.stem}.ipynb"
        write_atomically(target, nbformat.writes(notebook) + "\n")
