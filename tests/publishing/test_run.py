"""Runs and sweeps of a toy notebook: their limits, what they depend on, and what a kill leaves."""

import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from solving import COMPLETE, STRICT, execute_solved

from efflab.base.limits import allows, entry_of, in_words, kind, require_within
from efflab.publishing import pool
from efflab.publishing import run as running
from efflab.publishing.catalog import sources
from efflab.publishing.execute import CellFailed
from efflab.publishing.parameters import check_values_for, checked
from efflab.publishing.run import execute_with, is_done, run, run_folder, sweep
from efflab.publishing.source import parameters, read_notebook, read_source

EXERCISE = """

# %% tags=["exercise", "ex-90-1"]
answer_1 = ...

# %% [markdown] tags=["en", "solution", "ex-90-1"]
# <details><summary>Solution</summary>
#
# ```python
# answer_1 = n + 1
# ```
# </details>

# %% [markdown] tags=["zh", "solution", "ex-90-1"]
# <details><summary>答案</summary>
#
# ```python
# answer_1 = n + 1  # 加一
# ```
# </details>

# %%
from efflab import lab
lab.use_language(language)
lab.use_notebook("90_toy", {"90-1": lab.Exercise(n + 1, "add one")}, {"add one": "加一"})
lab.check("90-1", answer_1)
"""


def quiet(*_):
    pass


def texts(path):
    """All that the cells of a run printed."""
    cells = nbformat.read(path, as_version=4).cells
    return [o.get("text") for c in cells for o in c.get("outputs", [])]


def with_limits(folder, text):
    entry = f'["90"]\nname = "90_toy"\nlimits = {{ {text} }}\n'
    (folder / "catalog.toml").write_text(entry, encoding="utf-8")


# --- Parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "words", "inside", "outside"),
    [
        ([16, 512], "16 to 512", (16, 512), (15, 513, True, "16", None, [16])),
        ([0.0, 0.8], "0.0 to 0.8", (0, 0.8), (-0.1, 0.81, False, math.nan, "0.5")),
        ([0.25, 25], "0.25 to 25", (0.5, 1, 25), (0.2, math.inf)),
        (dict(low=64, high=256, step=64), "64 to 256 in steps of 64", (64, 256), (65, 320, 0)),
        (dict(low=0.1, high=0.7, step=0.1), "0.1 to 0.7 in steps of 0.1", (0.3, 0.7), (0.35,)),
        ([2, 3, 8], "2, 3 or 8", (2, 8), (4, 1, "2")),
        (["a", "b"], "a or b", ("a", "b"), ("c",)),
        (["a"], "a", ("a",), ("b",)),
    ],
)
def test_a_limit_in_words_and_in_deed(limit, words, inside, outside):
    assert in_words(limit) == words
    assert all(allows(limit, value) for value in inside)
    for value in outside:
        assert not allows(limit, value)
        with pytest.raises(ValueError, match=re.escape(f"x={value!r}: expected {words}")):
            require_within({"x": value, "free": 10**9}, {"x": limit})


def test_run_takes_parameters_and_refuses_others_before_a_kernel_starts(toy, monkeypatch):
    path = run("90", {"n": 5}, folder=toy, say=quiet)
    assert path.relative_to(toy.parent).parts[:2] == ("runs", "90_toy")
    assert "en 10\n" in texts(path)
    with_limits(toy, "n = [1, 9]")
    monkeypatch.setattr(running, "execute", lambda *_, **__: pytest.fail("a kernel started"))
    for given, message in [
        ({"m": 5}, "parameter='m': expected one of language, n"),
        ({"n": "many"}, "n='many': expected a value of type int, like 3"),
        ({"n": 10}, "n=10: expected 1 to 9"),
        ({"language": "fr"}, "language='fr': expected one of 'en', 'zh'"),
    ]:
        with pytest.raises(ValueError, match=message):
            run("90", given, folder=toy)
    with pytest.raises(ValueError, match="n=0: expected 1 to 9"):
        sweep("90", {"n": [1, 0]}, folder=toy, say=quiet)
    with pytest.raises(ValueError, match="notebook='91': expected one of 90_toy"):
        run("91", {}, folder=toy)


