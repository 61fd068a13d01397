"""Building and running: on a toy notebook, so that each promise takes a second or two."""

import json

import nbformat
import pytest

from efflab.publishing import build as building
from efflab.publishing.catalog import CellFailed, find
from efflab.publishing.run import run, sweep


def quiet(*_):
    pass


def build(folder, **more):
    building.build(folder=folder, prelude="", say=quiet, **more)
    return folder / "90_toy.ipynb", folder / "zh" / "90_toy.ipynb"


def edit(folder, old, new):
    path = folder / "src" / "90_toy.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_two_languages_from_one_source(toy):
    english, chinese = (nbformat.read(path, as_version=4) for path in build(toy))
    assert [c.source for c in english.cells if c.cell_type == "markdown"] == ["# A toy"]
    assert [c.source for c in chinese.cells if c.cell_type == "markdown"] == ["# 玩具"]
    assert english.cells[2].outputs[0].text == "en 6\n"
    assert chinese.cells[2].outputs[0].text == "zh 6\n"
    for notebook in (english, chinese):
        assert [c.execution_count for c in notebook.cells[1:]] == [1, 2, 3]
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert all(set(c.metadata) <= {"tags"} for c in notebook.cells)


def test_a_rebuild_changes_only_what_was_measured(toy):
    first = build(toy)[0].read_text(encoding="utf-8").splitlines()
    second = build(toy)[0].read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    assert len(changed) == 1  # the process id, in a cell that is tagged as differing
    assert changed[0][0].strip().strip('"').isdigit()


def test_a_picture_stays_when_its_figure_does():
    def cell(picture, number):
        data = {"image/png": picture, "application/vnd.plotly.v1+json": {"y": number}}
        output = nbformat.v4.new_output("display_data", data)
        return nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("show()", id="a", outputs=[output])]
        )

    old, same, other = cell("old", 1), cell("new", 1), cell("new", 2)
    building.settle(same, old)
    building.settle(other, old)
    assert same.cells[0].outputs[0].data["image/png"] == "old"
    assert other.cells[0].outputs[0].data["image/png"] == "new"


def test_views_of_widgets_are_not_stored():
    data = {building.WIDGET: {"model_id": "1"}, "text/plain": "a slider"}
    bare = {building.WIDGET: {"model_id": "2"}}
    outputs = [nbformat.v4.new_output("display_data", d) for d in (data, bare)]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
    building.settle(notebook, None)
    assert [o.data for o in notebook.cells[0].outputs] == [{"text/plain": "a slider"}]


def test_cell_ids_follow_the_content(toy):
    source = building.read_source(find("90", toy))
    before = [c.id for c in building.translate(source, "en").cells]
    edit(toy, "print(language, n * 2)", "print(language, n * 3)")
    source = building.read_source(find("90", toy))
    after = [c.id for c in building.translate(source, "en").cells]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    assert len(set(after)) == len(after)


def test_a_failing_cell_says_where_and_leaves_the_old_notebook(toy):
    english, _ = build(toy)
    before = english.read_bytes()
    edit(toy, "print(language, n * 2)", "print(language, n / 0)")
    with pytest.raises(CellFailed, match=r"(?s)90_toy \(en\).*n / 0.*ZeroDivisionError"):
        build(toy)
    assert english.read_bytes() == before
    assert not list(toy.rglob("*.part"))


def test_out_of_step_is_seen(toy):
    build(toy)
    assert building.differences(find("90", toy), "zh") == []
    edit(toy, "# # 玩具", "# # 另一个玩具")
    assert building.differences(find("90", toy), "en") == []
    (line,) = building.differences(find("90", toy), "zh")
    assert "cell 0" in line
    assert "另一个玩具" in line


def test_verdicts_and_board_are_collected(toy):
    build(toy)
    verdicts = json.loads((toy.parent / "data" / "verdicts.json").read_text(encoding="utf-8"))
    board = json.loads((toy.parent / "data" / "board.json").read_text(encoding="utf-8"))
    assert verdicts["90"][0]["figures"] == {"n": 3}
    assert board == {"points": [{"technique": "t", "model": "m"}]}


def test_run_takes_parameters_and_refuses_unknown_ones(toy):
    path = run("90", {"n": 5}, folder=toy, say=quiet)
    assert path.relative_to(toy.parent).parts[:2] == ("runs", "90_toy")
    notebook = nbformat.read(path, as_version=4)
    assert "en 10\n" in [o.get("text") for c in notebook.cells for o in c.get("outputs", [])]
    with pytest.raises(ValueError, match="parameter='m': expected one of language, n"):
        run("90", {"m": 5}, folder=toy)
    with pytest.raises(ValueError, match="n='many': expected a value of type int, like 3"):
        run("90", {"n": "many"}, folder=toy)
    with pytest.raises(ValueError, match="notebook='91': expected one of 90_toy"):
        run("91", {}, folder=toy)


def test_a_sweep_resumes_and_loses_nothing(toy):
    first = run("90", {"n": 1}, folder=toy, say=quiet)
    # the run that was killed: a part of a file, and no finished one
    (first.parent / "part-1-n=2.ipynb").write_text("{", encoding="utf-8")
    before, lines = first.stat().st_mtime_ns, []
    paths = sweep("90", {"n": [1, 2]}, folder=toy, say=lines.append)
    assert [p.name for p in paths] == ["n=1.ipynb", "n=2.ipynb"]
    assert first.stat().st_mtime_ns == before
    assert "1 of 2: {'n': 1} (done before)" in lines
    assert "    toy: {'n': 2}" in lines
    edit(toy, "n * 2", "n * 3")
    sweep("90", {"n": [1]}, folder=toy, say=quiet)
    assert first.stat().st_mtime_ns != before  # other code is another run


def test_chinese_prose_is_joined_and_nothing_else():
    text = "# 标题\n\n两两比较，\n核心随长度增长。\nGPT 也是。\n\n| 甲 |\n|---|\n- 一\n- 二"
    joined = building.joined(text)
    assert "两两比较，核心随长度增长。\nGPT 也是。" in joined
    assert joined.count("\n") == text.count("\n") - 1
