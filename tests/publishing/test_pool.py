"""The ledger's columns: run here, taken in from elsewhere, read from the records."""

import json
from types import SimpleNamespace

import nbformat
import pytest
from ledgers import BIG, HERE, LESS, SMALL, THERE, bytes_under, column, store

from efflab import cli
from efflab.base.formats import VERDICT
from efflab.experiments.provenance import machine, machine_name
from efflab.publishing import pool, readme, usage
from efflab.publishing.catalog import ROOT
from efflab.publishing.column import read
from efflab.publishing.execute import CellFailed
from efflab.publishing.ledger import verdicts

ANOTHER = '\n["91"]\nname = "91_another"\nclaims = ["later"]\n'


def quiet(*_):
    pass


def notebook(path, *records):
    outputs = [nbformat.v4.new_output("display_data", {VERDICT: r}) for r in records]
    cells = [nbformat.v4.new_code_cell("verdict()", outputs=outputs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture
def runner(root, monkeypatch):
    """In place of kernels: `found` says what a notebook's run holds or raises; `ran`, which ran."""

    kernel = SimpleNamespace(found={"90": (LESS, SMALL)}, ran=[], kept={})

    def run(number, given, *, folder, fresh, say):
        assert given == {}
        if not fresh and number in kernel.kept:
            return kernel.kept[number]
        kernel.ran.append(number)
        if isinstance(kernel.found[number], Exception):
            raise kernel.found[number]
        kernel.kept[number] = notebook(root / "runs" / f"{number}.ipynb", *kernel.found[number])
        return kernel.kept[number]

    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr(pool, "is_done", lambda number, given, folder: kernel.kept.get(number))
    monkeypatch.setattr(usage, "busy_cores", lambda: 0.0)
    return kernel


def run_here(root, out=None, **more):
    return pool.run_here(out, folder=root / "notebooks", **{"say": quiet} | more)


# --- Round trip ------------------------------------------------------------------------------


def test_from_a_run_to_a_file_to_the_page(root, runner):
    out = run_here(root, root / "far" / "column.json")
    body = json.loads(out.read_text(encoding="utf-8"))
    assert set(body) == {"schema", "efflab", "date", "machine", "versions", "verdicts"}
    assert (body["schema"], body["machine"]) == (3, machine())
    assert body["verdicts"] == [LESS, SMALL]
    stored = pool.add(out, root)
    assert stored.parent == root / "data" / "ledger"
    assert stored.read_bytes() == out.read_bytes()
    mine, theirs = pool.columns(root)
    assert (mine.source, mine.machine, mine.verdicts) == (
        "built",
        HERE,
        {"big": BIG, "small": SMALL},
    )
    assert (theirs.source, theirs.name) == ("run", machine_name(machine()))
    lines = []
    readme.report(root, say=lines.append)
    page = (root / "docs" / "ledger.html").read_text(encoding="utf-8")
    assert f"<b>{theirs.name}</b>" in page


def test_a_second_column_of_a_machine_takes_the_firsts_place(root):
    path = root / "theirs.json"
    for records in ((LESS,), (BIG, SMALL)):
        path.write_text(column(*records).text(), encoding="utf-8")
        pool.add(path, root)
    (theirs,) = pool.stored_columns(root)
    assert theirs.verdicts == {"big": BIG, "small": SMALL}


def test_what_a_cluster_ran_is_taken_and_its_failures_left_out(root, runner, monkeypatch):
    catalog, asked = root / "notebooks" / "catalog.toml", []
    catalog.write_text(catalog.read_text(encoding="utf-8") + ANOTHER, encoding="utf-8")
    runner.kept["90"] = notebook(root / "runs" / "90.ipynb", *runner.found["90"])

    def run_ahead(*given):
        asked.append(given)
        return {"91": "its cell 4 failed"}

    monkeypatch.setattr(pool, "run_ahead", run_ahead)
    with pytest.raises(CellFailed, match="1 failed\n\nits cell 4 failed"):
        run_here(root, dask="tcp://10.0.0.1:8786", fresh=True)
    assert asked == [(["90", "91"], root / "notebooks", "tcp://10.0.0.1:8786", True)]
    assert runner.ran == []  # what the workers ran is not run once more


def test_what_a_killed_run_had_finished_is_not_run_again(root, runner):
    catalog = root / "notebooks" / "catalog.toml"
    catalog.write_text(catalog.read_text(encoding="utf-8") + ANOTHER, encoding="utf-8")
    runner.found["91"] = RuntimeError("killed")
    with pytest.raises(RuntimeError, match="killed"):
        run_here(root)
    assert not (root / "runs" / "ledger").exists()
    runner.found["91"] = ()
    lines = []
    out = run_here(root, say=lines.append)
    assert runner.ran == ["90", "91", "91"]
    assert lines[0] == "90: big holds in part, small does not hold"
    assert out.parent == root / "runs" / "ledger"
    run_here(root, fresh=True)
    assert runner.ran == ["90", "91", "91", "90", "91"]


def test_a_notebook_that_fails_is_left_out_and_named(root, runner):
    catalog = root / "notebooks" / "catalog.toml"
    catalog.write_text(catalog.read_text(encoding="utf-8") + ANOTHER, encoding="utf-8")
    runner.found = {"90": (LESS,), "91": CellFailed("91_another (en), cell 3 failed")}
    out = root / "column.json"
    with pytest.raises(
        CellFailed, match=r"column.json is partial: 1 failed\n\n91_another \(en\), c"
    ):
        run_here(root, out)
    assert read(out, root).verdicts == {"big": LESS}
    runner.found = {"90": CellFailed("no"), "91": CellFailed("no")}
    before = out.read_bytes()
    with pytest.raises(CellFailed, match="no column: 2 failed\n\nno\n\nno"):
        run_here(root, out, fresh=True)
    assert runner.ran == ["90", "91"] * 2  # the second also where the first fails
    assert out.read_bytes() == before


def test_a_busy_machine_and_a_folder_are_refused_before_anything_runs(root, runner, monkeypatch):
    with pytest.raises(ValueError, match=r"--out=.*: expected a file, not a folder"):
        run_here(root, root)
    monkeypatch.setattr(usage, "busy_cores", lambda: 1.5)
    with pytest.raises(ValueError, match=r"busy cores=1\.5: expected"):
        run_here(root)
    assert runner.ran == []
    run_here(root, busy=True)
    assert runner.ran == ["90"]


# --- What lies in data/ledger ----------------------------------------------------------------


def test_a_place_that_cannot_be_written_is_found_before_anything_runs(root, runner):
    (root / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        run_here(root, root / "file" / "column.json")
    assert runner.ran == []


def test_a_stored_column_is_checked_again_and_has_its_machines_name(root):
    path = root / "theirs.json"
    path.write_text(column(LESS).text(), encoding="utf-8")
    stored = pool.add(path, root)
    moved = stored.rename(stored.with_name("another.json"))
    with pytest.raises(ValueError, match=r"file='another.json': expected its name, there-1-thread"):
        pool.columns(root)
    forged = moved.read_text(encoding="utf-8").replace("it lies", "bad luck")
    stored.write_text(forged, encoding="utf-8")
    moved.unlink()
    with pytest.raises(ValueError, match=f"{stored.name}: big: amount: reason=.bad luck"):
        readme.report(root, say=quiet)


# --- Of the built notebooks ------------------------------------------------------------------


def builds(root, **entries):
    path = root / "data" / "builds.json"
    path.write_text(json.dumps({f"{n} en": e for n, e in entries.items()}), encoding="utf-8")


def test_notebooks_built_on_two_machines_are_two_columns(root):
    catalog = root / "notebooks" / "catalog.toml"
    catalog.write_text(catalog.read_text(encoding="utf-8") + ANOTHER, encoding="utf-8")
    store(root, {"90": [BIG, SMALL], "91": [SMALL | dict(claim="later")]})
    day = dict(date="2026-11-20", seconds=1.0, peak_mb=1)
    builds(root, **{"91": day | dict(machine=THERE), "90": day | dict(machine=HERE)})
    first, second = pool.built_columns(root)
    assert (first.machine, list(first.verdicts)) == (HERE, ["big", "small"])
    assert (second.name, list(second.verdicts)) == ("There, 1 thread", ["later"])
    newer = day | dict(machine=HERE, date="2026-11-21")
    builds(root, **{"91": newer, "90": day | dict(machine=HERE)})
    (only,) = pool.built_columns(root)
    assert (only.machine, len(only.verdicts), only.date) == (HERE, 3, "2026-11-21")
    (root / "data" / "builds.json").unlink()
    assert pool.built_columns(root)[0].name == "unknown machine"


def test_no_claim_of_a_written_notebook_is_without_its_verdict():
    """What is due is what is judged: a claim without a verdict, or a verdict without a claim."""
    assert pool.due() == list(verdicts())


# --- The command -----------------------------------------------------------------------------


def test_the_command_adds_a_column_and_says_what_is_next(root, monkeypatch, capsys):
    add = pool.add
    monkeypatch.setattr(pool, "add", lambda path: add(path, root))
    monkeypatch.chdir(root)
    path = root / "theirs.json"
    path.write_text(column(BIG, SMALL).text(), encoding="utf-8")
    assert cli.main(["ledger", "add", str(path)]) == 0
    said = capsys.readouterr().out.replace("\\", "/").splitlines()
    assert said[0].startswith("stored in data/ledger/there-1-thread-")
    assert said[1] == "next: efflab report"
    before = bytes_under(root)
    path.write_text(column(LESS | dict(outcome="holds")).text(), encoding="utf-8")
    before[path] = path.read_bytes()
    assert cli.main(["ledger", "add", str(path)]) == 1
    expected = "efflab: theirs.json: big: outcome='holds': expected as its own figures come to by"
    assert capsys.readouterr().err.startswith(expected)
    assert bytes_under(root) == before


def test_the_command_runs_and_says_where_the_column_lies(monkeypatch, capsys):
    asked = []

    def run_here(out, *, fresh, busy, dask):
        asked.append((out and out.name, fresh, busy, dask))
        return ROOT / "runs" / "ledger" / "x.json"

    monkeypatch.setattr(pool, "run_here", run_here)
    monkeypatch.chdir(ROOT)
    assert cli.main(["ledger", "run"]) == 0
    assert cli.main(["ledger", "run", "--out", "mine.json", "--fresh", "--busy"]) == 0
    assert cli.main(["ledger", "run", "--dask", "tcp://10.0.0.1:8786"]) == 0
    assert asked == [
        (None, False, False, None),
        ("mine.json", True, True, None),
        (None, False, False, "tcp://10.0.0.1:8786"),
    ]
    said = capsys.readouterr().out.replace("\\", "/").splitlines()
    assert said[0] == "stored in runs/ledger/x.json"
    assert said[1].endswith("efflab ledger add runs/ledger/x.json")
    failed = CellFailed("mine.json is partial: 1 failed")
    monkeypatch.setattr(pool, "run_here", lambda *_, **__: (_ for _ in ()).throw(failed))
    assert cli.main(["ledger", "run"]) == 1
    assert capsys.readouterr().err == "efflab: mine.json is partial: 1 failed\n"


def test_the_command_needs_a_step(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["ledger"])
    assert "step" in capsys.readouterr().err
