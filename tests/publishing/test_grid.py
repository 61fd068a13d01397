"""Sweeps of a toy notebook: several processes, a Dask cluster, failures, the table, the picture."""

import csv
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest

from efflab.estimate import Estimate
from efflab.experiments import cluster as dask
from efflab.lab import sweeps
from efflab.publishing import sweep_report
from efflab.publishing.catalog import NOTEBOOKS, find
from efflab.publishing.grid import Point, run_grid
from efflab.publishing.run import combinations, run, run_folder, sweep
from efflab.publishing.sweep_report import compare, key_number, read_row, words_for, write_report


def quiet(*_):
    pass


@pytest.fixture
def slow(edit):
    """The toy's second cell waits for a file "go" where n is 2 and fails where n is 3."""
    edit(
        "import os\n",
        'import os, time\nwhile n == 2 and not os.path.exists("go"):\n    time.sleep(0.05)\n'
        'assert n != 3, "three is too many"\n',
    )


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def read(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


# --- Here ------------------------------------------------------------------------------------


def test_a_failing_run_is_a_row_with_its_reason(toy, slow):
    (toy / "go").touch()
    lines = []
    points = sweep("90", {"n": [1, 2, 3, 4]}, folder=toy, jobs=2, say=lines.append)
    assert [p.path and p.path.name for p in points] == ["n=1.ipynb", "n=2.ipynb", None, "n=4.ipynb"]
    failed = "90_toy (en), cell 4 failed: AssertionError: three is too many"
    assert points[2].failure == failed
    assert lines == [f"failed: {failed}"]
    rows = [read_row(point) for point in points]
    assert [row["toy/only/n"] for row in rows if row["failure"] is None] == [1, 2, 4]
    assert rows[2]["failure"] == failed
    again = []
    assert sweep("90", {"n": [1, 2]}, folder=toy, jobs=2, say=again.append) == points[:2]
    assert again == ["2 of 2 done before, as nothing that they depend on has changed"]


def test_many_processes_give_what_one_gives(toy):
    one = [read_row(p) for p in sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)]
    options = dict(folder=toy, fresh=True, say=quiet)
    two = [read_row(p) for p in sweep("90", {"n": [1, 2]}, jobs=2, **options)]
    times = dict.fromkeys(("seconds", "peak_mb", "busy_cores"))
    assert [row | times for row in one] == [row | times for row in two]
    assert all(row["seconds"] >= 0 and row["peak_mb"] > 10 for row in two)


# A shell's background job starts its children with Ctrl+C ignored.
KILLED = """
import signal, sys
from pathlib import Path
from efflab.publishing import run
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run.sweep("90", {"n": [1, 2, 4]}, folder=Path(sys.argv[1]), jobs=2)
"""


def test_ctrl_c_ends_workers_and_kernels_and_keeps_what_was_finished(toy, slow, tmp_path):
    script = tmp_path / "sweep.py"
    script.write_text(KILLED, encoding="utf-8")
    process = subprocess.Popen([sys.executable, script, toy], stderr=subprocess.DEVNULL)
    runs = toy.parent / "runs" / "90_toy"
    try:
        wait_for(lambda: (runs / "n=4.ipynb").exists() and (runs / "n=1.ipynb").exists())
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        process.kill()
    assert family
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert {path.name for path in runs.iterdir()} == {"n=1.ipynb", "n=4.ipynb"}


def test_what_can_be_swept_is_said(toy):
    entry = '["90"]\nname = "90_toy"\nlimits = { n = [1, 9] }\n'
    (toy / "catalog.toml").write_text(entry, encoding="utf-8")
    with pytest.raises(ValueError, match=r"something to vary: .*-p n=3 \(1 to 9\)"):
        sweep("90", {}, folder=toy, say=quiet)
    with pytest.raises(ValueError, match="--jobs=0: expected an int of at least 1"):
        sweep("90", {"n": [1]}, folder=toy, jobs=0, say=quiet)


def test_two_sweeps_at_once_do_not_harm_each_other(toy):
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(sweep, "90", {"n": [2, 1]}, folder=toy, say=quiet)
        own = sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    runs = toy.parent / "runs" / "90_toy"
    assert {point.path for point in [*own, *other.result()]} == set(runs.iterdir())
    assert [read_row(point)["toy/only/n"] for point in own] == [1, 2]