def test_a_run_says_what_each_cell_took(toy):
    lines = []
    run("90", {}, folder=toy, say=lines.append)
    titles = ['language = "en"', "print(language, n * 2)", "import os"]
    assert lines.pop() == "toy: holds, n 3"
    for line, title in zip(lines, titles, strict=True):
        assert re.fullmatch(rf" *\d+\.\d\d s  {re.escape(title)}", line)


def test_a_run_starts_where_the_notebooks_lie(toy, edit):
    edit("print(language, n * 2)", "import os\nprint(os.getcwd())")
    assert f"{toy}\n" in texts(run("90", {}, folder=toy, say=quiet))


def test_a_float_may_be_given_as_an_int_and_nothing_else():
    known = {"n": 3, "rate": 0.5, "causal": False, "language": "en"}
    assert checked({"rate": 1, "causal": True}, known) == {"rate": 1, "causal": True}
    for wrong in ({"n": 0.5}, {"n": True}, {"causal": 1}, {"n": "3"}):
        with pytest.raises(ValueError, match="expected a value of type"):
            checked(wrong, known)


@pytest.mark.parametrize("number", list(sources()))
def test_a_parameter_takes_its_kind_from_its_limits(number):
    path = sources()[number]
    source, limits = read_source(path), entry_of(path.stem)["limits"]
    for name, default in parameters(source).items():
        if name not in limits or kind(limits[name]) is str:
            continue
        check_values_for(path, source, {name: default})
        between = [value + 0.5 for value in ends(limits[name])[:-1]]
        whole = kind(limits[name]) is int
        for value in between:
            if whole:
                with pytest.raises(
                    ValueError, match=f"{name}={value}: expected a value of type int"
                ):
                    check_values_for(path, source, {name: value})
                with pytest.raises(ValueError, match=rf"{name}={value}: expected .*whole number"):
                    require_within({name: value}, limits)
            elif allows(limits[name], value):
                assert check_values_for(path, source, {name: value}) == {name: value}
            else:
                assert value not in limits[name]  # a list of what is allowed


def ends(limit):
    """The numbers that a limit names, in order."""
    return [limit["low"], limit["high"]] if isinstance(limit, dict) else sorted(limit)


def test_a_parameter_between_whole_numbers_runs_where_the_limits_say_so():
    path = sources()["12"]
    assert check_values_for(path, read_source(path), {"bucket_mb": 0.5}) == {"bucket_mb": 0.5}


def test_a_live_notebook_refuses_what_its_catalog_does_not_allow(monkeypatch):
    import IPython

    from efflab import lab
    from efflab.lab import notebook

    names = {"seq_len": 10**9}
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    monkeypatch.setattr(notebook, "entry_of", lambda name: {"limits": {"seq_len": [16, 512]}})
    with pytest.raises(ValueError, match="seq_len=1000000000: expected 16 to 512"):
        lab.use_notebook("00_start_here", {}, {})
    names["seq_len"] = 512
    lab.use_notebook("00_start_here", {}, {})


# --- With solutions, strict, complete --------------------------------------------------------


def add(folder, text):
    path = folder / "src" / "90_toy.py"
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    return path


def test_solutions_stand_in_the_stubs(toy, tmp_path):
    path, target = add(toy, EXERCISE), tmp_path / "runs" / "probes" / "90_toy.ipynb"
    done = execute_solved(path, {"language": "zh", "n": 4}, target)
    assert "answer_1 = n + 1  # 加一" in [c.source for c in done.cells]
    assert done.cells[0].source == STRICT
    assert done.cells[-1].source == COMPLETE
    assert "zh 8\n" in texts(target)
    assert list(target.parent.iterdir()) == [target]


def test_strict_fails_where_a_stub_is_untouched_and_complete_where_chinese_lacks(toy, tmp_path):
    path, target = add(toy, EXERCISE), tmp_path / "probe.ipynb"
    execute_with(path, {}, target)  # kindly, without either
    with pytest.raises(CellFailed, match=r'(?s)90_toy \(en\).*check\("90-1".*AssertionError'):
        execute_solved(path, {}, target, solved=False, complete=False)
    add(toy, '\n# %%\nlab.tr("nobody translated this")\n')
    complete = dict(solved=False, strict=False)
    execute_solved(path, {}, target, **complete)  # in English nothing lacks
    with pytest.raises(CellFailed, match=r"(?s)90_toy \(zh\).*nobody translated this"):
        execute_solved(path, {"language": "zh"}, target, **complete)
    assert target.is_file()  # a failure leaves the run before


