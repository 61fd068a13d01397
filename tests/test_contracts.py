"""What holds the house together: directions of imports, the lock, the workflow, order of tests."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from code_files import FOLDERS, code_files
from order import longest_first
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from efflab.publishing.catalog import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = ROOT / ".github" / "workflows" / "notebooks.yml"
RENEW = "; add it to requirements.txt with what it brings along, or renew all: make lock"


# --- Imports ---------------------------------------------------------------------------------


WRONG_IMPORTS = {
    "efflab/cost.py": "from efflab import lab",
    "efflab/structure/window.py": "import efflab.compression.affine",
    "efflab/lab/check.py": "import efflab_rooms.gptq",
    "efflab_rooms/gptq/verdicts.py": "import efflab_rooms.mixer.verdicts",
    "efflab/brand_new.py": "",  # a file with no place among the layers
}


def test_imports_the_wrong_way_are_found(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS:
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file, line in WRONG_IMPORTS.items():
        with (tmp_path / file).open("a", encoding="utf-8") as source:
            source.write(f"\n{line}\n")
    start = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", start, "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for broken in (
        "efflab.cost -> efflab.lab",
        "efflab.structure.window -> efflab.compression.affine",
        "efflab.lab.check -> efflab_rooms",
        "efflab_rooms.gptq.verdicts -> efflab_rooms.mixer.verdicts",
        "- efflab.brand_new",
    ):
        assert broken in done.stdout


LIGHT = "config cost devices families inference layers advice.ranking advice.report advice.card"
LIGHT = [f"efflab.{name}" for name in f"{LIGHT} advice.card_report distributed.plan".split()]
LOADED = """
import sys, time
{statements}
heavy = [name for name in ("torch", "numpy", "scipy") if name in sys.modules]
print(time.process_time(), *heavy, file=sys.stderr)
"""
CARD = "from efflab.cli import main; main(['card', 'qwen3-8b', '--json'])"
ADVICE = "from efflab.cli import main; main(['advise', 'gpt2', 'H100 SXM', 'latency'])"


@pytest.mark.parametrize("statements", [*(f"import {name}" for name in LIGHT), CARD, ADVICE])
def test_costs_and_advice_need_no_torch_and_less_than_a_second(statements):
    command = [sys.executable, "-c", LOADED.format(statements=statements)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, *heavy = done.stderr.split()
    assert heavy == []
    assert float(seconds) < 1


# --- The lock --------------------------------------------------------------------------------


def pinned(text: str) -> dict[str, str]:
    """{canonical name: version} of a requirements.txt in which all is pinned."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "every line is name==version"
    names = [name for name, _ in pairs]
    assert names == sorted(names, key=str.lower)
    assert len({canonicalize_name(n) for n in names}) == len(names)
    return {canonicalize_name(name): version for name, version in pairs}


LOCK = pinned((ROOT / "requirements.txt").read_text(encoding="utf-8"))


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for itself, the tests' tools among it."""
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(r) for r in [*project["dependencies"], *(r for e in extras for r in e)]]


def unmet(requirements: list[Requirement], lock: dict[str, str]) -> list[str]:
    """The requirements that the lock does not satisfy."""
    return [
        f"{r} (locked: {lock.get(canonicalize_name(r.name))})"
        for r in requirements
        if not r.specifier.contains(lock.get(canonicalize_name(r.name), "0.dev0"), prereleases=True)
        or canonicalize_name(r.name) not in lock
    ]


def brought_along(requirements: list[Requirement], applies) -> set[str]:
    """Canonical names of the requirements and of all that these need, as installed here.

    `applies(marker, extras)` says whether a dependency counts.
    """
    seen, waiting = set(), list(requirements)
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = distribution(requirement.name).requires or []
        except PackageNotFoundError:
            continue
        needs = map(Requirement, needs)
        waiting += [n for n in needs if applies(n.marker, requirement.extras)]
    return {name for name, _ in seen}


def here(marker: Marker | None, extras) -> bool:
    """Whether a dependency counts on this machine."""
    return marker is None or any(marker.evaluate({"extra": e}) for e in extras or {""})


