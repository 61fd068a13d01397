"""The package where no repository is around it: a wheel brings what its commands read.

`make test` unpacks the wheel; `make test-release` asks the same of an environment that has nothing
but the wheel and what that brings along, named in EFFLAB_INSTALLED by its Python.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from efflab.base.places import AROUND, ROOT, is_checkout, require_checkout

BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
EVERY = """
import importlib, pathlib, pkgutil, efflab
for found in pkgutil.walk_packages(efflab.__path__, "efflab."):
    importlib.import_module(found.name)
print(pathlib.Path(efflab.__file__).parent)
"""
LOAD = """
from efflab.base import limits
from efflab import data, pretrained
from efflab.experiments.record import read_record
from efflab.lab.verdict import load_claims
print(len(data.tokens_of(["def f(): pass"])) > 3, pretrained.load_stdlib_gpt().config.n_layer,
      read_record("gptq-quality")["complete"], len(load_claims()) > 20,
      *limits.entry_of("00")["limits"])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: setuptools leaves its folders where it works."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "cache", "*.ipynb", "src")
    for name in ("efflab", "data", "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "build_wheel.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-c", BUILD, str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`installed(*arguments)` runs the installed package's Python in an empty folder."""
    unpacked, empty = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("empty")
    python = os.environ.get("EFFLAB_INSTALLED")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if python is None:
        python, environment["PYTHONPATH"] = sys.executable, str(unpacked)
        zipfile.ZipFile(wheel).extractall(unpacked)
    return lambda *arguments: subprocess.run(
        [Path(python).absolute(), *arguments],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
    )


def here(*arguments):
    """What the checkout's own command prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "efflab.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def test_a_wheel_takes_all_of_both_packages_and_of_data_and_nothing_else(wheel):
    folders = ("efflab", "data", "notebooks/efflab_rooms")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    known = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    inside = [name for name in known if (ROOT / name).exists()]
    names = [name.removeprefix("notebooks/") for name in inside]
    wanted = {f"efflab/repository/{n}" if n.startswith("data/") else n for n in names}
    assert len(wanted) > 300
    found = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert found == wanted | {"efflab/repository/notebooks/catalog.toml"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "--language", "zh"),
        ("doctor",),
        ("advise", "bert-base", "CPU with VNNI", "latency"),
    ],
    ids=" ".join,
)
def test_a_command_says_the_same_without_a_repository(arguments, installed):
    done = installed("-m", "efflab.cli", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == here(*arguments)
    assert len(done.stdout.splitlines()) > 10


@pytest.mark.parametrize(
    "arguments",
    [
        *(("run", "00"), ("sweep", "00"), ("build",), ("new", "90", "sums"), ("report",)),
        *(("ledger", "run"), ("ledger", "add", "x.json"), ("site",), ("experiment", "x")),
        *(("train", "stdlib-gpt"), ("lab",), ("register",)),
    ],
    ids=" ".join,
)
def test_what_needs_the_repository_says_so_in_a_line(arguments, installed):
    done = installed("-m", "efflab.cli", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"efflab: command='{arguments[0]}': expected one of doctor, list, card and advise; "
        "the others need a clone of the repository\n"
    )


def test_every_module_loads_and_what_data_holds_is_found(installed):
    done = installed("-c", EVERY)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith(str(AROUND / "efflab"))
    done = installed("-c", LOAD)
    assert done.stdout.split()[:4] == ["True", "6", "True", "True"], done.stderr
    assert "seq_len" in done.stdout.split()


def test_a_checkout_is_its_own_place():
    assert is_checkout()
    assert Path(__file__).resolve().parents[2] == ROOT == AROUND
    require_checkout("run")
