"""Building: on a toy notebook, so that each promise takes a second or two."""

import json

import nbformat
import pytest

from efflab.base.formats import WIDGET
from efflab.experiments.provenance import machine
from efflab.publishing import build as building
from efflab.publishing import outputs, usage
from efflab.publishing.catalog import find
from efflab.publishing.execute import CellFailed, execute
from efflab.publishing.source import differences, join_lines, read_source, translate


def quiet(*_):
    pass


def build(folder, **more):
    building.build(folder=folder, prelude="", busy=True, **{"say": quiet} | more)
    return folder / "90_toy.ipynb", folder / "zh" / "90_toy.ipynb"


def test_two_languages_from_one_source(toy):
    english, chinese = (nbformat.read(path, as_version=4) for path in build(toy))
    texts = [[c.source for c in n.cells if c.cell_type == "markdown"] for n in (english, chinese)]
    assert texts == [
        ["# A toy\n\n[Chinese edition](zh/90_toy.ipynb)"],
        ["# 玩具\n\n[英文版](../90_toy.ipynb)"],
    ]
    assert english.cells[2].outputs[0].text == "en 6\n"
    assert chinese.cells[2].outputs[0].text == "zh 6\n"
    for notebook in (english, chinese):
        assert [c.execution_count for c in notebook.cells[1:]] == [1, 2, 3]
        assert notebook.cells[3].outputs[-1].execution_count == 3  # of the value, as of its cell
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert all(set(c.metadata) <= {"tags"} for c in notebook.cells)


def test_each_twin_link_leads_to_the_other(toy):
    for path in build(toy):
        heading = nbformat.read(path, as_version=4).cells[0].source
        link = heading.partition("](")[2].rstrip(")")
        other = (path.parent / link).resolve()
        assert other.is_file()
        assert other != path.resolve()


def test_a_rebuild_changes_only_what_was_measured(toy):
    first = build(toy)[0].read_text(encoding="utf-8").splitlines()
    second = build(toy)[0].read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    assert len(changed) == 1  # the process id, in a cell that is tagged as differing
    assert changed[0][0].strip().strip('"').isdigit()


def test_a_prelude_runs_first_and_is_not_stored(toy):
    building.build(folder=toy, prelude="print = lambda *_: None", busy=True, say=quiet)
    notebook = nbformat.read(toy / "90_toy.ipynb", as_version=4)
    assert notebook.cells[0].source.startswith("# A toy")
    assert notebook.cells[2].outputs == []  # the toy's own print was silenced
    with pytest.raises(CellFailed, match=r"(?s)90_toy \(en\), cell 0.*1 / 0.*ZeroDivisionError"):
        building.build(folder=toy, prelude="1 / 0", busy=True, say=quiet)


def test_cell_ids_follow_the_content(toy, edit):
    source = read_source(find("90", toy))
    before = [c.id for c in translate(source, "en").cells]
    edit("print(language, n * 2)", "print(language, n * 3)")
    source = read_source(find("90", toy))
    after = [c.id for c in translate(source, "en").cells]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    assert len(set(after)) == len(after)


def test_a_failing_cell_says_where_and_leaves_the_old_notebook(toy, edit):
    english, _ = build(toy)
    before = english.read_bytes()
    edit("print(language, n * 2)", "print(language, n / 0)")
    with pytest.raises(CellFailed, match=r"(?s)90_toy \(en\), cell 3.*n / 0.*ZeroDivisionError"):
        build(toy)
    assert english.read_bytes() == before
    assert not list(toy.rglob("*.part"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time\ntime.sleep(60)", "It ran over 2 s."),
        ("import os\nos._exit(1)", "The kernel died."),
    ],
)
def test_a_cell_that_hangs_or_kills_its_kernel_is_named(tmp_path, code, said):
    cells = [nbformat.v4.new_code_cell(c) for c in ("x = 1", code, "x = 2")]
    notebook, part = nbformat.v4.new_notebook(cells=cells), tmp_path / "part.ipynb"
    with pytest.raises(CellFailed) as failure:
        execute(notebook, "toy", tmp_path, part, timeout=2)
    message = str(failure.value)
    assert message.startswith(f"toy, cell 1 failed:\n\n{code}\n\n{said}")
    assert message.endswith(f"The notebook so far: {part}")
    assert part.is_file()


def test_out_of_step_is_seen(toy, edit):
    build(toy)
    assert differences(find("90", toy), "zh") == []
    edit("# # 玩具", "# # 另一个玩具")
    assert differences(find("90", toy), "en") == []
    (line,) = differences(find("90", toy), "zh")
    assert "cell 0" in line
    assert "另一个玩具" in line


