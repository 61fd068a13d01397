"""What cells put out, read and settled, without a kernel."""

import nbformat

from efflab.base.formats import PICTURE, WIDGET
from efflab.publishing import outputs

PLOT = "application/vnd.plotly.v1+json"


def notebook(*shown, number=None, metadata=None):
    """One cell "a" that shows these bundles."""
    made = [
        nbformat.v4.new_output("execute_result", data, execution_count=number or 7)
        for data in shown
    ]
    cell = nbformat.v4.new_code_cell("x", id="a", outputs=made, metadata=metadata or {})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("text"), cell])


def shown(made):
    return [output.data for output in made.cells[1].outputs]


def test_what_is_of_a_kind_comes_in_reading_order():
    made = notebook({"text/plain": "1", PLOT: {"y": 1}}, {"text/plain": "2"})
    assert outputs.of_kind(made, "text/plain") == ["1", "2"]
    assert outputs.of_kind(made, PLOT) == [{"y": 1}]
    assert outputs.of_kind(made, WIDGET) == []


def test_stored_is_read_of_the_built_english_notebooks_that_have_any(toy):
    assert outputs.read_outputs("text/plain", toy) == {}
    (toy / "src" / "91_other.py").touch()
    for name, bundles in (("90_toy", [{"text/plain": "1"}]), ("91_other", [])):
        nbformat.write(notebook(*bundles), toy / f"{name}.ipynb")
    assert outputs.read_outputs("text/plain", toy) == {"90": ["1"]}


def test_views_and_a_runs_own_marks_go():
    metadata = {"tags": ["t"], "papermill": {"duration": 1.0}, "jupyter": {"source_hidden": True}}
    made = notebook({WIDGET: {}, "text/plain": "1"}, {WIDGET: {}}, metadata=metadata)
    made.cells[0].metadata = nbformat.from_dict({"tags": [], "papermill": {}})
    outputs.settle(made, None)
    assert shown(made) == [{"text/plain": "1"}]
    assert made.cells[1].metadata == {"tags": ["t"], "jupyter": {"source_hidden": True}}
    assert made.cells[0].metadata == {}
    assert (made.cells[1].execution_count, made.cells[1].outputs[0].execution_count) == (1, 1)
    assert made.metadata.kernelspec.name == "python3"


def test_a_picture_stays_while_all_else_is_the_same():
    old = notebook({PICTURE: "old", PLOT: {"y": 1}, "text/plain": "0"}, number=3)
    for y, text, picture in ((1, "0", "old"), (2, "0", "new"), (1, "1", "new"), (0, "0", "new")):
        made = notebook({PICTURE: "new", PLOT: {"y": y}, "text/plain": text}, number=5)
        outputs.settle(made, old)
        assert shown(made)[0][PICTURE] == picture
        assert made.cells[1].outputs[0].execution_count == 1
    other = notebook({PICTURE: "new", PLOT: {"y": 1}, "text/plain": "0"})
    other.cells[1].id = "b"  # another cell
    outputs.settle(other, old)
    assert shown(other)[0][PICTURE] == "new"
    more = notebook({PICTURE: "new", PLOT: {"y": 1}, "text/plain": "0"}, {"text/plain": "more"})
    outputs.settle(more, old)
    assert [data.get(PICTURE) for data in shown(more)] == ["new", None]


def test_streams_have_no_number_to_count():
    made = notebook()
    made.cells[1].outputs = [nbformat.v4.new_output("stream", text="said")]
    outputs.settle(made, None)
    assert made.cells[1].outputs[0].text == "said"
    assert "execution_count" not in made.cells[1].outputs[0]


def test_an_outputs_own_metadata_are_the_new_ones():
    old, made = (notebook({"text/plain": "It is 3."}) for _ in range(2))
    made.cells[1].outputs[0].metadata = nbformat.from_dict({"answer": {"measured": 3.0}})
    outputs.settle(made, old)
    assert made.cells[1].outputs[0].metadata == {"answer": {"measured": 3.0}}
