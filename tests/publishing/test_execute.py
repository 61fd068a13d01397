"""What a cell took, and how one that fails is told, mostly without a kernel; see test_build too."""

import os
import socket
from pathlib import Path

import nbformat
import papermill
import pytest
from jupyter_client.connect import LocalPortCache
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from efflab.publishing import execute as running
from efflab.publishing.execute import CellFailed, execute


def cell(source, kind="code", **papermill):
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    return make(source, metadata={"papermill": papermill})


def raised(trace):
    return PapermillExecutionError(1, 1, "x = 1 / 0", "ZeroDivisionError", "by zero", trace)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (raised(["\x1b[31mTrace\x1b[0m", "back"]), "cell 1 failed:\n\nx = 1 / 0\n\nTrace\nback"),
        (CellTimeoutError("late"), "cell 1 failed:\n\nsecond\n\nIt ran over 7 s."),
        (DeadKernelError("dead"), "cell 1 failed:\n\nsecond\n\nThe kernel died."),
    ],
)
def test_a_failure_names_notebook_cell_and_cause(monkeypatch, tmp_path, error, said):
    part = tmp_path / "part.ipynb"

    def fail(notebook, path, given, **options):
        assert (path, given) == (str(part), {"n": 2})
        assert options["resources"] == {"metadata": {"path": str(tmp_path)}}
        assert options["execution_timeout"] == 7
        cells = [cell("first", start_time="1"), cell("second", start_time="2"), cell("third")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), part)
        raise error

    monkeypatch.setattr(papermill, "execute_notebook", fail)
    with pytest.raises(CellFailed) as found:
        execute("notebook", "toy", tmp_path, part, given={"n": 2}, timeout=7)
    assert str(found.value) == f"toy, {said}\n\nThe notebook so far: {part}"


def take_ports(monkeypatch, n_kernels):
    """The first kernels are told a port that is in use: its socket, and the ports picked so far."""
    other, told = socket.socket(), []
    other.bind(("127.0.0.1", 0))
    other.listen()
    pick = LocalPortCache.find_available_port

    def pick_first(cache, ip):
        told.append(pick(cache, ip))
        is_first = len(told) % 5 == 1 and len(told) <= 5 * n_kernels  # of a kernel's five
        return other.getsockname()[1] if is_first else told[-1]

    monkeypatch.setattr(LocalPortCache, "find_available_port", pick_first)
    return other, told


@pytest.mark.parametrize("n_kernels", [1, 2])
def test_a_kernel_whose_port_was_taken_starts_again_once(monkeypatch, tmp_path, n_kernels):
    other, told = take_ports(monkeypatch, n_kernels)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("n = 2\nprint(n)")])
    part = tmp_path / "part.ipynb"
    with other:
        if n_kernels == 1:
            executed = execute(notebook, "toy", tmp_path, part, show=False)
            assert [cell.outputs[0].text for cell in executed.cells] == ["2\n"]
        else:
            with pytest.raises(RuntimeError, match="Kernel died before"):
                execute(notebook, "toy", tmp_path, part, show=False)
            assert not part.exists()
    assert len(told) == 10  # two kernels


def test_the_kernel_starts_in_its_folder_and_this_process_stays_in_its_own(monkeypatch, tmp_path):
    """Two that are executed at once by threads would else leave each other's folder behind."""
    here, moved, chdir = Path.cwd(), [], os.chdir
    monkeypatch.setattr(os, "chdir", lambda path: (moved.append(Path(path)), chdir(path)))
    show = nbformat.v4.new_code_cell("import os\nprint(os.getcwd(), end='')")
    notebook = nbformat.v4.new_notebook(cells=[show])
    executed = execute(notebook, "toy", tmp_path, tmp_path / "part.ipynb", show=False)
    assert executed.cells[0].outputs[0].text == str(tmp_path)
    assert set(moved) <= {here}


def test_what_is_executed_comes_back(monkeypatch, tmp_path):
    monkeypatch.setattr(papermill, "execute_notebook", lambda *given, **_: given)
    part = tmp_path / "part.ipynb"
    assert execute("notebook", "toy", tmp_path, part) == ("notebook", str(part), {})


def test_a_cell_has_ten_minutes_unless_it_is_told_otherwise(monkeypatch, tmp_path):
    part = tmp_path / "part.ipynb"

    def late(notebook, path, given, **options):
        nbformat.write(nbformat.v4.new_notebook(cells=[cell("x", start_time="1")]), part)
        raise CellTimeoutError(f"over {options['execution_timeout']}")

    monkeypatch.setattr(papermill, "execute_notebook", late)
    with pytest.raises(CellFailed, match=r"It ran over 600 s\.") as found:
        execute("notebook", "toy", tmp_path, part)
    assert str(found.value.__context__) == "over 600"


def test_what_a_cell_took_stands_in_it_once(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("text"), nbformat.v4.new_code_cell("x = 1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    text, code = execute(notebook, "toy", tmp_path, tmp_path / "part.ipynb").cells
    assert running.seconds(text) == 0 < running.seconds(code)
    assert set(code.metadata) == {"papermill", "tags"}


def test_seconds_are_papermills_of_code():
    assert running.seconds(cell("x", duration=1.5)) == 1.5
    assert running.seconds(cell("x", duration=None)) == running.seconds(cell("x")) == 0
    assert running.seconds(cell("x", "markdown", duration=1.5)) == 0


@pytest.mark.parametrize(
    ("source", "title"),
    [("# a note\n\nx = 1\ny = 2", "x = 1"), ("# a note", "# a note"), ("x" * 70, "x" * 60)],
)
def test_a_cell_is_named_by_its_first_line_of_code(source, title):
    assert running.title_of(cell(source)) == title