def test_texts_alone_are_taken_anew_and_nothing_runs(toy, edit):
    english, _ = build(toy)
    before = english.read_text(encoding="utf-8")
    edit("# # A toy", "# # Another toy")
    build(toy, texts=True)
    after = english.read_text(encoding="utf-8")
    changed = [
        (a.strip(), b.strip())
        for a, b in zip(before.splitlines(), after.splitlines(), strict=True)
        if a != b
    ]
    assert len(changed) == 2  # the text, and its cell's id
    assert changed[1] == ('"# A toy\\n",', '"# Another toy\\n",')
    assert differences(find("90", toy), "en") == differences(find("90", toy), "zh") == []


def test_texts_without_the_code_that_was_built_are_refused(toy, edit):
    with pytest.raises(ValueError, match=r"90_toy \(en\)'.*first efflab build 90"):
        build(toy, texts=True)
    english, chinese = build(toy)
    before = english.read_bytes(), chinese.read_bytes()
    edit("print(language, n * 2)", "print(language, n * 3)")
    with pytest.raises(ValueError, match=r"first efflab build 90"):
        build(toy, texts=True)
    assert (english.read_bytes(), chinese.read_bytes()) == before


def test_verdicts_and_board_are_collected(toy):
    build(toy)
    verdicts = json.loads((toy.parent / "data" / "verdicts.json").read_text(encoding="utf-8"))
    board = json.loads((toy.parent / "data" / "board.json").read_text(encoding="utf-8"))
    assert [f["value"] for f in verdicts["90"][0]["parts"][0]["figures"]] == [3]
    assert board == {"points": [{"technique": "t", "model": "m"}]}


def test_chinese_prose_is_joined_and_nothing_else():
    text = "# 标题\n\n两两比较，\n核心随长度增长。\nGPT 也是。\n\n| 甲 |\n|---|\n- 一\n- 二"
    made = join_lines(text)
    assert "两两比较，核心随长度增长。\nGPT 也是。" in made
    assert made.count("\n") == text.count("\n") - 1


# --- What a build costs ----------------------------------------------------------------------


def test_seconds_and_memory_are_kept_apart_from_the_notebook(toy, edit):
    edit("import os\n", "import os, time\nheld = bytearray(10**8)\nheld[::4096] = held[::4096]\n")
    edit("os.getpid()\n", "time.sleep(1)\nos.getpid()\n")
    lines = []
    english, _ = build(toy, say=lines.append)
    builds = usage.read_builds(toy.parent / "data" / "builds.json")
    assert list(builds) == ["90 en", "90 zh"]
    for took in builds.values():
        assert set(took) == {"seconds", "peak_mb", "machine", "date"}
        assert took["machine"] == machine()
        assert took["seconds"] >= 1.0  # it slept
        assert took["peak_mb"] > 100  # it held as much
    stored = english.read_text(encoding="utf-8")
    assert "duration" not in stored
    assert "papermill" not in stored
    (slow,) = [line for line in lines if line.startswith("90 en  cell  4 ")]
    assert slow.endswith(" s  import os, time")
    took, size = builds["90 en"], f"{english.stat().st_size / 1e3:.0f} kB"
    told = f"{took['seconds']} s in its cells, {took['peak_mb']} MB at most, {size}"
    assert f"90_toy (en): {told}" in lines


def test_a_busy_machine_is_refused_before_anything_runs(toy, monkeypatch):
    monkeypatch.setattr(usage, "busy_cores", lambda: 0.9)
    with pytest.raises(ValueError, match=r"busy cores=0\.9: expected at most 0\.5 .*--busy"):
        building.build(folder=toy, prelude="", say=quiet)
    assert not (toy / "90_toy.ipynb").exists()
    monkeypatch.setattr(usage, "busy_cores", lambda: 0.4)
    building.build(folder=toy, prelude="", say=quiet, languages=("en",))
    assert (toy / "90_toy.ipynb").exists()


def test_busy_cores_sees_what_others_use():
    import subprocess
    import sys

    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert usage.busy_cores() > 0.3
    finally:
        other.kill()
        other.wait()


# --- Damaged, and two at once ----------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "null", "[]", '{"90 en": 3}', '{"90 en": {"seconds": "x"}}'])
def test_damaged_costs_are_named_and_stay(tmp_path, text):
    path = tmp_path / "builds.json"
    path.write_text(text, encoding="utf-8")
    for touch in (usage.read_builds, lambda path: usage.keep_builds(path, {})):
        with pytest.raises(ValueError, match=r"builds\.json is damaged \(.*restore or delete it"):
            touch(path)
    assert path.read_text(encoding="utf-8") == text


def test_a_damaged_built_notebook_is_named_and_built_again(toy):
    english, _ = build(toy)
    whole = english.read_text(encoding="utf-8")
    english.write_text("null", encoding="utf-8")
    with pytest.raises(ValueError, match=r"90_toy\.ipynb is damaged.*efflab build 90 makes it"):
        outputs.read_outputs(WIDGET, toy)
    (line,) = differences(find("90", toy), "en")
    assert "90_toy.ipynb is damaged" in line
    build(toy, languages=("en",))
    assert len(english.read_text(encoding="utf-8")) == pytest.approx(len(whole), abs=5)