# --- What is kept ----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package and a room in place of ours, on which runs of the toy then depend."""
    folder = tmp_path / "package"
    (folder / "room").mkdir(parents=True)
    (folder / "room" / "layer.py").write_text("x = 1\n", encoding="utf-8")
    (folder / "core").mkdir()
    (folder / "core" / "zh.toml").write_text('"a" = "甲"\n', encoding="utf-8")
    monkeypatch.setattr(running, "CODE", (folder / "core", folder / "room"))
    return folder


def test_a_run_depends_on_all_that_may_change_it(toy, package, edit, monkeypatch):
    path, data = toy / "src" / "90_toy.py", toy.parent / "data"
    for folder in ("published", "experiments", "stdlib-gpt"):
        (data / folder).mkdir(parents=True)

    def mark():
        return running.fingerprint(running.translate(running.read_source(path), "en"), path, {})

    seen = [mark()]
    assert mark() == seen[0]
    for file in (
        package / "room" / "layer.py",
        package / "core" / "zh.toml",
        *(data / name for name in running.TABLES),
        data / "published" / "albert.csv",
        data / "experiments" / "sweep.json",
        data / "stdlib-gpt" / "model.safetensors",
    ):
        file.write_bytes(b"something else")
        seen.append(mark())
    edit("n * 2", "n * 3")
    seen.append(mark())
    monkeypatch.setattr(running, "libraries", lambda: "torch==99")
    seen.append(mark())
    assert len(set(seen)) == len(seen) == 8 + len(running.TABLES)
    # and on nothing else
    edit("# # A toy", "# # A better toy")
    (data / "builds.json").write_text("{}", encoding="utf-8")
    (data / "stdlib-gpt" / "training.safetensors").write_bytes(b"half a training")
    assert mark() == seen[-1]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "defaults"),
        ({"window_size": 64, "causal": True}, "causal=True,window_size=64"),
        ({"text": "a b"}, "text=a_b-1d7c7d5a40f6b722"),  # neither hides the other's run
        ({"text": "a/b"}, "text=a_b-a73a7829abaf333f"),
    ],
)
def test_a_run_is_found_again_under_its_name_by_whatever_version_comes_later(given, name):
    assert run_folder(Path("src", "90_toy.py").absolute(), given).name == f"{name}.ipynb"


def test_libraries_are_named_with_their_versions():
    assert f'"nbformat=={nbformat.__version__}"' in running.libraries()


def test_run_keeps_what_has_not_changed_and_fresh_does_not(toy, package):
    path = run("90", {"n": 5}, folder=toy, say=quiet)
    made, lines = path.stat().st_mtime_ns, []
    assert run("90", {"n": 5}, folder=toy, say=lines.append) == path
    assert path.stat().st_mtime_ns == made
    assert lines == [
        "kept from before, as nothing that it depends on has changed; --fresh runs it again"
    ]
    run("90", {"n": 5}, folder=toy, fresh=True, say=quiet)
    fresh = path.stat().st_mtime_ns
    assert fresh != made
    (package / "room" / "layer.py").write_text("x = 2\n", encoding="utf-8")
    run("90", {"n": 5}, folder=toy, say=quiet)
    assert path.stat().st_mtime_ns != fresh


CONFIG = dict(model_type="gpt2", n_layer=2, n_head=4, n_embd=64, vocab_size=1000)


def test_a_models_file_is_found_from_any_folder_and_its_content_counts(
    toy, package, edit, monkeypatch, tmp_path
):
    edit("n = 3", 'model = "gpt2"\nn = 3')
    with_limits(toy, 'model = "model"')
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG), encoding="utf-8")
    path = run("90", {"model": "config.json"}, folder=toy, say=quiet)
    assert read_notebook(path).metadata.efflab["parameters"] == {"model": str(file)}
    assert is_done("90", {"model": "."}, toy, pytest.fail) == path
    file.write_text(json.dumps(CONFIG | dict(n_layer=3)), encoding="utf-8")
    assert is_done("90", {"model": "config.json"}, toy, pytest.fail) is None
    monkeypatch.setattr(running, "execute", lambda *_, **__: pytest.fail("a kernel started"))
    for text, name, message in [
        ("[]", "config.json", "source=.*: expected one JSON object"),
        ("{", "config.json", "source=.*: expected .*JSON"),
        ("", "other.json", "model='other.json': expected a preset's name or the path of a config"),
    ]:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message) as refused:
            run("90", {"model": name}, folder=toy)
        assert "\n" not in str(refused.value)


