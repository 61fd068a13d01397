"""The command: quick answers, helpful errors, and a ledger that is true."""

import os
import re
import subprocess
import sys

import pytest

from efflab.cli import main
from efflab.lab.text import use_language
from efflab.publishing.doctor import MINILM_SHA256, doctor, report, row
from efflab.publishing.run import combinations, literal, parse, run_name

HEAVY = {"torch", "plotly", "ipywidgets", "transformers", "nbformat", "jupytext", "sklearn"}


@pytest.mark.parametrize("module", ["efflab", "efflab.cli"])
def test_import_is_light(module):
    code = (
        f"import sys, time; t = time.process_time(); import {module}; t = time.process_time() - t"
    )
    code += "; print(t, *sorted({m.split('.')[0] for m in sys.modules}))"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(r.stdout.split()[0]) for r in runs) < 0.3
    assert not HEAVY & set(runs[0].stdout.split())


def test_list_names_every_notebook(capsys):
    from efflab.publishing.catalog import sources

    assert main(["list"]) == 0
    assert [line[:2] for line in capsys.readouterr().out.splitlines()] == list(sources())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "99"], "notebook='99': expected one of 00_start_here"),
        (["run", "00", "-p", "nonsense=1"], "parameter='nonsense': expected one of language"),
        (["run", "00", "-p", "language=fr"], "language='fr': expected one of 'en', 'zh'"),
        (["run", "00", "-p", "seq_len=513"], "seq_len=513: expected 1 to 512"),
        (["run", "01", "-p", "d_model=100"], "d_model=100: expected 64 to 512 in steps of 64"),
        (["sweep", "10", "-p", "bits=3,5"], "bits=5: expected 2, 3, 4 or 8"),
        (["run", "00", "-p", "language"], "-p='language': expected name=value"),
        (["sweep", "00", "-p", "nonsense=1,2"], "parameter='nonsense': expected one of language"),
        (["build", "99"], "notebook='99': expected one of 00_start_here"),
        (["experiment", "x"], "name='x': expected one of 'attention-bench', 'budget-game', "),
    ],
)
def test_errors_say_what_is_known(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_unknown_command_lists_the_known(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["fly"])
    said = capsys.readouterr().err  # reading empties it
    assert all(name in said for name in ("doctor", "list", "run", "build"))


def test_doctor_finds_what_is_here_and_explains_what_is_not():
    rows = {r["what"]: r for r in doctor()}
    assert rows["Python 3.11 or newer"]["found"].startswith("3.")
    assert rows["torch"]["ok"]
    assert rows["stdlib-gpt checkpoint"]["ok"]
    assert rows["MiniLM-L6 weights"]["ok"]
    assert len(MINILM_SHA256) == 64
    text = report([row("a thing", None, "the other"), row("cores", "2", "")])
    assert text.splitlines() == [
        "--  a thing  missing: does not work without it: the other",
        "ok  cores    2",
    ]


@pytest.fixture
def started(monkeypatch):
    """(command, environment) of what takes this process's place."""
    found = []
    monkeypatch.setattr("os.execve", lambda path, *rest: found.extend(rest))
    return found


def test_lab_opens_notebook_00_on_this_machine_alone(started):
    assert main(["lab", "--no-browser", "--port", "8899"]) == 0
    command, _ = started
    assert "--ip=127.0.0.1" in command
    assert "--port=8899" in command
    # In the address itself, which a reader without a browser here opens by hand.
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in command
    assert not any("token" in word or "password" in word for word in command)  # JupyterLab's own


def test_lab_opens_the_chinese_notebook(started):
    assert main(["lab", "--language", "zh"]) == 0
    assert "--LabApp.default_url=/lab/tree/notebooks/zh/00_start_here.ipynb" in started[0]


def test_lab_does_not_ask_about_news_and_keeps_the_readers_settings(started, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "own")
    assert main(["lab"]) == 0
    settings, own = started[1]["JUPYTER_CONFIG_PATH"].split(os.pathsep)
    assert own == "own"
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", settings)
    from jupyter_server.services.config.manager import ConfigManager

    defaults = ConfigManager(config_dir_name="labconfig").get("default_setting_overrides")
    notification = defaults["@jupyterlab/apputils-extension:notification"]
    assert notification == {"fetchNews": "false", "checkForUpdates": False}


def test_run_says_last_where_its_result_lies(monkeypatch, capsys):
    from efflab.publishing import run as running

    asked = []

    def run(name, given, *, fresh):
        asked.append((name, given, fresh))
        print("   1.00 s  x = 1")
        return running.NOTEBOOKS.parent / "runs" / "a.ipynb"

    monkeypatch.setattr(running, "run", run)
    monkeypatch.chdir(running.NOTEBOOKS.parent)
    assert main(["run", "03", "-p", "max_len=2048"]) == 0
    assert main(["run", "03", "--fresh"]) == 0
    assert asked == [("03", {"max_len": 2048}, False), ("03", {}, True)]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.replace("\\", "/") == "stored in runs/a.ipynb"


def test_doctor_and_list_speak_chinese(capsys):
    try:
        assert main(["doctor", "--language", "zh"]) == 0
        assert main(["list", "--language", "zh"]) == 0
    finally:
        use_language("en")
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert any(line.startswith("ok  处理器核数  ") for line in lines)
    assert any(re.fullmatch(r"00 +\d+ 分钟  从这里开始", line) for line in lines)
    assert report([row("memory", None, "anything")]) == (
        "--  memory  missing: does not work without it: anything"
    )


def test_parameters_are_literals():
    assert [literal(t) for t in ("512", "0.5", "True", "gpt2", "[1, 2]")] == [
        512, 0.5, True, "gpt2", [1, 2],
    ]  # fmt: skip
    assert parse(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}


def test_combinations_and_names_of_runs():
    grid = combinations({"n": [1, 2], "m": ["a"]})
    assert grid == [{"n": 1, "m": "a"}, {"n": 2, "m": "a"}]
    assert [run_name(g) for g in grid] == ["m=a,n=1.ipynb", "m=a,n=2.ipynb"]
    # what a file name cannot hold is told apart by a hash
    assert run_name({"m": "a/b"}) != run_name({"m": "a:b"})
    assert "/" not in run_name({"m": "a/b"})