def test_a_damaged_run_is_run_again(toy):
    first, second = sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    whole, lines = first.path.read_bytes(), []
    first.path.write_bytes(whole[: len(whole) // 2])
    kept = second.path.stat().st_mtime_ns
    again = sweep("90", {"n": [1, 2]}, folder=toy, say=lines.append)
    assert lines[0].startswith("n=1.ipynb is damaged, no notebook")
    assert lines[1].startswith("1 of 2 done before")
    assert read_row(again[0])["toy/only/n"] == 1
    assert second.path.stat().st_mtime_ns == kept


def test_one_line_shows_what_is_done_running_and_failed_and_the_time_left(toy, slow, capsys):
    (toy / "go").touch()
    sweep("90", {"n": [1, 2, 3]}, folder=toy, say=quiet)
    lines = [line for line in re.split("[\r\n]", capsys.readouterr().err) if "run" in line]
    assert re.search(r" 0/3 \[.*failed=0, running=1", lines[0] + lines[1])
    assert re.search(r" 3/3 \[\d\d:\d\d<00:00, .*failed=1, running=0", lines[-1])


# --- On a cluster ----------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_no_run(toy, slow, cluster):
    first = toy.parent / "runs" / "90_toy" / "n=1.ipynb"
    grid = [{"n": n} for n in (1, 2, 3, 4, 5, 6)]
    options = dict(folder=toy, dask=cluster.scheduler_address, say=quiet)
    with ThreadPoolExecutor(1) as pool:
        sweeping = pool.submit(run_grid, "90", grid, **options)
        wait_for(first.exists)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        (toy / "go").touch()
        points = sweeping.result(120)
    assert [p.path is None for p in points] == [False, False, True, False, False, False]
    local = [read_row(p) for p in run_grid("90", grid, folder=toy, fresh=True, say=quiet)]
    times = dict.fromkeys(("seconds", "peak_mb", "busy_cores"))
    assert [read_row(p) | times for p in points] == [row | times for row in local]


@pytest.mark.release
@pytest.mark.timeout(2400)  # what its parts may wait, one after another
def test_a_notebook_over_six_settings_gives_the_same_rows_although_a_worker_is_killed(
    tmp_path, cluster
):
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    shutil.copy(find("08"), folder / "src")
    shutil.copy(NOTEBOOKS / "catalog.toml", folder)
    grid = combinations({"seq_len": [64, 128, 256], "unit": [2, 4]})
    runs = tmp_path / "runs" / "08_accelerators"
    with ThreadPoolExecutor(1) as pool:
        options = dict(folder=folder, dask=cluster.scheduler_address, say=quiet)
        sweeping = pool.submit(run_grid, "08", grid, **options)
        wait_for(lambda: len(list(runs.glob("*.ipynb"))) == 2, seconds=600)
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        points = sweeping.result(900)
    rows = [untimed_row(point) for point in points]
    here = run_grid("08", grid, folder=folder, fresh=True, say=quiet)
    assert rows == [untimed_row(point) for point in here]
    assert all(row["failure"] is None for row in rows)


def untimed_row(point):
    """A run's row without what was measured in seconds or about other processes."""
    return read_row(point) | dict.fromkeys(("seconds", "peak_mb", "busy_cores", "date"))


def test_workers_with_another_efflab_are_refused_by_name(toy, cluster, monkeypatch):
    from efflab.publishing import grid

    monkeypatch.setattr(grid, "fingerprint", lambda notebook, path, given: "another")
    with pytest.raises(ValueError, match=r"worker='tcp://127.*: expected the same code"):
        run_grid("90", [{"n": 1}], folder=toy, dask=cluster.scheduler_address, say=quiet)


def test_a_worker_that_joins_late_has_to_be_alike_too():
    refused = partial(dask._call_alike, os.getcwd, "elsewhere", len)
    with pytest.raises(ValueError, match=r"worker='.*': expected the same code"):
        refused("abc")
    assert dask._call_alike(os.getcwd, os.getcwd(), len, "abc") == 3


def test_notebooks_are_run_ahead_on_workers_of_this_kind_of_machine(toy, cluster, monkeypatch):
    from efflab.publishing import grid

    address = cluster.scheduler_address
    assert grid.run_ahead(["90"], toy, address) == {}
    assert read_row(Point({}, toy.parent / "runs" / "90_toy" / "defaults.ipynb"))["toy/only/n"] == 3
    assert grid.run_ahead(["90"], toy, "nowhere") == {}  # nothing is left to run
    monkeypatch.setattr(grid, "machine_name", lambda machine: "another")
    with pytest.raises(ValueError, match=r"worker='tcp://127.*: expected the same code"):
        grid.run_ahead(["90"], toy, address, fresh=True)


def test_an_address_without_a_scheduler_is_refused(toy, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask, "SECONDS", 1)
    with pytest.raises(ValueError, match=r"--dask='tcp://127\.0\.0\.1:9': expected a scheduler's"):
        run_grid("90", [{"n": 1}], folder=toy, dask="tcp://127.0.0.1:9", say=quiet)


# --- The answer ------------------------------------------------------------------------------


def rows_of(*names):
    """Rows of a sweep over up to four parameters, with a number that all of them change."""
    grid = itertools.product((1, 2, 3), repeat=len(names))
    for values in grid:
        number = float(sum(values)) if values[0] != 2 else None
        row = dict(zip(names, values, strict=True)) | {"a/b/c": number, "failure": None}
        yield row | ({"a/b/c/low": number - 1, "a/b/c/high": number + 2} if number else {})


def test_one_parameter_is_a_line_with_its_band():
    figure = sweeps.picture(list(rows_of("x")), ("x",), "a/b/c", "loss")
    (line,) = figure.data
    assert (line.x, line.y) == ((1, 3), (1.0, 3.0))
    assert (line.error_y.array, line.error_y.arrayminus) == ((2.0, 2.0), (1.0, 1.0))
    assert figure.layout.title.text == "loss"


def test_two_parameters_are_a_map_three_panels_and_of_a_fourth_the_first_value_is_shown():
    for names in (("x", "y"), ("x", "y", "z"), ("x", "y", "z", "w")):
        figure = sweeps.picture(list(rows_of(*names)), names, "a/b/c", "loss")
        others = len(names) - 2
        assert len(figure.data) == (3 if others else 1)
        heat = figure.data[-1]
        values = {(x, y): z for x, y, z in zip(heat.x, heat.y, heat.z, strict=True)}
        last = 3 * (others > 0) + (others > 1)
        assert values == {
            (x, y): None if x == 2 else x + y + last
            for x, y in itertools.product((1, 2, 3), repeat=2)
        }
        assert figure.layout.title.text == ("loss, w=1" if others > 1 else "loss")
        assert figure.layout.xaxis.type == figure.layout.yaxis.type == "category"
        assert figure.layout.xaxis.title.text == "x"


def test_panels_of_four_values_have_a_place_each():
    rows = [dict(x=x, y=y, z=z, n=1.0) for x, y, z in itertools.product((1, 2), (1, 2), range(4))]
    figure = sweeps.picture(rows, ("x", "y", "z"), "n")
    assert [a.text for a in figure.layout.annotations] == ["z=0", "z=1", "z=2", "z=3"]
    assert len({(heat.xaxis, heat.yaxis) for heat in figure.data}) == 4


def test_the_number_to_draw():
    rows = [{"n": n, "seconds": 1.0, "a/b/c": 5.0, "figure 1/x": float(n)} for n in (1, 2)]
    assert key_number(rows, ["n"]) == "figure 1/x"
    assert key_number(rows[:1], ["n"]) == "seconds"  # nothing else has changed
    assert key_number(rows, ["n"], "seconds") == "seconds"
    assert key_number([{"n": 1, "failure": "x"}], ["n"]) is None
    failed = {"n": 3, "seconds": None, "failure": "x"}  # is no other value of a constant
    assert key_number([*rows, failed], ["n"]) == "figure 1/x"
    ends = [{"n": n, "a/b/overflow": n, "a/b/c/low": n} for n in (1, 2)]
    assert key_number(ends, ["n"]) == "a/b/overflow"
    with pytest.raises(ValueError, match="--show='y': expected one of 'seconds', 'a/b/c'"):
        key_number(rows, ["n"], "y")


def test_the_report_of_a_sweep(toy, monkeypatch):
    monkeypatch.setattr(sweep_report, "find", lambda name: toy / "src" / "90_toy.py")
    points = sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    points.append(Point({"n": 3}, None, "it failed, twice"))
    paths = write_report(points, "90")
    rows = read(paths["table"])
    assert [row["n"] for row in rows] == ["1", "2", "3"]
    assert [row["failure"] for row in rows] == ["", "", "it failed, twice"]
    assert [row["toy/only"] for row in rows] == ["holds", "holds", ""]
    assert words_for("toy/only/n", points) == "n"
    assert words_for("seconds", points) == "seconds"
    assert paths["table"].parent == run_folder(toy / "src" / "90_toy.py", {}).parent
    assert paths["figure"].suffix in (".png", ".html")
    assert paths["figure"].stat().st_size > 1000
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(paths["table"].with_suffix(".parquet"))
    assert table.column("n").to_pylist() == [1, 2, 3]
    assert table.column("failure").to_pylist() == [None, None, "it failed, twice"]


def test_a_busy_machine_is_said_in_the_table_and_at_the_end(toy, monkeypatch, capsys):
    monkeypatch.setattr(sweep_report, "find", lambda name: toy / "src" / "90_toy.py")
    points = sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    notebook = nbformat.read(points[0].path, as_version=4)
    notebook.metadata.efflab.cost.busy_cores = 0.0
    nbformat.write(notebook, points[0].path)
    for cores, said in ((0.5, ""), (0.51, sweep_report.BUSY.format(n=1, total=2, cores=0.5))):
        notebook.metadata.efflab.cost.busy_cores = cores  # of the second run
        nbformat.write(notebook, points[1].path)
        capsys.readouterr()
        table = write_report(points, "90")["table"]
        assert capsys.readouterr().out.strip() == said
        assert read(table)[1]["busy_cores"] == str(cores)
        assert read(table)[1]["versions"].startswith("python 3.")


def test_a_recorded_sweep_is_shown_with_its_command(toy, monkeypatch, capsys, both_languages):
    monkeypatch.setattr(sweep_report, "find", lambda name: toy / "src" / "90_toy.py")
    for module in (sweeps, sweep_report):
        monkeypatch.setattr(module, "SWEEPS", toy.parent / "sweeps", raising=False)
    points = sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    path = write_report(points, "90", record=True)["record"]
    assert path.name == "90.json"
    assert sweeps.read_sweep("90") == [read_row(point) for point in points]
    before = path.read_bytes()
    failed = [*points, Point({"n": 3}, None, "it failed")]
    for given, show, message in (
        (points, "y", "--show='y'"),
        (failed, None, "--record=1: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            write_report(given, "90", show, record=True)
        assert path.read_bytes() == before
    shown = []
    monkeypatch.setattr(sweeps.figures, "show", shown.append)
    sweeps.show_sweep("90", 1, {"n": Estimate(1.5, 1.0, 2.0)})
    (figure,) = shown
    line, star = figure.data
    assert (line.x, line.y, star.x, star.y) == ((1, 2), (1, 2), (1,), (1.5,))
    assert figure.layout.meta == {"n": 1.5, "n/low": 1.0, "n/high": 2.0}
    said = capsys.readouterr().out.splitlines()
    assert said[-3] == "efflab sweep 90 -p n=1,2"
    with pytest.raises(ValueError, match="notebook='91': expected one of '90'"):
        sweeps.read_sweep("91")


def test_two_runs_compared(toy):
    first, second = (run("90", {"n": n}, folder=toy, say=quiet) for n in (1, 2))
    assert compare(first, first) == ["3 others equal, or within their intervals"]
    lines = compare(first, second)
    assert lines == ["n: 1, 2", "toy/only/n: 1, 2", "1 others equal, or within their intervals"]


def test_intervals_that_overlap_are_no_difference(tmp_path, monkeypatch):
    rows = {
        "a": {"t": 1.0, "t/low": 0.5, "t/high": 1.5, "u": 1.0, "u/low": 1.0, "u/high": 1.0},
        "b": {"t": 2.0, "t/low": 1.4, "t/high": 2.5, "u": 1.1, "u/low": 1.1, "u/high": 1.1},
    }
    monkeypatch.setattr(sweep_report, "read_row", lambda point: rows[point.path.name])
    lines = compare(Path("a"), Path("b"))
    assert lines == ["u: 1, 1.1", "1 others equal, or within their intervals"]


def test_a_run_keeps_what_it_took(toy):
    notebook = nbformat.read(run("90", {"n": 1}, folder=toy, say=quiet), as_version=4)
    cost = notebook.metadata.efflab.cost
    assert cost.seconds >= 0
    assert cost.peak_mb > 10