NOTHING = ["", "null", "[]", "{}", "3", '{"cells": 3, "nbformat": 4}', "\x00\x01", "[" * 100_000]


def test_a_damaged_run_is_not_done_and_is_named(toy, package):
    path, lines = run_folder(toy / "src" / "90_toy.py", {}), []
    path.parent.mkdir(parents=True)
    for text in NOTHING:
        path.write_text(text, encoding="utf-8")
        assert is_done("90", {}, toy, lines.append) is None
    assert len(lines) == len(NOTHING)
    for line in lines:
        assert line.startswith("defaults.ipynb is damaged, no notebook (")
        assert line.endswith("): run again")
        assert "\n" not in line
    path.write_bytes(b"\xff\xfe\x00")
    lines.clear()
    assert run("90", {}, folder=toy, say=lines.append) == path
    assert "defaults.ipynb is damaged" in lines[0]
    assert is_done("90", {}, toy, pytest.fail) == path
    path.write_text("null", encoding="utf-8")
    assert pool._verdicts_of("90", toy, False)[0]["claim"] == "toy"


def test_a_run_of_other_parameters_or_of_untold_ones_is_not_done(toy, package):
    source = toy / "src" / "90_toy.py"
    path, notebook = run_folder(source, {"n": 5}), nbformat.v4.new_notebook()
    path.parent.mkdir(parents=True)
    mark = running.fingerprint(running.translate(read_source(source), "en"), source, {})
    for about, done in (
        (None, False),
        ("n", False),
        ({"parameters": {"n": 5}}, False),
        ({"fingerprint": mark, "parameters": {"n": 6}}, False),
        ({"fingerprint": mark, "parameters": {"n": 5, "m": 1}}, False),
        ({"fingerprint": mark}, False),
        ({"fingerprint": mark, "parameters": {"n": 5}}, True),
    ):
        notebook.metadata["efflab"] = about
        nbformat.write(notebook, path)
        assert bool(is_done("90", {"n": 5}, toy, pytest.fail)) is done


def test_a_sweep_reuses_its_runs_and_fresh_repeats_them(toy, package):
    lines = []
    paths = [point.path for point in sweep("90", {"n": [1, 2]}, folder=toy, say=lines.append)]
    assert [p.name for p in paths] == ["n=1.ipynb", "n=2.ipynb"]
    assert lines == []
    made = [p.stat().st_mtime_ns for p in paths]
    sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    assert [p.stat().st_mtime_ns for p in paths] == made
    sweep("90", {"n": [1]}, folder=toy, fresh=True, say=quiet)
    assert [p.stat().st_mtime_ns == m for p, m in zip(paths, made, strict=True)] == [False, True]


SWEEP = """
import sys
from pathlib import Path
from efflab.publishing import run
run.CODE = (Path(sys.argv[2]),)
run.sweep("90", {"n": [1, 2, 3]}, folder=Path(sys.argv[1]))
"""


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_sweep_that_is_killed_loses_no_finished_run(toy, package, edit):
    waits = 'import os, time\nwhile n == 2 and not os.path.exists("go"):\n    time.sleep(0.1)\n'
    edit("import os\n", waits)
    runs = toy.parent / "runs" / "90_toy"
    command = [sys.executable, "-c", SWEEP, toy, package]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(
            lambda: (
                (runs / "n=1.ipynb").exists()
                and psutil.Process(process.pid).children(recursive=True)
            )
        )
        kernels = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()  # SIGKILL, in the middle of the second run
        process.wait()
    for kernel in kernels:
        kernel.kill()
    assert process.returncode == -9
    assert not (runs / "n=2.ipynb").exists()
    made, lines = (runs / "n=1.ipynb").stat().st_mtime_ns, []
    (toy / "go").touch()
    points = sweep("90", {"n": [1, 2, 3]}, folder=toy, say=lines.append)
    paths = [point.path for point in points]
    assert [p.name for p in paths] == ["n=1.ipynb", "n=2.ipynb", "n=3.ipynb"]
    assert (runs / "n=1.ipynb").stat().st_mtime_ns == made
    assert set(runs.iterdir()) == set(paths)  # nor is anything of the killed one left
    assert lines == ["1 of 3 done before, as nothing that they depend on has changed"]