def anywhere(marker: Marker | None, extras) -> bool:
    """Whether it may count on any machine: only an extra that nobody asked for rules it out."""
    return marker is None or "extra" not in str(marker) or here(marker, extras)


def test_the_lock_satisfies_pyproject():
    assert not unmet(wanted(), LOCK), RENEW
    # what torch brings for a GPU is its own matter, and differs by machine
    needed = {n for n in brought_along(wanted(), here) if not n.startswith(("nvidia-", "cuda-"))}
    assert sorted(needed - LOCK.keys() - {"triton"}) == [], RENEW
    assert sorted(LOCK.keys() - brought_along(wanted(), anywhere)) == [], "nothing needs it"


def test_a_lock_out_of_step_is_found():
    asked = [Requirement(r) for r in ("alpha>=2", "Beta_x", "gamma<1", "delta")]
    found = pinned("# head\nalpha==1.9\nbeta-x==1\ngamma==0.9\n")
    assert unmet(asked, found) == ["alpha>=2 (locked: 1.9)", "delta (locked: None)"]
    with pytest.raises(AssertionError, match="name==version"):
        pinned("alpha>=1\n")


# --- The workflow ----------------------------------------------------------------------------


def test_the_workflow_keeps_its_schema(tmp_path):
    text, broken = WORKFLOW.read_text(encoding="utf-8"), tmp_path / "broken.yml"
    broken.write_text(text.replace("runs-on:", "runs_on:", 1), encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--output-format", "json"]
    command += ["--builtin-schema", "vendor.github-workflows", str(WORKFLOW), str(broken)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert [error["filename"] for error in found["errors"]] == [str(broken)]
    assert "'runs-on' is a required property" in json.dumps(found)


def test_the_workflow_calls_what_there_is():
    text = WORKFLOW.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"run: make ([\w-]+)", text))
    assert targets == {"lock", "test", "actionlint", "test-release", "site"}
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_after_the_set_up_nothing_is_fetched():
    command = ["make", "--dry-run", "--no-print-directory", "test"]
    command += [f"--old-file=.venv/.{name}" for name in ("installed", "fetched")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "ruff check" in done.stdout
    assert not re.search(r"\b(install|apt-get|curl)\b", done.stdout)


# --- The order of the tests ------------------------------------------------------------------


def test_the_longest_notebook_starts_first(tmp_path):
    sources = tmp_path / "notebooks" / "src"
    sources.mkdir(parents=True)
    for name in ("00_a", "01_b", "02_c", "03_d"):
        (sources / f"{name}.py").touch()
    assert longest_first("en", tmp_path / "notebooks") == ["00", "01", "02", "03"]
    told = dict(peak_mb=1, machine=dict(cpu="a", features=None, threads=1), date="2026-11-20")
    seconds = {"00 en": 2.0, "02 en": 9.5, "01 zh": 5.0}
    builds = {name: told | dict(seconds=n) for name, n in seconds.items()}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "builds.json").write_text(json.dumps(builds), encoding="utf-8")
    assert longest_first("en", tmp_path / "notebooks") == ["02", "00", "01", "03"]
    assert longest_first("zh", tmp_path / "notebooks") == ["01", "00", "02", "03"]


# --- Counts ----------------------------------------------------------------------------------

MAKERS = {"zeros", "ones", "full", "empty", "arange", "tensor"}
JOINERS = {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}


def untyped(source):
    """Lines that join tensors with a new one whose type nobody said, as floats swallow counts."""
    return [
        call.lineno
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in JOINERS
        for made in ast.walk(call)
        if isinstance(made, ast.Call)
        and ast.unparse(made.func) in {f"torch.{name}" for name in MAKERS}
        and not any(keyword.arg == "dtype" for keyword in made.keywords)
    ]


def test_no_count_is_joined_with_a_tensor_of_no_stated_type():
    assert untyped("torch.cat([torch.zeros(1), n.cumsum(0)])") == [1]
    assert untyped("torch.cat([torch.zeros(1, dtype=torch.long), n.cumsum(0)])") == []
    found = {name: untyped(f.read_text(encoding="utf-8")) for name, f in code_files().items()}
    assert {name: lines for name, lines in found.items() if lines} == {}
