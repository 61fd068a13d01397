"""An experiment killed by SIGKILL, in a case or half way through a file, goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

TOY = '''
"""An experiment that stops where it is told to, and waits there to be killed."""
import os, time
from pathlib import Path

from efflab.base import files
from efflab.experiments import record

record.machine = lambda: dict(cpu="toy", features=None, threads=1)  # asking torch takes seconds
NAME, FOLDER = "toy", Path(__file__).parent

def log(line):
    with (FOLDER / "log").open("a") as file:
        file.write(line + "\\n")

def wait():
    (FOLDER / "waiting").touch()
    time.sleep(600)

def half(part, path):
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    wait()

def run_one(n, seed):
    log(f"began {n}")
    if os.environ.get("STOP") == f"case {n}":
        wait()
    if os.environ.get("STOP") == f"write {n}":
        files.os.replace = half
    return dict(square=n * n)

def run(*, fresh=False):
    cases = [dict(n=n, seed=0) for n in range(4)]
    return record.run_cases(NAME, cases, run_one, settings={}, fresh=fresh, folder=FOLDER)
'''
START = """
import sys
import efflab.experiments
from efflab.cli import main

efflab.experiments.__path__.append(sys.argv[1])  # where else experiments are looked for
sys.exit(main(["experiment", "toy", *sys.argv[2:]]))
"""


def start(folder, *arguments, stop=""):
    command = [sys.executable, "-c", START, str(folder), *arguments]
    environment = os.environ | dict(STOP=stop)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed_at(folder, stop, *arguments):
    """Start, wait until it says that it is there, kill it."""
    waiting = folder / "waiting"
    process = start(folder, *arguments, stop=stop)
    while not waiting.exists() and process.poll() is None:
        time.sleep(0.05)
    waiting.unlink()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def squares(folder):
    (block,) = json.loads((folder / "toy.json").read_text())["machines"]
    return {run["n"]: run["square"] for run in block["runs"]}


def began(folder):
    return [int(line.split()[1]) for line in (folder / "log").read_text().splitlines()]


@pytest.mark.parametrize("stop", ["case 2", "write 2"])
def test_a_killed_experiment_loses_and_repeats_nothing_finished(tmp_path, stop):
    (tmp_path / "toy.py").write_text(TOY)
    killed_at(tmp_path, stop)
    parts = list(tmp_path.glob("*.part"))
    assert len(parts) == (stop == "write 2")
    for part in parts:
        with pytest.raises(ValueError, match=r"char \d+"):
            json.loads(part.read_text())  # half a file, as a kill leaves it
    assert squares(tmp_path) == {0: 0, 1: 1}

    said = start(tmp_path).communicate()[0]
    assert "toy: 2 of 4 runs are recorded" in said
    assert squares(tmp_path) == {0: 0, 1: 1, 2: 4, 3: 9}
    assert began(tmp_path) == [0, 1, 2, 2, 3]  # only what was not finished began twice
    assert not list(tmp_path.glob("*.part"))


def test_a_killed_repeat_keeps_the_old_runs(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    assert start(tmp_path).wait() == 0
    killed_at(tmp_path, "case 1", "--fresh")
    assert squares(tmp_path) == {0: 0, 1: 1, 2: 4, 3: 9}
    assert began(tmp_path) == [0, 1, 2, 3, 0, 1]
    said = start(tmp_path).communicate()[0]
    assert "toy: 4 of 4 runs are recorded" in said
    assert began(tmp_path) == [0, 1, 2, 3, 0, 1]
