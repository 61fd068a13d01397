"""Runs and sweeps of a toy notebook: their limits, what they depend on, and what a kill leaves."""

import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from efflab.limits import allows, in_words, require_within
from efflab.publishing import run as running
from efflab.publishing.execute import CellFailed
from efflab.publishing.run import checked, execute_with, run, sweep

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
        ([16, 512], "16 to 512", (16, 512), (15, 513)),
        ([0.0, 0.8], "0.0 to 0.8", (0, 0.8), (-0.1, 0.81)),
        (dict(low=64, high=256, step=64), "64 to 256 in steps of 64", (64, 256), (65, 320, 0)),
        ([2, 3, 8], "2, 3 or 8", (2, 8), (4, 1)),
        (["a", "b"], "a or b", ("a", "b"), ("c",)),
        (["a"], "a", ("a",), ("b",)),
    ],
)
def test_a_limit_in_words_and_in_deed(limit, words, inside, outside):
    assert in_words(limit) == words
    assert all(allows(limit, value) for value in inside)
    for value in outside:
        assert not allows(limit, value)
        with pytest.raises(ValueError, match=f"x={value!r}: expected {words}"):
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


def test_a_float_may_be_given_as_an_int_and_nothing_else():
    known = {"n": 3, "rate": 0.5, "causal": False, "language": "en"}
    assert checked({"rate": 1, "causal": True}, known) == {"rate": 1, "causal": True}
    for wrong in ({"n": 0.5}, {"n": True}, {"causal": 1}, {"n": "3"}):
        with pytest.raises(ValueError, match="expected a value of type"):
            checked(wrong, known)


def test_a_live_notebook_refuses_what_its_catalog_does_not_allow(monkeypatch):
    import IPython

    from efflab import lab
    from efflab.lab import notebook

    names = {"seq_len": 10**9}
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    monkeypatch.setattr(notebook, "limits_of", lambda name: {"seq_len": [16, 512]})
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
    given, probe = {"language": "zh", "n": 4}, dict(solved=True, strict=True, complete=True)
    done = execute_with(path, given, target, **probe)
    assert "answer_1 = n + 1  # 加一" in [c.source for c in done.cells]
    assert done.cells[0].source == running.STRICT
    assert done.cells[-1].source == running.COMPLETE
    assert "zh 8\n" in texts(target)
    assert list(target.parent.iterdir()) == [target]


def test_strict_fails_where_a_stub_is_untouched_and_complete_where_chinese_lacks(toy, tmp_path):
    path, target = add(toy, EXERCISE), tmp_path / "probe.ipynb"
    execute_with(path, {}, target)  # kindly, without either
    with pytest.raises(CellFailed, match=r'(?s)90_toy \(en\).*check\("90-1".*AssertionError'):
        execute_with(path, {}, target, strict=True)
    add(toy, '\n# %%\nlab.tr("nobody translated this")\n')
    execute_with(path, {}, target, complete=True)  # in English nothing lacks
    with pytest.raises(CellFailed, match=r"(?s)90_toy \(zh\).*nobody translated this"):
        execute_with(path, {"language": "zh"}, target, complete=True)
    assert target.is_file()  # a failure leaves the run before


# --- What is kept ----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of efflab, on which runs of the toy then depend."""
    folder = tmp_path / "package"
    (folder / "room").mkdir(parents=True)
    (folder / "room" / "layer.py").write_text("x = 1\n", encoding="utf-8")
    (folder / "zh.toml").write_text('"a" = "甲"\n', encoding="utf-8")
    monkeypatch.setattr(running, "PACKAGE", folder)
    return folder


def test_a_run_depends_on_all_that_may_change_it(toy, package, edit, monkeypatch):
    path, data = toy / "src" / "90_toy.py", toy.parent / "data"
    for folder in ("published", "experiments", "stdlib-gpt"):
        (data / folder).mkdir(parents=True)

    def mark():
        return running.fingerprint(running.translate(running.read_source(path), "en"), path)

    seen = [mark()]
    assert mark() == seen[0]
    for file in (
        package / "room" / "layer.py",
        package / "zh.toml",
        data / "claims.toml",
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
    assert len(set(seen)) == len(seen) == 9
    # and on nothing else
    edit("# # A toy", "# # A better toy")
    (data / "verdicts.json").write_text("{}", encoding="utf-8")
    (data / "stdlib-gpt" / "training.safetensors").write_bytes(b"half a training")
    assert mark() == seen[-1]


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


def test_a_sweep_says_what_it_found_and_fresh_repeats_it(toy, package):
    lines = []
    paths = sweep("90", {"n": [1, 2]}, folder=toy, say=lines.append)
    assert [p.name for p in paths] == ["n=1.ipynb", "n=2.ipynb"]
    assert lines == [
        "1 of 2: {'n': 1}", "    toy: holds, n 1", "2 of 2: {'n': 2}", "    toy: holds, n 2",
    ]  # fmt: skip
    made = [p.stat().st_mtime_ns for p in paths]
    sweep("90", {"n": [1, 2]}, folder=toy, say=quiet)
    assert [p.stat().st_mtime_ns for p in paths] == made
    sweep("90", {"n": [1]}, folder=toy, fresh=True, say=quiet)
    assert [p.stat().st_mtime_ns == m for p, m in zip(paths, made, strict=True)] == [False, True]


SWEEP = """
import sys
from pathlib import Path
from efflab.publishing import run
run.PACKAGE = Path(sys.argv[2])
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
            lambda: (runs / "n=1.ipynb").exists() and list(runs.glob("n=2.ipynb.*.part.ipynb"))
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
    paths = sweep("90", {"n": [1, 2, 3]}, folder=toy, say=lines.append)
    assert [p.name for p in paths] == ["n=1.ipynb", "n=2.ipynb", "n=3.ipynb"]
    assert (runs / "n=1.ipynb").stat().st_mtime_ns == made
    assert set(runs.iterdir()) == set(paths)  # nor is anything of the killed one left
    assert [line for line in lines if " of 3" in line] == [
        "1 of 3: {'n': 1} (done before)", "2 of 3: {'n': 2}", "3 of 3: {'n': 3}",
    ]  # fmt: skip
