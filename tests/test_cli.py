"""The command: quick answers, helpful errors, and a ledger that is true."""

import argparse
import os
import re
import subprocess
import sys

import pytest

import efflab
from efflab.cli import main, parser
from efflab.data import MINILM_SHA256
from efflab.lab.text import use_language
from efflab.publishing.doctor import doctor, report, row
from efflab.publishing.parameters import literal, parse, parse_choices
from efflab.publishing.run import combinations, run_name

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
        (["site", "--port", "8001"], "--port=8001: expected --serve beside it"),
        (["experiment", "x"], "name='x': expected one of 'attention-bench', 'budget-game', "),
    ],
)
def test_errors_say_what_is_known(arguments, message, capsys):
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_every_argument_says_what_it_is_for():
    def silent(parser, name):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for key, sub in action.choices.items():
                    yield from silent(sub, f"{name} {key}")
                    yield from [] if sub.description else [f"{name} {key}"]
            elif not action.help:
                yield f"{name} {action.dest}"

    assert set(silent(parser(), "efflab")) == set()


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


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"efflab {efflab.__version__}\n"


@pytest.mark.parametrize("port", ["70000", "65536", "0", "-1"])
def test_a_port_that_is_none_is_refused(port, capsys, started):
    assert main(["lab", "--port", port]) == 1
    assert f"--port={port}: expected a number from 1 to 65535" in capsys.readouterr().err
    assert started == []


@pytest.fixture
def started(monkeypatch):
    """(command, environment) of what takes this process's place, then what runs beside it."""
    found = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: beside.append(command))
    beside = []
    monkeypatch.setattr("os.execve", lambda path, *rest: found.extend([*rest, *beside]))
    return found


def test_lab_opens_notebook_00_on_this_machine_alone(started):
    assert main(["lab", "--no-browser", "--port", "8899"]) == 0
    command, _, beside = started
    assert beside[-1] == "efflab.publishing.trust"
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
        512,
        0.5,
        True,
        "gpt2",
        [1, 2],
    ]
    assert parse(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2", [1, 2]),
        ("'f(a, b)','x'", ["f(a, b)", "x"]),
        ('"import os, sys"', ["import os, sys"]),
        (r"'it\'s, here',b", ["it's, here", "b"]),
        ("[1, 2],[3]", [[1, 2], [3]]),
        ("(1, (2, 3)),{'a': [4, 5]}", [(1, (2, 3)), {"a": [4, 5]}]),
        ("gpt2,'a, b',0.5", ["gpt2", "a, b", 0.5]),
        ("def f(x, y):,it's", ["def f(x, y):", "it's"]),
        ("(,[", ["(", "["]),
        ("中文，一,二", ["中文，一", "二"]),
    ],
)
def test_a_comma_parts_values_only_outside_quotes_and_brackets(text, values):
    assert parse_choices([f"x={text}"]) == {"x": values}


def test_a_repeated_parameter_is_refused_by_run_and_one_more_value_for_sweep(capsys):
    assert main(["run", "03", "-p", "seed=1", "-p", "seed=2"]) == 1
    assert capsys.readouterr().err == "efflab: -p='seed=2': expected seed once\n"
    assert parse_choices(["seed=1", "n=3", "seed=2,5"]) == {"seed": [1, 2, 5], "n": [3]}


@pytest.mark.parametrize("text", ["-" * 5000 + "1", "(" * 5000, "9" * 5000, "[" * 300 + "]" * 300])
def test_no_text_is_too_deep_to_be_refused(text):
    assert literal(text) == text


def test_combinations_and_names_of_runs():
    grid = combinations({"n": [1, 2], "causal": [True]})
    assert grid == [{"n": 1, "causal": True}, {"n": 2, "causal": True}]
    assert [run_name(g) for g in grid] == ["causal=True,n=1.ipynb", "causal=True,n=2.ipynb"]
    assert run_name({}) == "defaults.ipynb"


def test_no_two_runs_share_a_name_on_any_file_system():
    runs = [
        {"m": "a/b"},
        {"m": "a_b"},
        {"m": "a:b"},
        {"m": "A_b"},
        {"m": "a,n=8"},
        {"m": "a", "n": 8},
    ]
    runs += [{"m": "8"}, {"m": 8}, {"M": 8}, {"m": True}, {"m": "True"}, {"m": "defaults"}, {}]
    runs += [{"m": "长" * n} for n in (30, 300)] + [{"m": "x" * n} for n in (100, 101, 90_000)]
    runs += [{"m": [1, 2]}, {"m": [1, [2]]}, {"m": "1e-16"}, {"m": 1e-16}, {"m": 1e16}]
    names = [run_name(given) for given in runs]
    assert len({name.lower() for name in names}) == len(runs)
    assert all(len(name.encode()) < 200 and name.isascii() and "/" not in name for name in names)
